// A gRPC server and client under test: nothing of OpenTelemetry in it, no generated code, so that it builds with any
// version of google.golang.org/grpc. It logs what it knows of each call as a JSON line, with the interval on
// CLOCK_MONOTONIC; the tests compare spans with these lines.
//
//	grpc -listen 127.0.0.1:0 [-workers 4]                       a server
//	grpc -listen 127.0.0.1:0 -ids [-back HOST:PORT]             one that for /load.Front/ID calls /load.Back/ID
//	grpc -to HOST:PORT -kinds unary,chat -times 23              a client; each SIGUSR1 makes it call, the kinds in turn
//	grpc -to HOST:PORT -load 10007 -connections 4 -streams 100  the same with random ids in the methods
//
// prints `listening HOST:PORT` and `ready`; then the lines, and `done` behind each round.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

var (
	listenAddress = flag.String("listen", "127.0.0.1:0", "address")
	to            = flag.String("to", "", "the server that a client calls: HOST:PORT")
	back          = flag.String("back", "", "the server that this server calls: HOST:PORT")
	kindList      = flag.String("kinds", "unary", "calls to make: "+kindNames())
	times         = flag.Int("times", 1, "how many, the kinds in turn")
	load          = flag.Int("load", 0, "how many calls with random ids, in place of -kinds")
	connections   = flag.Int("connections", 4, "over which -load goes")
	streams       = flag.Int("streams", 100, "of -load, at once")
	ids           = flag.Bool("ids", false, "the server answers any method of load.Front and load.Back")
	queued        = flag.Bool("queued", false, "what calls -back is one goroutine, which takes the ids from a channel")
	recovering    = flag.Bool("recover", false, "the server survives a handler's panic, and says INTERNAL")
	workers       = flag.Int("workers", 0, "goroutines that the server keeps for calls")
	secure        = flag.Bool("tls", false, "with a certificate made at the start, which clients don't verify")
	overHTTP      = flag.Bool("over-http", false, "the server is net/http's, with gRPC as its handler")
)

func main() {
	flag.Parse()
	begin := make(chan os.Signal, 1)
	signal.Notify(begin, syscall.SIGUSR1)
	if *to == "" {
		fmt.Printf("listening %s\n", serve())
	}
	fmt.Println("ready")
	made := 0
	for range begin {
		if *load > 0 {
			callMany()
		} else {
			names := strings.Split(*kindList, ",")
			for i := 0; i < *times; i++ {
				kinds[names[made%len(names)]]()
				made++
			}
		}
		fmt.Println("done")
	}
}

// line is what the program itself knows of one call.
type line struct {
	Side   string `json:"side"` // server or client
	Method string `json:"method"`
	Code   string `json:"code"`
	Peer   string `json:"peer"`  // HOST:PORT of the other end
	To     string `json:"to"`    // what a client was made for
	Start  int64  `json:"start"` // CLOCK_MONOTONIC, ns
	End    int64  `json:"end"`
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "grpc:", err)
	os.Exit(1)
}
