package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
)

const inheritedListener = "HTTP_SERVER_LISTENER_FD"

var wantRestart = func() {}

// restart replaces the program by itself in place, with the same pid and listening socket and without failing a request
// that a client sent on a connection of its own: connections that were not accepted yet wait in the socket's backlog.
type restart struct {
	listener    net.Listener
	socket      *os.File
	server      *http.Server
	connections sync.WaitGroup
	served      chan struct{}
	wanted      chan struct{}
}

func newRestart(listener net.Listener, server *http.Server) *restart {
	socket, err := listener.(*net.TCPListener).File()
	if err != nil {
		fail(err)
	}
	r := &restart{listener: listener, socket: socket, server: server, served: make(chan struct{}), wanted: make(chan struct{}, 1)}
	server.ConnState = r.count
	wantRestart = func() {
		select {
		case r.wanted <- struct{}{}:
		default:
		}
	}
	return r
}

// count is called with StateNew by the loop that accepts, before it accepts another.
func (r *restart) count(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		r.connections.Add(1)
	case http.StateClosed, http.StateHijacked:
		r.connections.Done()
	}
}

func (r *restart) now() {
	r.listener.Close()
	<-r.served
	r.server.SetKeepAlivesEnabled(false)
	r.connections.Wait()
	logLines.flush()
	if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, r.socket.Fd(), syscall.F_SETFD, 0); errno != 0 {
		fail(errno)
	}
	var environment []string
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, inheritedListener+"=") {
			environment = append(environment, variable)
		}
	}
	environment = append(environment, fmt.Sprintf("%s=%d", inheritedListener, r.socket.Fd()))
	executable, err := os.Executable()
	if err != nil {
		fail(err)
	}
	fail(syscall.Exec(executable, os.Args, environment))
}

// listen opens the address, or takes the socket that the program had before it re-executed itself.
func listen(address string) (net.Listener, error) {
	var fd uintptr
	if _, err := fmt.Sscan(os.Getenv(inheritedListener), &fd); err == nil {
		socket := os.NewFile(fd, "listener")
		defer socket.Close()
		return net.FileListener(socket)
	}
	return net.Listen("tcp", address)
}
