package main

import (
	"bufio"
	"encoding/json"
	"net/http"
	"os"
	"sync"
)

// line is what a service knows of a request that it served, or of one that it sent.
type line struct {
	Event       string   `json:"event"`            // served or called
	ID          string   `json:"id"`               // of the request that all of it is about
	Others      []string `json:"others,omitempty"` // called: further requests that it is for
	Path        string   `json:"path"`
	Traceparent []string `json:"traceparent,omitempty"` // served: every such header that came
	Worker      int      `json:"worker,omitempty"`      // called: number of the pool's goroutine that sent it, from 1
	Error       string   `json:"error,omitempty"`       // called: why there was no answer
}

// lineLog keeps lines in memory and writes them when there are many, or at the end.
type lineLog struct {
	mu      sync.Mutex
	file    *os.File
	out     *bufio.Writer
	encoder *json.Encoder
}

func newLineLog(path string) (*lineLog, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	out := bufio.NewWriterSize(file, 1<<20)
	return &lineLog{file: file, out: out, encoder: json.NewEncoder(out)}, nil
}

func (l *lineLog) add(entry line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.encoder.Encode(entry)
}

func (l *lineLog) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.out.Flush(); err != nil {
		return err
	}
	return l.file.Close()
}

// served logs each request as it comes, and passes the very same *http.Request on.
func (l *lineLog) served(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.add(line{
			Event: "served", ID: r.Header.Get(idHeader), Path: r.URL.Path, Traceparent: r.Header.Values("Traceparent"),
		})
		next.ServeHTTP(w, r)
	})
}
