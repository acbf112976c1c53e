package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
)

// noHTTP2, non-nil and empty, is how net/http is told to offer HTTP/1.1 only.
var noHTTP2 = map[string]func(*http.Server, *tls.Conn, http.Handler){}

// getOverHTTP2 prints one status a line, and fails if the protocol wasn't HTTP/2.
func getOverHTTP2(url string, count int) int {
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true,
	}}
	for i := 0; i < count; i++ {
		response, err := client.Get(url)
		if err != nil {
			fail(err)
		}
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
		if response.ProtoMajor != 2 {
			fmt.Fprintln(os.Stderr, "not HTTP/2 but", response.Proto)
			return 1
		}
		fmt.Println(response.StatusCode)
	}
	return 0
}
