// Command network_edges has descriptors of connections by all ways but a plain dial, and keeps count of what they do.
//
// "network_edges peers HOST DIR" echoes over TCP, UDP and Unix sockets, resets what it accepts on another port, prints
// "ready JSON" and waits. "network_edges run JSON" takes that JSON, prints "ready" and does what each line of its input
// says, answering "done" or "failed …":
//
//	NAME ARG…     a step of steps.go
//	truth         prints destination -> Truth as JSON
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
)

// Peers are addresses of what it talks to.
type Peers struct {
	TCP, Resets, UDP, UDP2, Unix, Abstract, Unixgram string
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "network_edges:", err)
		os.Exit(1)
	}
}

func echo(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		check(err)
		go func() {
			defer conn.Close()
			buffer := make([]byte, 4096)
			for {
				n, err := conn.Read(buffer)
				if err != nil {
					return
				}
				conn.Write(buffer[:n])
			}
		}()
	}
}

// reset lets each connection send something and resets it.
func reset(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		check(err)
		go func() {
			conn.Read(make([]byte, 16))
			conn.(*net.TCPConn).SetLinger(0)
			conn.Close()
		}()
	}
}

func echoPackets(conn net.PacketConn) {
	buffer := make([]byte, 4096)
	for {
		n, from, err := conn.ReadFrom(buffer)
		check(err)
		if from != nil && from.String() != "" {
			conn.WriteTo(buffer[:n], from)
		}
	}
}

func openPeers(host, folder string) Peers {
	stream := func(network, address string, serve func(net.Listener)) string {
		listener, err := net.Listen(network, address)
		check(err)
		go serve(listener)
		return listener.Addr().String()
	}
	packets := func(network, address string) string {
		conn, err := net.ListenPacket(network, address)
		check(err)
		go echoPackets(conn)
		return conn.LocalAddr().String()
	}
	any := net.JoinHostPort(host, "0")
	return Peers{
		TCP:      stream("tcp", any, echo),
		Resets:   stream("tcp", any, reset),
		UDP:      packets("udp", any),
		UDP2:     packets("udp", any),
		Unix:     stream("unix", folder+"/echo.sock", echo),
		Abstract: stream("unix", "@network-edges-"+fmt.Sprint(os.Getpid()), echo),
		Unixgram: packets("unixgram", folder+"/log.sock"),
	}
}

func run(peers Peers) {
	edges := &edges{peers: peers, truth: map[string]*Truth{}}
	steps := edges.steps()
	fmt.Println("ready", os.Getpid())
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if words[0] == "truth" {
			text, err := json.Marshal(edges.truth)
			check(err)
			fmt.Println("truth", string(text))
			continue
		}
		if err := steps[words[0]](words[1:]); err != nil {
			fmt.Println("failed", err)
		} else {
			fmt.Println("done")
		}
	}
}

func main() {
	switch os.Args[1] {
	case "peers":
		text, err := json.Marshal(openPeers(os.Args[2], os.Args[3]))
		check(err)
		fmt.Println("ready", string(text))
		select {}
	case "run":
		var peers Peers
		check(json.Unmarshal([]byte(os.Args[2]), &peers))
		run(peers)
	case "child":
		// It has been given a connection, on which it says something that isn't the parent's.
		conn, err := net.FileConn(os.NewFile(3, "connection"))
		check(err)
		_, err = conn.Write([]byte("from a child"))
		check(err)
	}
}
