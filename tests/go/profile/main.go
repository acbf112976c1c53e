// Writes a CPU profile of a net/http server under load, for builds with -pgo: profile FILE SECONDS.
package main

import (
	"io"
	"net"
	"net/http"
	"os"
	"runtime/pprof"
	"strconv"
	"sync"
	"time"
)

const clients = 4

func main() {
	seconds, err := strconv.Atoi(os.Args[2])
	must(err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok\n") })
	go http.Serve(listener, mux)

	file, err := os.Create(os.Args[1])
	must(err)
	must(pprof.StartCPUProfile(file))
	end := time.Now().Add(time.Duration(seconds) * time.Second)
	var group sync.WaitGroup
	for i := 0; i < clients; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			load(listener.Addr().String(), end)
		}()
	}
	group.Wait()
	pprof.StopCPUProfile()
	must(file.Close())
}

// load asks without net/http, so that the profile is the server's.
func load(address string, end time.Time) {
	connection, err := net.Dial("tcp", address)
	must(err)
	defer connection.Close()
	answer := make([]byte, 4096)
	for time.Now().Before(end) {
		_, err = io.WriteString(connection, "GET /ok HTTP/1.1\r\nHost: localhost\r\n\r\n")
		must(err)
		_, err = connection.Read(answer)
		must(err)
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
