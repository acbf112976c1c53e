package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// closings counts what came to each path of /close.
var closings sync.Map

// arrived is what came to /carried.
type arrived struct {
	URL          string   `json:"url"`
	Traceparents []string `json:"traceparents"`
	Bytes        int64    `json:"bytes"`
}

func (a arrived) print() {
	text, err := json.Marshal(a)
	if err != nil {
		fail(err)
	}
	fmt.Printf("%s\n", text)
}

func handlers() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if status, err := strconv.Atoi(r.URL.Query().Get("status")); err == nil {
			w.WriteHeader(status)
		}
		if r.Method != "HEAD" {
			w.Write([]byte("answer"))
		}
	})
	// /hop/2 redirects to /hop/1, that to /hop/0, which answers.
	mux.HandleFunc("/hop/", func(w http.ResponseWriter, r *http.Request) {
		left, _ := strconv.Atoi(r.URL.Path[len("/hop/"):])
		if left > 0 {
			http.Redirect(w, r, "/hop/"+strconv.Itoa(left-1)+"?next=1", http.StatusFound)
		}
	})
	// /close/ID/2 closes the connection without an answer twice.
	mux.HandleFunc("/close/", func(w http.ResponseWriter, r *http.Request) {
		counted, _ := closings.LoadOrStore(r.URL.Path, new(int))
		limit, _ := strconv.Atoi(r.URL.Path[len(r.URL.Path)-1:])
		if *counted.(*int)++; *counted.(*int) > limit {
			return
		}
		connection, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			connection.Close()
		}
	})
	mux.HandleFunc("/old", func(w http.ResponseWriter, r *http.Request) {
		connection, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			connection.Write([]byte("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"))
			connection.Close()
		}
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(300 * time.Millisecond)
	})
	mux.HandleFunc("/large", func(w http.ResponseWriter, r *http.Request) {
		w.Write(make([]byte, 1<<16))
	})
	// /carried answers nothing of interest, but says what headers it came with.
	mux.HandleFunc("/carried/", func(w http.ResponseWriter, r *http.Request) {
		read, _ := io.Copy(io.Discard, r.Body)
		arrived{"http://" + r.Host + r.RequestURI, r.Header["Traceparent"], read}.print()
	})
	mux.HandleFunc("/via", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/back?"+r.URL.RawQuery, http.StatusFound)
	})
	mux.HandleFunc("/front", front)
	return mux
}
