package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"hash/crc32"
	"io"
	"log"
	"math/rand"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// sent is what the client says of a request.
type sent struct {
	ID     string `json:"id"`
	Kind   string `json:"kind"`
	Bytes  int    `json:"bytes"`
	CRC    uint32 `json:"crc"`
	Status int    `json:"status"`
	Error  string `json:"error"`
	Own    string `json:"own"`
	Size   int    `json:"size"`
}

type client struct {
	to   string
	http *http.Client
	next atomic.Int64
}

func newClient(to, proxy string) *client {
	transport := &http.Transport{
		MaxIdleConnsPerHost:   64,
		ExpectContinueTimeout: 10 * time.Second,
		TLSClientConfig:       &tls.Config{InsecureSkipVerify: true},
		DialContext:           (&net.Dialer{}).DialContext,
	}
	if proxy != "" {
		through, err := url.Parse(proxy)
		if err != nil {
			log.Fatal(err)
		}
		transport.Proxy = http.ProxyURL(through)
	}
	return &client{to: to, http: &http.Client{Transport: transport, Timeout: 60 * time.Second}}
}

// pretending is a body, each piece of which looks like a request, whatever way it is cut.
func pretending(size int) []byte {
	const piece = "GET /in-a-body HTTP/1.1\r\nHost: body\r\n\r\n"
	return []byte(strings.Repeat(piece, size/len(piece)+1)[:size])
}

// reading hides what a body is, so that net/http sends it in chunks, and gives it in pieces of its own choice.
type reading struct{ rest []byte }

func (r *reading) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:1+rand.Intn(len(p))], r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (c *client) run(kind string, count, size, concurrency int) {
	var group sync.WaitGroup
	var taken atomic.Int64
	for i := 0; i < concurrency; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for taken.Add(1) <= int64(count) {
				if kind == "pipelined" {
					c.pipeline(size)
				} else {
					say(c.one(kind, size))
				}
			}
		}()
	}
	group.Wait()
}

// one makes a request. A size below 0 stands for a random one up to its opposite.
func (c *client) one(kind string, size int) sent {
	id := fmt.Sprint(c.next.Add(1))
	if size < 0 {
		size = rand.Intn(-size)
	}
	if kind == "mixed" {
		kind = []string{"get", "post", "chunked", "expect", "file", "own", "header"}[rand.Intn(7)]
	}
	result := sent{ID: id, Kind: kind, Size: size}
	target, method := c.to+"/"+kind+"/"+id, http.MethodPost
	body := pretending(size)
	var reader io.Reader = bytes.NewReader(body)
	switch kind {
	case "get", "own", "raw", "many", "header", "close":
		method, body, reader = http.MethodGet, nil, nil
	case "long":
		method, body, reader = http.MethodGet, nil, nil
		target += "?" + strings.Repeat("x", 5000)
	case "query":
		method, body, reader = http.MethodGet, nil, nil
		target += "?" + strings.Repeat("x", size)
	case "chunked":
		reader = &reading{body}
	case "file":
		file, err := os.CreateTemp("", "wire")
		if err != nil {
			log.Fatal(err)
		}
		defer file.Close()
		os.Remove(file.Name())
		if _, err := file.Write(body); err != nil {
			log.Fatal(err)
		}
		file.Seek(0, io.SeekStart)
		reader = file
	}
	request, err := http.NewRequestWithContext(context.Background(), method, target, reader)
	if err != nil {
		log.Fatal(err)
	}
	if kind == "file" {
		request.ContentLength = int64(size)
	}
	request.Header.Set("X-Id", id)
	switch kind {
	case "expect":
		request.Header.Set("Expect", "100-continue")
	case "own":
		result.Own = fmt.Sprintf("00-%032x-%016x-01", rand.Uint64()|1, rand.Uint64()|1)
		request.Header.Set("traceparent", result.Own)
	case "raw", "many":
		// As no Header method would spell it; beside many others in the second.
		result.Own = fmt.Sprintf("00-%032x-%016x-01", rand.Uint64()|1, rand.Uint64()|1)
		request.Header["traceParent"] = []string{result.Own}
		for i := 0; kind == "many" && i < 50; i++ {
			request.Header.Set(fmt.Sprintf("X-Any-%d", i), "value")
		}
	case "header":
		request.Header.Set("X-Long", strings.Repeat("h", 6000))
	case "close":
		request.Close = true
	}
	result.Bytes, result.CRC = len(body), crc32.ChecksumIEEE(body)
	answer, err := c.http.Do(request)
	if err != nil {
		result.Error = err.Error()
		return result
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		result.Error = err.Error()
	}
	result.Status = answer.StatusCode
	return result
}

// pipeline sends 7 requests at once on a connection that net/http knows nothing of, in writes of `size` bytes.
func (c *client) pipeline(size int) {
	to, _ := url.Parse(c.to)
	connection, err := net.Dial("tcp", to.Host)
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	var all bytes.Buffer
	results := make([]sent, 7)
	for i := range results {
		body := pretending(100 * i)
		id := fmt.Sprint(c.next.Add(1))
		results[i] = sent{ID: id, Kind: "pipelined", Bytes: len(body), CRC: crc32.ChecksumIEEE(body)}
		fmt.Fprintf(&all, "POST /pipelined/%s HTTP/1.1\r\nHost: far\r\nX-Id: %s\r\nContent-Length: %d\r\n\r\n%s", id, id, len(body), body)
	}
	for all.Len() > 0 {
		if _, err := connection.Write(all.Next(size)); err != nil {
			log.Fatal(err)
		}
	}
	answers := bufio.NewReader(connection)
	for _, result := range results {
		answer, err := http.ReadResponse(answers, nil)
		if err != nil {
			result.Error = err.Error()
		} else {
			io.Copy(io.Discard, answer.Body)
			result.Status = answer.StatusCode
		}
		say(result)
	}
}
