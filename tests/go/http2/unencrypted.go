//go:build !go1.24

package main

import (
	"errors"
	"net/http"
)

func unencryptedServer(*http.Server) { fail(errors.New("net/http has no h2c before Go 1.24")) }

func unencryptedTransport() http.RoundTripper { return nil }
