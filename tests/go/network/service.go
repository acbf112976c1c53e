package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	silentFor = 100 * time.Millisecond
	atOnce    = 64
)

type service struct {
	peers    Peers
	truth    truths
	dialer   net.Dialer
	plain    *http.Client
	secure   *http.Client
	requests atomic.Int64
	mutex    sync.Mutex
	held     []net.Conn
}

func newService(peers Peers) *service {
	s := &service{peers: peers}
	s.dialer.Resolver = &net.Resolver{PreferGo: true, Dial: s.dialResolver}
	s.plain = &http.Client{Transport: &http.Transport{DialContext: s.dialInventory}}
	s.secure = &http.Client{Transport: &http.Transport{
		DialContext:     s.dialPayments,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // the peer makes its own certificate
	}}
	return s
}

// work makes a connection of each kind.
func (s *service) work(ctx context.Context) error {
	steps := []func(context.Context) error{
		s.callInventory, s.callPayments, s.callEcho, s.sendMetric, s.callSocket,
		s.lookUpMissing, s.callRefused, s.callSilent,
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if s.requests.Add(1)%100 == 0 {
		return s.exfiltrate(ctx)
	}
	return nil
}

func (s *service) dialResolver(ctx context.Context, _, _ string) (net.Conn, error) {
	truth := s.truth.of("udp "+s.peers.DNS, "", "main.(*service).dialResolver")
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", s.peers.DNS)
	return s.truth.kept(truth, conn, err)
}

func (s *service) dialInventory(ctx context.Context, _, address string) (net.Conn, error) {
	truth := s.truth.of("tcp "+s.peers.HTTP, inventoryName, "main.(*service).dialInventory")
	conn, err := s.dialer.DialContext(ctx, "tcp", address)
	return s.truth.kept(truth, conn, err)
}

func (s *service) dialPayments(ctx context.Context, _, address string) (net.Conn, error) {
	truth := s.truth.of("tcp "+s.peers.TLS, paymentsName, "main.(*service).dialPayments")
	conn, err := s.dialer.DialContext(ctx, "tcp", address)
	return s.truth.kept(truth, conn, err)
}

func get(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

// callInventory is HTTP over a connection that is kept.
func (s *service) callInventory(ctx context.Context) error {
	return get(ctx, s.plain, "http://"+inventoryName+":"+port(s.peers.HTTP)+"/stock")
}

// callPayments is HTTP over TLS.
func (s *service) callPayments(ctx context.Context) error {
	return get(ctx, s.secure, "https://"+paymentsName+":"+port(s.peers.TLS)+"/pay")
}

func say(conn net.Conn, err error, text string) error {
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err = io.WriteString(conn, text); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, len(text)))
	return err
}

// callEcho is TCP, a connection each time.
//
//go:noinline
func (s *service) callEcho(ctx context.Context) error {
	truth := s.truth.of("tcp "+s.peers.TCP, "", "main.(*service).callEcho")
	conn, err := s.dialer.DialContext(ctx, "tcp", s.peers.TCP)
	conn, err = s.truth.kept(truth, conn, err)
	return say(conn, err, "hello over TCP")
}

//go:noinline
func (s *service) sendMetric(ctx context.Context) error {
	truth := s.truth.of("udp "+s.peers.UDP, "", "main.(*service).sendMetric")
	conn, err := s.dialer.DialContext(ctx, "udp", s.peers.UDP)
	conn, err = s.truth.kept(truth, conn, err)
	return say(conn, err, "hello over UDP")
}

//go:noinline
func (s *service) callSocket(ctx context.Context) error {
	truth := s.truth.of("unix "+s.peers.Unix, "", "main.(*service).callSocket")
	conn, err := s.dialer.DialContext(ctx, "unix", s.peers.Unix)
	conn, err = s.truth.kept(truth, conn, err)
	return say(conn, err, "hello over a Unix socket")
}

// lookUpMissing asks for a name that isn't there.
//
//go:noinline
func (s *service) lookUpMissing(ctx context.Context) error {
	_, err := s.dialer.DialContext(ctx, "tcp", missingName+":80")
	var missing *net.DNSError
	if !errors.As(err, &missing) || !missing.IsNotFound {
		return fmt.Errorf("a name that isn't there: %v", err)
	}
	return nil
}

//go:noinline
func (s *service) callRefused(ctx context.Context) error {
	truth := s.truth.of("tcp "+s.peers.Refused, "", "main.(*service).callRefused")
	conn, err := s.dialer.DialContext(ctx, "tcp", s.peers.Refused)
	if _, err = s.truth.kept(truth, conn, err); err == nil {
		return errors.New("a closed port took a connection")
	}
	return nil
}

//go:noinline
func (s *service) callSilent(ctx context.Context) error {
	truth := s.truth.of("tcp "+s.peers.Silent, "", "main.(*service).callSilent")
	ctx, cancel := context.WithTimeout(ctx, silentFor)
	defer cancel()
	conn, err := s.dialer.DialContext(ctx, "tcp", s.peers.Silent)
	if _, err = s.truth.kept(truth, conn, err); err == nil {
		return errors.New("a full queue took a connection")
	}
	return nil
}

// exfiltrate is the one that should not be.
//
//go:noinline
func (s *service) exfiltrate(ctx context.Context) error {
	truth := s.truth.of("tcp "+s.peers.Forbidden, forbiddenName, "main.(*service).exfiltrate")
	conn, err := s.dialer.DialContext(ctx, "tcp", forbiddenName+":"+port(s.peers.Forbidden))
	conn, err = s.truth.kept(truth, conn, err)
	return say(conn, err, "the customers' addresses")
}

//go:noinline
func (s *service) callNew(ctx context.Context) error {
	truth := s.truth.of("tcp "+s.peers.New, "", "main.(*service).callNew")
	conn, err := s.dialer.DialContext(ctx, "tcp", s.peers.New)
	conn, err = s.truth.kept(truth, conn, err)
	return say(conn, err, "hello, you are new")
}

// often calls do n times, with 0 to n-1.
func often(n int, do func(int)) {
	var group sync.WaitGroup
	left := atomic.Int64{}
	left.Store(int64(n))
	for i := 0; i < atOnce; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for number := left.Add(-1); number >= 0; number = left.Add(-1) {
				do(int(number))
			}
		}()
	}
	group.Wait()
}

func (s *service) callOften(ctx context.Context, n int) error {
	var failed atomic.Pointer[error]
	often(n, func(int) {
		if err := s.callEcho(ctx); err != nil {
			failed.Store(&err)
		}
	})
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

//go:noinline
func (s *service) knock(ctx context.Context, address string) {
	truth := s.truth.of("tcp "+address, "", "main.(*service).knock")
	conn, err := s.dialer.DialContext(ctx, "tcp", address)
	if conn, err = s.truth.kept(truth, conn, err); err == nil {
		conn.Close()
	}
}

func (s *service) scan(ctx context.Context, from, n int) {
	often(n, func(number int) {
		number += from
		s.knock(ctx, fmt.Sprintf("127.0.0.%d:%d", 10+number/10000, 10000+number%10000))
	})
}

func (s *service) hold(ctx context.Context, n int) error {
	truth := s.truth.of("tcp "+s.peers.TCP, "", "main.(*service).callEcho")
	for i := 0; i < n; i++ {
		conn, err := s.dialer.DialContext(ctx, "tcp", s.peers.TCP)
		conn, err = s.truth.kept(truth, conn, err)
		if err != nil {
			return err
		}
		s.mutex.Lock()
		s.held = append(s.held, conn)
		s.mutex.Unlock()
	}
	return nil
}

func (s *service) release() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, conn := range s.held {
		conn.Close()
	}
	s.held = nil
}
