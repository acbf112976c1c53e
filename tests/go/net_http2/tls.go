//go:build !h2c

package main

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
)

const scheme = "https"

func transport() http.RoundTripper {
	return &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
}

func start(server *httptest.Server) {
	server.EnableHTTP2 = true
	server.StartTLS()
}
