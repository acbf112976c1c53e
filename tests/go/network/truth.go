package main

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
)

// Truth is what the service knows of one destination.
type Truth struct {
	Name     string           // that was asked for
	Function string           // of this program, that dials
	Opened   int64            // connections that came about
	Open     int64            // of these, now
	Failed   map[string]int64 // attempts that didn't, by errno's name or "timeout"
	Sent     int64            // bytes
	Received int64
}

type truths struct {
	sync.Mutex
	by map[string]*Truth
}

// all returns a copy.
func (t *truths) all() map[string]Truth {
	t.Lock()
	defer t.Unlock()
	found := map[string]Truth{}
	for destination, truth := range t.by {
		found[destination] = Truth{
			Name: truth.Name, Function: truth.Function, Failed: truth.Failed,
			Opened: atomic.LoadInt64(&truth.Opened), Open: atomic.LoadInt64(&truth.Open),
			Sent: atomic.LoadInt64(&truth.Sent), Received: atomic.LoadInt64(&truth.Received),
		}
	}
	return found
}

func (t *truths) of(destination, name, function string) *Truth {
	t.Lock()
	defer t.Unlock()
	if t.by == nil {
		t.by = map[string]*Truth{}
	}
	truth := t.by[destination]
	if truth == nil {
		truth = &Truth{Name: name, Function: function, Failed: map[string]int64{}}
		t.by[destination] = truth
	}
	return truth
}

func (t *truths) failed(truth *Truth, err error) {
	why := err.Error()
	var timeout interface{ Timeout() bool }
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno) && errno == syscall.ECONNREFUSED:
		why = "ECONNREFUSED"
	case errors.As(err, &errno) && errno == syscall.ENOENT:
		why = "ENOENT"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded),
		errors.As(err, &timeout) && timeout.Timeout():
		why = "timeout"
	}
	t.Lock()
	truth.Failed[why]++
	t.Unlock()
}

// kept takes a connection, or why there is none, into account. A UDP socket stays one, so that Go's resolver knows it.
func (t *truths) kept(truth *Truth, conn net.Conn, err error) (net.Conn, error) {
	if err != nil {
		t.failed(truth, err)
		return nil, err
	}
	atomic.AddInt64(&truth.Opened, 1)
	atomic.AddInt64(&truth.Open, 1)
	if socket, is := conn.(*net.UDPConn); is {
		return &datagrams{UDPConn: socket, truth: truth}, nil
	}
	return &stream{Conn: conn, truth: truth}, nil
}

type stream struct {
	net.Conn
	truth *Truth
	once  sync.Once
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	atomic.AddInt64(&s.truth.Received, int64(n))
	return n, err
}

func (s *stream) Write(p []byte) (int, error) {
	n, err := s.Conn.Write(p)
	atomic.AddInt64(&s.truth.Sent, int64(n))
	return n, err
}

func (s *stream) Close() error {
	s.once.Do(func() { atomic.AddInt64(&s.truth.Open, -1) })
	return s.Conn.Close()
}

type datagrams struct {
	*net.UDPConn
	truth *Truth
	once  sync.Once
}

func (d *datagrams) Read(p []byte) (int, error) {
	n, err := d.UDPConn.Read(p)
	atomic.AddInt64(&d.truth.Received, int64(n))
	return n, err
}

func (d *datagrams) Write(p []byte) (int, error) {
	n, err := d.UDPConn.Write(p)
	atomic.AddInt64(&d.truth.Sent, int64(n))
	return n, err
}

func (d *datagrams) Close() error {
	d.once.Do(func() { atomic.AddInt64(&d.truth.Open, -1) })
	return d.UDPConn.Close()
}
