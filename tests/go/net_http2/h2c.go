//go:build h2c

package main

import (
	"net/http"
	"net/http/httptest"
)

const scheme = "http"

func unencrypted() *http.Protocols {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return protocols
}

func transport() http.RoundTripper { return &http.Transport{Protocols: unencrypted()} }

func start(server *httptest.Server) {
	server.Config.Protocols = unencrypted()
	server.Start()
}
