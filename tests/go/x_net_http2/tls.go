package main

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"

	"golang.org/x/net/http2"
)

const scheme = "https"

func transport() http.RoundTripper {
	return &http2.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
}

func start(server *httptest.Server) {
	if err := http2.ConfigureServer(server.Config, nil); err != nil {
		panic(err)
	}
	server.TLS = server.Config.TLSConfig
	server.StartTLS()
}
