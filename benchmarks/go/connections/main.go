// Command connections makes the connections, requests and system calls of benchmarks/network.py.
//
// "connections peer" echoes over TCP and answers HTTP on 127.0.0.1, prints both ports and goes on until it is ended.
// "connections client TCP HTTP" prints "ready" and does for each line what it says, N times, 8 at once, then says "done":
//
//	dial N        dials, sends 64 bytes, reads them back, closes
//	request N     an HTTP request over connections that are kept
//
// "connections calls" does the same one after the other, and says how many ns each took:
//
//	getppid N     a system call that does nearly nothing
//	read N        a read of a byte, of no socket
package main

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const atOnce = 8

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func echo(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		check(err)
		go func() {
			defer conn.Close()
			buffer := make([]byte, 64)
			for {
				n, err := conn.Read(buffer)
				if err != nil {
					return
				}
				conn.Write(buffer[:n])
			}
		}()
	}
}

func peer() {
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	web, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	go echo(plain)
	fmt.Println(plain.Addr(), web.Addr())
	check(http.Serve(web, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "an answer") })))
}

func dial(address string) {
	conn, err := net.Dial("tcp", address)
	check(err)
	message := make([]byte, 64)
	_, err = conn.Write(message)
	check(err)
	_, err = io.ReadFull(conn, message)
	check(err)
	check(conn.Close())
}

func request(client *http.Client, address string) {
	response, err := client.Get("http://" + address + "/")
	check(err)
	_, err = io.Copy(io.Discard, response.Body)
	check(err)
	check(response.Body.Close())
}

func times(n int64, do func()) {
	var group sync.WaitGroup
	for i := 0; i < atOnce; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for atomic.AddInt64(&n, -1) >= 0 {
				do()
			}
		}()
	}
	group.Wait()
}

func calls(kind string, n int64) float64 {
	zero, err := syscall.Open("/dev/zero", syscall.O_RDONLY, 0)
	check(err)
	buffer := make([]byte, 1)
	began := time.Now()
	for ; n > 0; n-- {
		if kind == "read" {
			syscall.Read(zero, buffer)
		} else {
			syscall.Getppid()
		}
	}
	took := time.Since(began)
	check(syscall.Close(zero))
	return float64(took.Nanoseconds())
}

func main() {
	if os.Args[1] == "peer" {
		peer()
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: atOnce}}
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var kind string
		var n int64
		_, err := fmt.Sscan(lines.Text(), &kind, &n)
		check(err)
		switch kind {
		case "dial":
			times(n, func() { dial(os.Args[2]) })
			fmt.Println("done")
		case "request":
			times(n, func() { request(client, os.Args[3]) })
			fmt.Println("done")
		default:
			fmt.Println(calls(kind, n) / float64(n))
		}
	}
}
