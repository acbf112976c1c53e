// Command hop answers the requests of benchmarks/propagation.py, for some of which it asks itself.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"
)

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

func main() {
	path := flag.String("counter", "", "a file of eight bytes or more, for the number of requests from outside")
	flag.Parse()
	requests := mapped(*path)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	text := []byte("twenty bytes, no more")[:20]
	answer := func(w http.ResponseWriter, r *http.Request) { w.Write(text) }
	// asking answers when the server has answered a request of its own.
	asking := func(client *http.Client) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			request, err := http.NewRequestWithContext(r.Context(), "GET", "http://"+listener.Addr().String()+"/inner", nil)
			if err != nil {
				log.Fatal(err)
			}
			response, err := client.Do(request)
			if err != nil {
				return // wrk has gone
			}
			io.Copy(io.Discard, response.Body)
			response.Body.Close()
			w.Write(text)
		}
	}
	// started answers when a goroutine has run that it started.
	started := func(w http.ResponseWriter, r *http.Request) {
		done := make(chan struct{})
		go func() { close(done) }()
		<-done
		w.Write(text)
	}
	for path, handler := range map[string]http.HandlerFunc{
		"/small":   answer,
		"/call":    asking(&http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}),
		"/connect": asking(&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}),
		"/go":      started,
	} {
		http.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			atomic.AddUint64(requests, 1)
			handler(w, r)
		})
	}
	http.HandleFunc("/inner", answer)
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	log.Fatal(http.Serve(listener, nil))
}
