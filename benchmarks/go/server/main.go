// Command server answers the requests of benchmarks/overhead.py and counts them in a file that is mapped by both.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

type product struct {
	ID    int      `json:"id"`
	Name  string   `json:"name"`
	Price float64  `json:"price"`
	Tags  []string `json:"tags"`
}

// products encode to 10 KiB, give or take some bytes.
func products() []product {
	var all []product
	for id := range 105 {
		all = append(all, product{id, fmt.Sprintf("product number %d", id), 9.99 + float64(id), []string{"a tag", "another tag"}})
	}
	return all
}

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
	path := flag.String("counter", "", "a file of eight bytes or more, for the number of requests")
	flag.Parse()
	requests := mapped(*path)
	all, text := products(), []byte("twenty bytes, no more")[:20]

	mux := http.NewServeMux()
	mux.HandleFunc("GET /small", func(w http.ResponseWriter, r *http.Request) {
		atomic.AddUint64(requests, 1)
		w.Write(text)
	})
	mux.HandleFunc("GET /json", func(w http.ResponseWriter, r *http.Request) {
		atomic.AddUint64(requests, 1)
		var body bytes.Buffer
		json.NewEncoder(&body).Encode(all)
		w.Header().Set("Content-Type", "application/json")
		w.Write(body.Bytes())
	})
	mux.HandleFunc("GET /sleep", func(w http.ResponseWriter, r *http.Request) {
		atomic.AddUint64(requests, 1)
		time.Sleep(2 * time.Millisecond)
		w.Write(text)
	})
	mux.HandleFunc("GET /products/{id}", func(w http.ResponseWriter, r *http.Request) {
		atomic.AddUint64(requests, 1)
		w.Write(text)
	})

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	log.Fatal(http.Serve(listener, mux))
}
