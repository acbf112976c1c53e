package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// Truth is what the program knows of one destination.
type Truth struct {
	Opened, Open, Sent, Received int
}

type edges struct {
	peers  Peers
	truth  map[string]*Truth
	held   []io.Closer
	heldOf []*Truth
}

const sysCloseRange = 436

func (e *edges) of(network, address string) *Truth {
	key := network + " " + address
	if e.truth[key] == nil {
		e.truth[key] = &Truth{}
	}
	return e.truth[key]
}

func (e *edges) dial(network, address string) (net.Conn, *Truth, error) {
	conn, err := net.Dial(network, address)
	if err != nil {
		return nil, nil, err
	}
	name := network
	if network == "unixgram" {
		name = "unix"
	}
	truth := e.of(name, address)
	truth.Opened++
	truth.Open++
	return conn, truth, nil
}

// exchange sends n bytes and has them back.
func exchange(conn io.ReadWriter, truth *Truth, n int) error {
	if _, err := conn.Write(make([]byte, n)); err != nil {
		return err
	}
	truth.Sent += n
	if _, err := io.ReadFull(conn, make([]byte, n)); err != nil {
		return err
	}
	truth.Received += n
	return nil
}

func closed(closer io.Closer, truth *Truth) error {
	truth.Open--
	return closer.Close()
}

// once is a connection with 7 bytes each way.
func (e *edges) once(network, address string) error {
	conn, truth, err := e.dial(network, address)
	if err != nil {
		return err
	}
	if err := exchange(conn, truth, 7); err != nil {
		return err
	}
	return closed(conn, truth)
}

func (e *edges) steps() map[string]func([]string) error {
	return map[string]func([]string) error{
		"once":    func(args []string) error { return e.once(args[0], args[1]) },
		"udp":     func([]string) error { return e.once("udp", e.peers.UDP) },
		"unix":    e.unix,
		"dup":     e.dup,
		"dup3":    e.dup3,
		"rights":  e.rights,
		"given":   e.given,
		"fails":   e.fails,
		"mapped":  e.mapped,
		"accept":  e.accept,
		"range":   e.closeRange,
		"child":   e.child,
		"reuse":   e.reuse,
		"sendto":  e.sendTo,
		"served":  e.served,
		"lookup":  e.lookUp,
		"hold":    e.hold,
		"release": e.release,
		"reset":   e.reset,
		"send":    e.send,
	}
}

// fails dials what refuses.
func (e *edges) fails(args []string) error {
	if _, err := net.Dial("tcp", args[0]); !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("not refused: %v", err)
	}
	return nil
}

// mapped connects an IPv6 socket to an IPv4 address.
func (e *edges) mapped(args []string) error {
	to, err := net.ResolveTCPAddr("tcp4", args[0])
	if err != nil {
		return err
	}
	socket, err := syscall.Socket(syscall.AF_INET6, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	address := syscall.SockaddrInet6{Port: to.Port}
	copy(address.Addr[:], to.IP.To16())
	if err := syscall.Connect(socket, &address); err != nil {
		return err
	}
	file := os.NewFile(uintptr(socket), "mapped")
	truth := e.of("tcp", args[0])
	truth.Opened++
	truth.Open++
	if err := exchange(file, truth, 37); err != nil {
		return err
	}
	return closed(file, truth)
}

// accept echoes what a connection says, to a port that takes both IPv4 and IPv6.
func (e *edges) accept([]string) error {
	listener, err := net.Listen("tcp", ":0")
	if err != nil {
		return err
	}
	defer listener.Close()
	fmt.Println("listening", listener.Addr().(*net.TCPAddr).Port)
	conn, err := listener.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	buffer := make([]byte, 100)
	n, err := conn.Read(buffer)
	if err != nil {
		return err
	}
	_, err = conn.Write(buffer[:n])
	return err
}

// unix talks over a path, an abstract name, a socket of datagrams and a pair.
func (e *edges) unix([]string) error {
	for _, address := range []string{e.peers.Unix, e.peers.Abstract} {
		if err := e.once("unix", address); err != nil {
			return err
		}
	}
	conn, truth, err := e.dial("unixgram", e.peers.Unixgram)
	if err != nil {
		return err
	}
	if _, err := conn.Write(make([]byte, 11)); err != nil {
		return err
	}
	truth.Sent += 11
	if err := closed(conn, truth); err != nil {
		return err
	}
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(pair[0])
	defer syscall.Close(pair[1])
	_, err = syscall.Write(pair[0], []byte("to myself"))
	return err
}

// duplicate returns another descriptor of a connection with n bytes each way, whose first one is closed.
func (e *edges) duplicate(n int) (*os.File, *Truth, error) {
	conn, truth, err := e.dial("tcp", e.peers.TCP)
	if err != nil {
		return nil, nil, err
	}
	if err := exchange(conn, truth, n); err != nil {
		return nil, nil, err
	}
	file, err := conn.(*net.TCPConn).File()
	if err != nil {
		return nil, nil, err
	}
	return file, truth, conn.Close()
}

// dup goes on with a duplicate once the first descriptor is closed, and leaves it open.
func (e *edges) dup([]string) error {
	file, truth, err := e.duplicate(3)
	if err != nil {
		return err
	}
	e.held, e.heldOf = append(e.held, file), append(e.heldOf, truth)
	return exchange(file, truth, 5)
}

// dup3 puts one connection in another's place.
func (e *edges) dup3([]string) error {
	var files [2]*os.File
	for i := range files {
		var err error
		if files[i], _, err = e.duplicate(13); err != nil {
			return err
		}
	}
	truth := e.of("tcp", e.peers.TCP)
	if err := syscall.Dup3(int(files[0].Fd()), int(files[1].Fd()), syscall.O_CLOEXEC); err != nil {
		return err
	}
	truth.Open-- // the second
	files[0].Close()
	if err := exchange(files[1], truth, 17); err != nil {
		return err
	}
	return closed(files[1], truth)
}

// handedOver returns the descriptor that came with a message.
func handedOver(control []byte) (int, error) {
	messages, err := syscall.ParseSocketControlMessage(control)
	if err != nil {
		return 0, err
	}
	descriptors, err := syscall.ParseUnixRights(&messages[0])
	if err != nil {
		return 0, err
	}
	return descriptors[0], nil
}

// rights hands a connection to itself, over a pair of sockets.
func (e *edges) rights([]string) error {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(pair[0])
	defer syscall.Close(pair[1])
	conn, truth, err := e.dial("tcp", e.peers.TCP)
	if err != nil {
		return err
	}
	file, err := conn.(*net.TCPConn).File()
	if err != nil {
		return err
	}
	if err := syscall.Sendmsg(pair[0], []byte{1}, syscall.UnixRights(int(file.Fd())), nil, 0); err != nil {
		return err
	}
	control := make([]byte, 64)
	_, n, _, _, err := syscall.Recvmsg(pair[1], make([]byte, 1), control, 0)
	if err != nil {
		return err
	}
	descriptor, err := handedOver(control[:n])
	if err != nil {
		return err
	}
	file.Close()
	conn.Close()
	syscall.SetNonblock(descriptor, false)
	received := os.NewFile(uintptr(descriptor), "received")
	if err := exchange(received, truth, 19); err != nil {
		return err
	}
	return closed(received, truth)
}

// given takes a connection that another process hands over by a Unix socket, and echoes what comes, once.
func (e *edges) given(args []string) error {
	conn, err := net.Dial("unix", args[0])
	if err != nil {
		return err
	}
	defer conn.Close()
	control := make([]byte, 64)
	_, n, _, _, err := conn.(*net.UnixConn).ReadMsgUnix(make([]byte, 1), control)
	if err != nil {
		return err
	}
	descriptor, err := handedOver(control[:n])
	if err != nil {
		return err
	}
	received := os.NewFile(uintptr(descriptor), "received")
	defer received.Close()
	buffer := make([]byte, 100)
	if n, err = received.Read(buffer); err != nil {
		return err
	}
	_, err = received.Write(buffer[:n])
	return err
}

// closeRange closes some connections at once.
func (e *edges) closeRange([]string) error {
	var descriptors []int
	truth := e.of("tcp", e.peers.TCP)
	for i := 0; i < 3; i++ {
		conn, _, err := e.dial("tcp", e.peers.TCP)
		if err != nil {
			return err
		}
		if err := exchange(conn, truth, 23); err != nil {
			return err
		}
		file, err := conn.(*net.TCPConn).File()
		if err != nil {
			return err
		}
		// Beyond what else is open.
		to := 900 + i
		if err := syscall.Dup3(int(file.Fd()), to, syscall.O_CLOEXEC); err != nil {
			return err
		}
		file.Close()
		conn.Close()
		descriptors = append(descriptors, to)
	}
	if _, _, errno := syscall.Syscall(sysCloseRange, uintptr(descriptors[0]), uintptr(descriptors[2]), 0); errno != 0 {
		return errno
	}
	truth.Open -= 3
	return nil
}

// child lets a child have a connection, too.
func (e *edges) child([]string) error {
	conn, truth, err := e.dial("tcp", e.peers.TCP)
	if err != nil {
		return err
	}
	file, err := conn.(*net.TCPConn).File()
	if err != nil {
		return err
	}
	command := exec.Command("/proc/self/exe", "child")
	command.ExtraFiles = []*os.File{file}
	if err := command.Run(); err != nil {
		return err
	}
	file.Close()
	if _, err := io.ReadFull(conn, make([]byte, len("from a child"))); err != nil {
		return err
	}
	truth.Received += len("from a child")
	return closed(conn, truth)
}

// reuse has the descriptor of a connection for a file afterwards.
func (e *edges) reuse([]string) error {
	for i := 0; i < 5; i++ {
		if err := e.once("tcp", e.peers.TCP); err != nil {
			return err
		}
		file, err := os.Open("/dev/zero")
		if err != nil {
			return err
		}
		io.ReadFull(file, make([]byte, 1000))
		file.Close()
	}
	return nil
}

// sendTo talks to two others by one socket that isn't connected.
func (e *edges) sendTo([]string) error {
	socket, err := net.ListenPacket("udp", net.JoinHostPort(host(e.peers.UDP), "0"))
	if err != nil {
		return err
	}
	for round := 0; round < 3; round++ {
		for _, address := range []string{e.peers.UDP, e.peers.UDP2} {
			to, err := net.ResolveUDPAddr("udp", address)
			if err != nil {
				return err
			}
			truth := e.of("udp", address)
			if round == 0 {
				truth.Opened++
			}
			if _, err := socket.WriteTo(make([]byte, 29), to); err != nil {
				return err
			}
			truth.Sent += 29
			n, _, err := socket.ReadFrom(make([]byte, 100))
			if err != nil {
				return err
			}
			truth.Received += n
		}
	}
	return socket.Close()
}

// served answers a datagram that comes from elsewhere.
func (e *edges) served([]string) error {
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("listening", socket.LocalAddr().(*net.UDPAddr).Port)
	buffer := make([]byte, 100)
	n, from, err := socket.ReadFrom(buffer)
	if err != nil {
		return err
	}
	if _, err := socket.WriteTo(buffer[:n], from); err != nil {
		return err
	}
	return socket.Close()
}

func (e *edges) lookUp(args []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := net.DefaultResolver.LookupIPAddr(ctx, args[0])
	var missing *net.DNSError
	if errors.As(err, &missing) && missing.IsNotFound {
		return nil
	}
	return err
}

// hold opens so many connections, to the hosts in turn if any are named, and leaves them open.
func (e *edges) hold(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(e.peers.TCP)
	if err != nil {
		return err
	}
	hosts := args[1:]
	for i := 0; i < n; i++ {
		address := e.peers.TCP
		if len(hosts) > 0 {
			address = net.JoinHostPort(hosts[i%len(hosts)], port)
		}
		conn, truth, err := e.dial("tcp", address)
		if err != nil {
			return err
		}
		e.held, e.heldOf = append(e.held, conn), append(e.heldOf, truth)
	}
	return nil
}

func (e *edges) release([]string) error {
	for i, closer := range e.held {
		if err := closed(closer, e.heldOf[i]); err != nil {
			return err
		}
	}
	e.held, e.heldOf = nil, nil
	return nil
}

// reset has its connections reset by the other side.
func (e *edges) reset(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	for i := 0; i < n; i++ {
		conn, truth, err := e.dial("tcp", e.peers.Resets)
		if err != nil {
			return err
		}
		if _, err := conn.Write(make([]byte, 4)); err != nil {
			return err
		}
		truth.Sent += 4
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			return fmt.Errorf("no reset: %v", err)
		}
		if err := closed(conn, truth); err != nil {
			return err
		}
	}
	return nil
}

// send exchanges small messages over one connection for so many milliseconds.
func (e *edges) send(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	conn, truth, err := e.dial("tcp", e.peers.TCP)
	if err != nil {
		return err
	}
	for end := time.Now().Add(time.Duration(n) * time.Millisecond); time.Now().Before(end); {
		if err := exchange(conn, truth, 31); err != nil {
			return err
		}
	}
	return closed(conn, truth)
}

func host(address string) string {
	host, _, err := net.SplitHostPort(address)
	check(err)
	return host
}
