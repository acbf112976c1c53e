// Command listener listens on the address that is its last argument, if it has one, prints "ready PORT UID PPID HOME" and waits.
// With "later ADDRESS" it is ready first and listens after a byte on standard input, when it says so again.
// With "spawn" it starts and awaits a program over and over.
// SIGUSR1: it executes itself in place. SIGTERM: it exits with code 3.
package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

func spawn() {
	for {
		if err := exec.Command("/bin/true").Run(); err != nil {
			panic(err)
		}
	}
}

func ready(port int) {
	fmt.Println("ready", port, os.Getuid(), os.Getppid(), os.Getenv("HOME"))
}

func main() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGTERM)
	arguments := os.Args[1:]
	port := 0
	if len(arguments) == 1 && arguments[0] == "spawn" {
		go spawn()
		arguments = nil
	}
	if len(arguments) == 2 && arguments[0] == "later" {
		ready(0)
		if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
			panic(err)
		}
	}
	if len(arguments) > 0 {
		listener, err := net.Listen("tcp", arguments[len(arguments)-1])
		if err != nil {
			panic(err)
		}
		port = listener.Addr().(*net.TCPAddr).Port
	}
	ready(port)
	if <-signals == syscall.SIGTERM {
		os.Exit(3)
	}
	if err := syscall.Exec("/proc/self/exe", os.Args, os.Environ()); err != nil {
		panic(err)
	}
}
