package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// panicHeader carries the type of the value from a handler to the log, in the headers that copies of a request share.
const panicHeader = "X-Panic-Type"

// pages are the kinds of requests under test, by path. Every arrangement serves them all.
var pages = map[string]http.HandlerFunc{
	"/ok":           func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok\n") },
	"/empty":        func(http.ResponseWriter, *http.Request) {},
	"/gone":         answer(http.StatusNotFound),
	"/fail":         answer(http.StatusInternalServerError),
	"/unavailable":  answer(http.StatusServiceUnavailable),
	"/not-modified": answer(http.StatusNotModified),
	"/no-content":   answer(http.StatusNoContent),
	"/teapot":       answer(http.StatusTeapot),
	"/get-only":     getOnly,
	"/echo":         echo,
	"/large":        large,
	"/hints":        hints,
	"/upgrade":      upgrade,
	"/chunks":       chunks,
	"/redirect":     func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ok", http.StatusFound) },
	"/slow":         slow,
	"/deep":         deep,
	"/block":        func(w http.ResponseWriter, r *http.Request) { gate.wait(); io.WriteString(w, "released\n") },
	"/blocked":      func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, gate.waiting.Load()) },
	"/release":      func(w http.ResponseWriter, r *http.Request) { gate.open(); io.WriteString(w, "released\n") },
	"/panic":        panics,
	"/recovered":    recovered,
	"/goexit":       func(w http.ResponseWriter, r *http.Request) { runtime.Goexit() },
	"/reexec":       func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "soon\n"); wantRestart() },
	"/tree/":        func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%q\n", r.URL.Path) },
}

func answer(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(status) }
}

func getOnly(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		http.Error(w, "GET only", http.StatusMethodNotAllowed)
		return
	}
	io.WriteString(w, "ok\n")
}

func echo(w http.ResponseWriter, r *http.Request) {
	length, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	fmt.Fprintln(w, length)
}

func large(w http.ResponseWriter, r *http.Request) {
	line := strings.Repeat("x", 1023) + "\n"
	for i := 0; i < 1024; i++ {
		io.WriteString(w, line)
	}
}

func hints(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Link", "</style.css>; rel=preload")
	w.WriteHeader(http.StatusEarlyHints)
	io.WriteString(w, "ok\n")
}

// upgrade takes the connection over, echoes one line on it and closes it, as a websocket's handler would.
func upgrade(w http.ResponseWriter, r *http.Request) {
	connection, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer connection.Close()
	io.WriteString(connection, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	if text, err := bufio.NewReader(buffered).ReadString('\n'); err == nil {
		io.WriteString(connection, text)
	}
}

func chunks(w http.ResponseWriter, r *http.Request) {
	for i := 0; i < 5; i++ {
		fmt.Fprintf(w, "chunk %d\n", i)
		w.(http.Flusher).Flush()
	}
}

func slow(w http.ResponseWriter, r *http.Request) {
	milliseconds, _ := strconv.Atoi(r.URL.Query().Get("ms"))
	time.Sleep(time.Duration(milliseconds) * time.Millisecond)
	io.WriteString(w, "ok\n")
}

// deep makes the goroutine's stack move between the request's start and its end.
func deep(w http.ResponseWriter, r *http.Request) {
	depth, _ := strconv.Atoi(r.URL.Query().Get("n"))
	fmt.Fprintln(w, descend(depth))
}

//go:noinline
func descend(depth int) byte {
	var frame [1024]byte
	frame[depth%len(frame)] = byte(depth)
	if depth > 0 {
		frame[0] += descend(depth - 1)
	}
	return frame[0]
}

// gate holds requests until somebody opens it, then holds the next ones.
var gate = &barrier{closed: make(chan struct{})}

type barrier struct {
	mutex   sync.Mutex
	closed  chan struct{}
	waiting atomic.Int64
}

func (b *barrier) wait() {
	b.mutex.Lock()
	closed := b.closed
	b.mutex.Unlock()
	b.waiting.Add(1)
	<-closed
	b.waiting.Add(-1)
}

func (b *barrier) open() {
	b.mutex.Lock()
	close(b.closed)
	b.closed = make(chan struct{})
	b.mutex.Unlock()
}

type customError struct{ code int }

func (e *customError) Error() string { return fmt.Sprint("custom error ", e.code) }

type customValue struct{ code int }

// panicValues are made by expressions that really panic where Go's runtime makes the value.
var panicValues = map[string]func(){
	"error":   func() { panic(errors.New("broken")) },
	"string":  func() { panic("broken") },
	"int":     func() { panic(7) },
	"custom":  func() { panic(&customError{7}) },
	"value":   func() { panic(customValue{7}) },
	"wrapped": func() { panic(fmt.Errorf("wrapped: %w", io.ErrUnexpectedEOF)) },
	"abort":   func() { panic(http.ErrAbortHandler) },
	"bounds":  func() { var empty []int; empty[*times]++ },
	"nilmap":  func() { var absent map[string]int; absent["x"] = 1 },
	"nilptr":  func() { var absent *customError; absent.code++ },
	"convert": func() { var any interface{} = 7; _ = any.(string) },
}

// panicTypes says what Go itself calls the type of each value; made before the first request.
var panicTypes = func() map[string]string {
	types := map[string]string{}
	for kind, raise := range panicValues {
		func() {
			defer func() { types[kind] = fmt.Sprintf("%T", recover()) }()
			raise()
		}()
	}
	return types
}()

// panics: kind= is the value, after=1 writes the header first, status= with which code.
func panics(w http.ResponseWriter, r *http.Request) {
	kind := r.URL.Query().Get("kind")
	r.Header.Set(panicHeader, panicTypes[kind])
	if status, err := strconv.Atoi(r.URL.Query().Get("status")); err == nil {
		w.WriteHeader(status)
	}
	panicValues[kind]()
}

// recovered panics, recovers by itself, and answers with status=, 200 if there is none.
func recovered(w http.ResponseWriter, r *http.Request) {
	status, err := strconv.Atoi(r.URL.Query().Get("status"))
	if err != nil {
		status = http.StatusOK
	}
	defer func() {
		recover()
		w.WriteHeader(status)
	}()
	panicValues["custom"]()
}
