package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"syscall"
	"time"
)

// answer doesn't return.
func answer() {
	listener, err := listen()
	if err != nil {
		fail(err)
	}
	var handler http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(*delay)
		io.WriteString(w, r.URL.Path)
	})
	if *forwardTo != "" {
		handler = forward()
	}
	server := &http.Server{Handler: handler}
	fmt.Printf("listening %s\n", listener.Addr())
	fmt.Println("ready")
	if !*secure {
		fail(server.Serve(wrappedListener{listener}))
	}
	if !*http2 {
		server.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
	}
	server.TLSConfig = &tls.Config{Certificates: certificates()}
	fail(server.ServeTLS(wrappedListener{listener}, "", ""))
}

// certificates are those that httptest has for its own servers.
func certificates() []tls.Certificate {
	server := httptest.NewUnstartedServer(nil)
	server.StartTLS()
	defer server.Close()
	return server.TLS.Certificates
}

func forward() http.Handler {
	target, err := url.Parse(*forwardTo)
	if err != nil {
		fail(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.Transport = newTransport()
	return proxy
}

func listen() (net.Listener, error) {
	if *unixPath != "" {
		return net.Listen("unix", *unixPath)
	}
	return net.Listen(*network, *listenAddress)
}

type wrappedListener struct{ net.Listener }

func (l wrappedListener) Accept() (net.Conn, error) {
	connection, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return wrapped(connection), nil
}

type wrappedFirst struct {
	net.Conn
	opened time.Time
}

type wrappedLast struct {
	opened time.Time
	net.Conn
}

func wrapped(connection net.Conn) net.Conn {
	switch *wrap {
	case "first":
		return &wrappedFirst{connection, time.Now()}
	case "last":
		return &wrappedLast{time.Now(), connection}
	}
	return connection
}

// control lets a port be shared with other sockets that want so.
func control(_, _ string, raw syscall.RawConn) error {
	if *localAddress == "" {
		return nil
	}
	var refused error
	err := raw.Control(func(descriptor uintptr) {
		refused = syscall.SetsockoptInt(int(descriptor), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	})
	if err != nil {
		return err
	}
	return refused
}
