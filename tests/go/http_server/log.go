package main

import (
	"bufio"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"sync"
)

// line is what the program itself knows of one request.
type line struct {
	ID     string `json:"id"`
	Method string `json:"method"`
	Path   string `json:"path"`
	Proto  string `json:"proto"`
	Status int    `json:"status"` // 0: nothing was written
	Remote string `json:"remote"`
	Host   string `json:"host"`
	Panic  string `json:"panic"` // Go type of the value that it is about to panic with
	Start  int64  `json:"start"` // CLOCK_MONOTONIC, ns
	End    int64  `json:"end"`
}

// lineLog writes lines from a goroutine of its own: the requests don't wait for it.
type lineLog struct {
	lines   chan line
	pending sync.WaitGroup
}

var logLines = newLineLog()

func newLineLog() *lineLog {
	l := &lineLog{lines: make(chan line, 1<<16)}
	go l.write()
	return l
}

func (l *lineLog) add(entry line) {
	l.pending.Add(1)
	l.lines <- entry
}

func (l *lineLog) write() {
	out := bufio.NewWriter(os.Stdout)
	encoder := json.NewEncoder(out)
	for entry := range l.lines {
		encoder.Encode(entry)
		if len(l.lines) == 0 {
			out.Flush()
		}
		l.pending.Done()
	}
}

func (l *lineLog) flush() { l.pending.Wait() }

// recorder remembers the status that a handler wrote.
type recorder struct {
	http.ResponseWriter
	entry *line
}

func (r *recorder) WriteHeader(status int) {
	if r.entry.Status == 0 && status >= 200 {
		r.entry.Status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(data []byte) (int, error) {
	if r.entry.Status == 0 {
		r.entry.Status = http.StatusOK
	}
	return r.ResponseWriter.Write(data)
}

func (r *recorder) Flush() {
	if r.entry.Status == 0 {
		r.entry.Status = http.StatusOK
	}
	r.ResponseWriter.(http.Flusher).Flush()
}

func (r *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	r.entry.Status = http.StatusSwitchingProtocols
	return r.ResponseWriter.(http.Hijacker).Hijack()
}

func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// logged passes the very same *http.Request on, so that it changes nothing about where a pattern is found.
func logged(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		entry := &line{
			ID: r.Header.Get("X-Request-Id"), Method: r.Method, Path: r.URL.Path, Proto: r.Proto, Remote: r.RemoteAddr,
			Host: r.Host,
		}
		returned := false
		defer func() {
			entry.End = monotonic()
			entry.Panic = r.Header.Get(panicHeader)
			if returned && entry.Status == 0 {
				entry.Status = http.StatusOK // what net/http answers for a handler that never writes
			}
			logLines.add(*entry)
		}()
		entry.Start = monotonic()
		next.ServeHTTP(&recorder{w, entry}, r)
		returned = true
	})
}
