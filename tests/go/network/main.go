// Command network is a service with ten kinds of connections, which keeps count of them itself, and what it talks to.
//
// "network peers DIR" opens what it talks to, prints "ready JSON" and waits; DIR is for a Unix socket.
// "network serve JSON [ADDRESS]" takes that JSON, listens on 127.0.0.1 (port 0) or ADDRESS, prints "ready PORT" and answers:
//
//	/work         one connection of each kind, and every hundredth time one more, which should not be
//	/forbidden    that one
//	/new          a destination that /work never has
//	/short?n=N    N connections to the echo service, one after the other, 64 at once
//	/hold?n=N     N connections that stay open; /release closes them
//	/scan?n=N&from=I  N ports of 127.0.0.10 and the next addresses, 10,000 of each from 10000 on, at which nobody listens,
//	                  from the I-th on, 64 at once
//	/truth        what it did so far, as JSON: destination -> Truth
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "network:", err)
		os.Exit(1)
	}
}

func answer(response http.ResponseWriter, err error) {
	if err != nil {
		http.Error(response, err.Error(), http.StatusInternalServerError)
	}
}

func number(request *http.Request, name string, without int) int {
	n, err := strconv.Atoi(request.URL.Query().Get(name))
	if err != nil {
		return without
	}
	return n
}

func serve(peers Peers, address string) {
	service := newService(peers)
	mux := http.NewServeMux()
	mux.HandleFunc("/work", func(response http.ResponseWriter, request *http.Request) {
		answer(response, service.work(request.Context()))
	})
	mux.HandleFunc("/forbidden", func(response http.ResponseWriter, request *http.Request) {
		answer(response, service.exfiltrate(request.Context()))
	})
	mux.HandleFunc("/new", func(response http.ResponseWriter, request *http.Request) {
		answer(response, service.callNew(request.Context()))
	})
	mux.HandleFunc("/short", func(response http.ResponseWriter, request *http.Request) {
		answer(response, service.callOften(request.Context(), number(request, "n", 1)))
	})
	mux.HandleFunc("/hold", func(response http.ResponseWriter, request *http.Request) {
		answer(response, service.hold(request.Context(), number(request, "n", 1)))
	})
	mux.HandleFunc("/scan", func(response http.ResponseWriter, request *http.Request) {
		service.scan(request.Context(), number(request, "from", 0), number(request, "n", 1))
	})
	mux.HandleFunc("/release", func(http.ResponseWriter, *http.Request) { service.release() })
	mux.HandleFunc("/truth", func(response http.ResponseWriter, _ *http.Request) {
		answer(response, json.NewEncoder(response).Encode(service.truth.all()))
	})
	listener, err := net.Listen("tcp", address)
	check(err)
	fmt.Println("ready", listener.Addr().(*net.TCPAddr).Port)
	check(http.Serve(listener, mux))
}

func main() {
	switch {
	case len(os.Args) == 3 && os.Args[1] == "peers":
		text, err := json.Marshal(openPeers(os.Args[2]))
		check(err)
		fmt.Println("ready", string(text))
		select {}
	case len(os.Args) >= 3 && os.Args[1] == "serve":
		var peers Peers
		check(json.Unmarshal([]byte(os.Args[2]), &peers))
		address := "127.0.0.1:0"
		if len(os.Args) > 3 {
			address = os.Args[3]
		}
		serve(peers, address)
	default:
		fmt.Fprintln(os.Stderr, "usage: network peers DIR | network serve JSON [ADDRESS]")
		os.Exit(2)
	}
}
