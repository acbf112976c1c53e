// Both ends of connections under test: nothing of OpenTelemetry in it, no dependencies.
//
//	join -listen 127.0.0.1:0     answers each request with its path; prints `listening NETWORK:ADDRESS` and `ready`
//	join -call http://HOST:PORT  prints `ready`; for each line `COUNT CONCURRENCY` on its standard input sends so many
//	                             requests, each for a random path of 16 bytes, and prints `done FAILED`
//
// A request fails if it isn't answered with its own path.
package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

var (
	listenAddress = flag.String("listen", "", "answer here")
	unixPath      = flag.String("unix", "", "path of a Unix socket to answer on or to call, instead of TCP")
	network       = flag.String("network", "tcp", "tcp, tcp4 or tcp6")
	secure        = flag.Bool("tls", false, "answer over TLS, with a certificate made now")
	http2         = flag.Bool("http2", false, "HTTP/2 where TLS is spoken")
	wrap          = flag.String("wrap", "", "hand net/http connections of a type of its own: first, where net.Conn is its first field, or last")
	delay         = flag.Duration("delay", 0, "before an answer")
	forwardTo     = flag.String("forward", "", "pass requests on to this URL, as httputil.ReverseProxy does")
	callURL       = flag.String("call", "", "send requests to this URL")
	idle          = flag.Int("idle", 100, "connections kept for later requests; 0: none, each request has its own")
	timeout       = flag.Duration("timeout", 10*time.Second, "of a request")
	localAddress  = flag.String("local", "", "HOST:PORT to call from, shared with other sockets")
	proxy         = flag.String("proxy", "", "URL of a proxy to call by")
	header        = flag.String("header", "", "NAME: VALUE of a header to send")
)

func main() {
	flag.Parse()
	if *callURL == "" {
		answer()
	}
	transport := newTransport()
	client := &http.Client{Transport: transport, Timeout: *timeout}
	fmt.Println("ready")
	for input := bufio.NewScanner(os.Stdin); input.Scan(); {
		var count, concurrency int
		if _, err := fmt.Sscan(input.Text(), &count, &concurrency); err != nil {
			fail(err)
		}
		fmt.Println("done", send(client, count, concurrency))
	}
}

func newTransport() *http.Transport {
	dialer := &net.Dialer{Control: control}
	if *localAddress != "" {
		address, err := net.ResolveTCPAddr("tcp", *localAddress)
		if err != nil {
			fail(err)
		}
		dialer.LocalAddr = address
	}
	transport := &http.Transport{
		MaxIdleConns:        *idle,
		MaxIdleConnsPerHost: *idle,
		DisableKeepAlives:   *idle == 0,
		TLSClientConfig:     &tls.Config{InsecureSkipVerify: true},
		ForceAttemptHTTP2:   *http2,
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			if *unixPath != "" {
				return dialer.DialContext(ctx, "unix", *unixPath)
			}
			connection, err := dialer.DialContext(ctx, *network, address)
			if err != nil {
				return nil, err
			}
			return wrapped(connection), nil
		},
	}
	if *proxy != "" {
		address, err := url.Parse(*proxy)
		if err != nil {
			fail(err)
		}
		transport.Proxy = http.ProxyURL(address)
	}
	return transport
}

// send returns how many of count requests failed.
func send(client *http.Client, count, concurrency int) int64 {
	var begun, failed atomic.Int64
	var group sync.WaitGroup
	for i := 0; i < concurrency; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for begun.Add(1) <= int64(count) {
				if err := one(client); err != nil {
					failed.Add(1)
					fmt.Fprintln(os.Stderr, err)
				}
			}
		}()
	}
	group.Wait()
	return failed.Load()
}

func one(client *http.Client) error {
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		return err
	}
	path := fmt.Sprintf("/%x", random)[:16]
	request, err := http.NewRequest("GET", *callURL+path, nil)
	if err != nil {
		return err
	}
	if name, value, ok := strings.Cut(*header, ": "); ok {
		request.Header.Set(name, value)
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if string(body) != path {
		return fmt.Errorf("%s was answered with %q", path, body)
	}
	return nil
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "join:", err)
	os.Exit(1)
}
