package main

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"log"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	inventoryName = "inventory.example.test"
	paymentsName  = "payments.example.test"
	missingName   = "missing.example.test"
	forbiddenName = "collector.example.org"
)

var addresses = map[string]net.IP{
	inventoryName: net.IPv4(127, 0, 0, 2),
	paymentsName:  net.IPv4(127, 0, 0, 3),
	forbiddenName: net.IPv4(127, 0, 0, 66),
}

// Peers are addresses of what the service talks to.
type Peers struct {
	HTTP, TLS, TCP, UDP, DNS, Silent, Refused, Forbidden, New, Unix string
}

func port(address string) string {
	_, port, err := net.SplitHostPort(address)
	check(err)
	return port
}

func echo(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		check(err)
		go func() {
			defer conn.Close()
			// As a reader alone: otherwise each connection would be spliced, by a pipe that takes two more descriptors.
			io.Copy(conn, struct{ io.Reader }{conn}) //nolint:errcheck // the client may be gone
		}()
	}
}

func listen(network, address string) net.Listener {
	listener, err := net.Listen(network, address)
	check(err)
	return listener
}

func echoed(network, address string) string {
	listener := listen(network, address)
	go echo(listener)
	return listener.Addr().String()
}

func packets(address string, answer func(question []byte) []byte) string {
	conn, err := net.ListenPacket("udp", address)
	check(err)
	go func() {
		buffer := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buffer)
			check(err)
			conn.WriteTo(answer(append([]byte(nil), buffer[:n]...)), from) //nolint:errcheck // the client may be gone
		}
	}()
	return conn.LocalAddr().String()
}

// silent listens without a queue, which it fills itself: the kernel drops what else would connect.
func silent(address net.IP) string {
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	check(err)
	check(syscall.Bind(socket, &syscall.SockaddrInet4{Addr: [4]byte(address.To4())}))
	check(syscall.Listen(socket, 0))
	name, err := syscall.Getsockname(socket)
	check(err)
	at := &net.TCPAddr{IP: address, Port: name.(*syscall.SockaddrInet4).Port}
	for {
		if _, err := net.DialTimeout("tcp", at.String(), 300*time.Millisecond); err != nil {
			return at.String()
		}
	}
}

// refused returns an address that nobody listens on: bound, so that nobody else takes it.
func refused(address net.IP) string {
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	check(err)
	check(syscall.Bind(socket, &syscall.SockaddrInet4{Addr: [4]byte(address.To4())}))
	name, err := syscall.Getsockname(socket)
	check(err)
	return (&net.TCPAddr{IP: address, Port: name.(*syscall.SockaddrInet4).Port}).String()
}

// resolve answers a question as RFC 1035 has it: header of 12 bytes, labels, type, class.
func resolve(message []byte) []byte {
	if len(message) < 17 {
		return nil
	}
	var labels []string
	at := 12
	for at < len(message) && message[at] != 0 {
		end := at + 1 + int(message[at])
		if end >= len(message) {
			return nil
		}
		labels = append(labels, string(message[at+1:end]))
		at = end
	}
	at += 5
	if at > len(message) {
		return nil
	}
	kind := binary.BigEndian.Uint16(message[at-4:])
	address, known := addresses[strings.ToLower(strings.Join(labels, "."))]
	answer := append(append([]byte{}, message[:2]...), 0x85, 0x80, 0, 1, 0, 0, 0, 0, 0, 0)
	answer = append(answer, message[12:at]...)
	switch {
	case !known:
		answer[3] |= 3 // NXDOMAIN
	case kind == 1:
		answer[7] = 1
		answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4)
		answer = append(answer, address.To4()...)
	}
	return answer
}

func openPeers(folder string) Peers {
	handler := http.HandlerFunc(func(response http.ResponseWriter, _ *http.Request) {
		io.WriteString(response, "an answer\n") //nolint:errcheck // the client may be gone
	})
	plain := listen("tcp", addresses[inventoryName].String()+":0")
	go func() { check(http.Serve(plain, handler)) }()
	secure := listen("tcp", addresses[paymentsName].String()+":0")
	server := &http.Server{
		Handler:      handler,
		ErrorLog:     log.New(io.Discard, "", 0),
		TLSConfig:    selfSigned(),
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}, // HTTP/1
	}
	go func() { check(server.ServeTLS(secure, "", "")) }()
	return Peers{
		HTTP:      plain.Addr().String(),
		TLS:       secure.Addr().String(),
		TCP:       echoed("tcp", "127.0.0.4:0"),
		UDP:       packets("127.0.0.5:0", func(message []byte) []byte { return message }),
		DNS:       packets("127.0.0.6:0", resolve),
		Silent:    silent(net.IPv4(127, 0, 0, 7)),
		Refused:   refused(net.IPv4(127, 0, 0, 8)),
		Forbidden: echoed("tcp", addresses[forbiddenName].String()+":0"),
		New:       echoed("tcp", "127.0.0.9:0"),
		Unix:      echoed("unix", filepath.Join(folder, "echo.sock")),
	}
}
