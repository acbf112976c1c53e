// Command opens opens files for its routes and counts them itself, by the function that runtime.Callers names.
//
// It prints "listening ADDRESS" and "ready" and answers:
//
//	/read/{name}     opens FOLDER/name, by a function that is inlined into the handler's
//	/missing/{name}  tries FOLDER/name, which isn't there
//	/background      opens one on another goroutine, for no request
//	/truth           what it opened so far, as JSON
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"sync"
)

// Opened is one row of the truth.
type Opened struct {
	Function, Route, Path, Error string
	Line, Count                  int
}

var (
	mutex  sync.Mutex
	opened = map[Opened]int{}
	folder = flag.String("folder", ".", "where the files are")
	listen = flag.String("listen", "127.0.0.1:0", "address")
)

//go:noinline
func note(route, path string, err error) {
	callers := make([]uintptr, 1)
	runtime.Callers(2, callers)
	frame, _ := runtime.CallersFrames(callers).Next()
	row := Opened{Function: frame.Function, Route: route, Path: path, Line: frame.Line - 1}
	if err != nil {
		row.Error = "ENOENT"
	}
	mutex.Lock()
	opened[row]++
	mutex.Unlock()
}

// read is small enough to be inlined.
func read(route, path string) {
	file, err := os.Open(path)
	note(route, path, err)
	file.Close()
}

//go:noinline
func try(route, path string) {
	_, err := os.Open(path)
	note(route, path, err)
}

func background(path string, done chan<- bool) {
	file, err := os.Open(path)
	note("", path, err)
	file.Close()
	done <- true
}

func truth(response http.ResponseWriter, _ *http.Request) {
	mutex.Lock()
	defer mutex.Unlock()
	rows := []Opened{}
	for row, count := range opened {
		row.Count = count
		rows = append(rows, row)
	}
	sort.Slice(rows, func(i, j int) bool { return fmt.Sprint(rows[i]) < fmt.Sprint(rows[j]) })
	json.NewEncoder(response).Encode(rows)
}

func main() {
	flag.Parse()
	http.HandleFunc("GET /read/{name}", func(_ http.ResponseWriter, request *http.Request) {
		read("/read/{name}", filepath.Join(*folder, request.PathValue("name")))
	})
	http.HandleFunc("GET /missing/{name}", func(_ http.ResponseWriter, request *http.Request) {
		try("/missing/{name}", filepath.Join(*folder, request.PathValue("name")))
	})
	work, done := make(chan string), make(chan bool)
	go func() {
		for path := range work {
			background(path, done)
		}
	}()
	http.HandleFunc("GET /background", func(http.ResponseWriter, *http.Request) {
		work <- filepath.Join(*folder, "a")
		<-done
	})
	http.HandleFunc("GET /truth", truth)
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("listening", listener.Addr())
	fmt.Println("ready")
	fmt.Fprintln(os.Stderr, http.Serve(listener, nil))
}
