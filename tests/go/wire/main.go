// Command wire is three programs: a client that makes requests of many kinds when it is told to on its standard input, a
// server that logs what arrived, and a forward proxy between them. It knows nothing of tracing.
//
//	wire server ADDRESS          one JSON line a request: what arrived
//	wire proxy ADDRESS           forwards, headers and all; logs nothing
//	wire client URL [PROXY]      reads "KIND COUNT SIZE CONCURRENCY", prints one JSON line a request, then "done"
//
// Each prints "ready" first, the first two behind "listening ADDRESS".
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"sync"
)

var out struct {
	sync.Mutex
	*json.Encoder
}

func say(line any) {
	out.Lock()
	defer out.Unlock()
	if err := out.Encode(line); err != nil {
		os.Exit(1)
	}
}

// arrived is what the server says of a request.
type arrived struct {
	ID           string   `json:"id"`
	Path         string   `json:"path"`
	Traceparents []string `json:"traceparents"`
	Headers      int      `json:"headers"`
	Bytes        int64    `json:"bytes"`
	CRC          uint32   `json:"crc"`
	Chunked      bool     `json:"chunked"`
	Remote       string   `json:"remote"`
}

func serve(w http.ResponseWriter, r *http.Request) {
	sum := crc32.NewIEEE()
	n, err := io.Copy(sum, r.Body)
	if err != nil {
		n = -1
	}
	headers := 0
	for _, values := range r.Header {
		headers += len(values)
	}
	say(arrived{
		ID: r.Header.Get("X-Id"), Path: r.URL.Path, Traceparents: r.Header.Values("Traceparent"), Headers: headers,
		Bytes: n, CRC: sum.Sum32(), Chunked: len(r.TransferEncoding) > 0, Remote: r.RemoteAddr,
	})
	fmt.Fprintln(w, "ok")
}

func listen(address string) net.Listener {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening", listener.Addr())
	fmt.Println("ready")
	return listener
}

func main() {
	out.Encoder = json.NewEncoder(os.Stdout)
	if len(os.Args) < 3 {
		log.Fatal("usage: wire server|proxy ADDRESS, wire client URL [PROXY]")
	}
	switch os.Args[1] {
	case "server":
		log.Fatal(http.Serve(listen(os.Args[2]), http.HandlerFunc(serve)))
	case "tls":
		server := httptest.NewUnstartedServer(http.HandlerFunc(serve))
		server.Listener = listen(os.Args[2])
		server.StartTLS()
		select {}
	case "proxy":
		forward := &httputil.ReverseProxy{Director: func(*http.Request) {}}
		log.Fatal(http.Serve(listen(os.Args[2]), forward))
	case "client":
		proxy := ""
		if len(os.Args) > 3 {
			proxy = os.Args[3]
		}
		c := newClient(os.Args[2], proxy)
		fmt.Println("ready")
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			var kind string
			var count, size, concurrency int
			if _, err := fmt.Sscan(lines.Text(), &kind, &count, &size, &concurrency); err != nil {
				log.Fatal(err)
			}
			c.run(kind, count, size, concurrency)
			fmt.Println("done")
		}
	}
}
