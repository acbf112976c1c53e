// Command producer makes net/http serve requests that come from nowhere and are answered to nowhere, at the rate that
// its stdin names, line by line, for benchmarks/scale.py: no socket and no client take part of the core.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

const (
	connections = 2
	idle        = 100 * time.Millisecond
)

var (
	request = []byte("GET /items/42 HTTP/1.1\r\nHost: shop.example.com\r\n\r\n")
	address = &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 40007}
	// Nanoseconds between two requests of a connection; 0: none come.
	interval atomic.Int64
)

// endless is a connection on which the next request always has come already.
type endless struct{ rest []byte }

func (c *endless) Read(b []byte) (int, error) {
	if len(c.rest) == 0 {
		c.rest = request
	}
	n := copy(b, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func (c *endless) Write(b []byte) (int, error)        { return len(b), nil }
func (c *endless) Close() error                       { return nil }
func (c *endless) LocalAddr() net.Addr                { return address }
func (c *endless) RemoteAddr() net.Addr               { return address }
func (c *endless) SetDeadline(t time.Time) error      { return nil }
func (c *endless) SetReadDeadline(t time.Time) error  { return nil }
func (c *endless) SetWriteDeadline(t time.Time) error { return nil }

// listener accepts so many connections, then none.
type listener struct{ left int }

func (l *listener) Accept() (net.Conn, error) {
	if l.left == 0 {
		select {}
	}
	l.left--
	return &endless{}, nil
}
func (l *listener) Close() error   { return nil }
func (l *listener) Addr() net.Addr { return address }

// mapped is the counter: eight bytes at the start of the file.
func mapped(path string) *uint64 {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		log.Fatal(err)
	}
	memory, err := syscall.Mmap(int(file.Fd()), 0, 8, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		log.Fatal(err)
	}
	return (*uint64)(unsafe.Pointer(&memory[0]))
}

// await returns when the next request of a connection is due; `due` is when the last one was.
func await(due time.Time) time.Time {
	for {
		apart := time.Duration(interval.Load())
		if apart == 0 {
			time.Sleep(idle)
			due = time.Now()
			continue
		}
		next := due.Add(apart)
		wait := time.Until(next)
		if wait <= 0 {
			return next
		}
		time.Sleep(min(wait, idle))
		if wait <= idle {
			return next
		}
	}
}

func main() {
	path := flag.String("counter", "", "a file of eight bytes or more, for the number of requests")
	flag.Parse()
	requests := mapped(*path)
	text := []byte("twenty bytes, no more")[:20]
	mux := http.NewServeMux()
	mux.HandleFunc("GET /items/{id}", func(w http.ResponseWriter, r *http.Request) {
		atomic.AddUint64(requests, 1)
		w.Write(text)
	})
	for range connections {
		go func() {
			server := &http.Server{Handler: &paced{mux, time.Now()}}
			log.Fatal(server.Serve(&listener{1}))
		}()
	}
	fmt.Println("ready")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		rate, err := strconv.ParseFloat(lines.Text(), 64)
		if err != nil {
			log.Fatal(err)
		}
		if rate == 0 {
			interval.Store(0)
		} else {
			interval.Store(int64(connections * 1e9 / rate))
		}
	}
}

// paced is the handler of one connection, and when its last request was due.
type paced struct {
	handler http.Handler
	due     time.Time
}

func (p *paced) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.due = await(p.due)
	p.handler.ServeHTTP(w, r)
}
