package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand"
	"sort"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

// kinds are the calls that can be asked for, each with what has to become of it.
var kinds = map[string]func(){
	"unary":         func() { call(&order{}) },
	"missing":       func() { call(&order{Code: 5}) },
	"internal":      func() { call(&order{Code: 13}) },
	"unimplemented": func() { unary(background, connection(), "shop.v1.Cart/Nothing", &order{}) },
	"unknown":       func() { unary(background, connection(), "shop.v1.Nobody/Get", &order{}) },
	"deadline": func() {
		within(50*time.Millisecond, func(ctx context.Context) { callWith(ctx, &order{SleepMS: 5000}) })
	},
	"cancel":      cancelled,
	"traceparent": withTraceparent,
	"metadata":    func() { callWith(withMetadata(), &order{}) },
	"metachat":    func() { stream(withMetadata(), "Chat", &order{}, 3) },
	"watch":       func() { stream(background, "Watch", &order{Count: 7}, 1) },
	"watchfail":   func() { stream(background, "Watch", &order{Count: 3, Code: 8}, 1) },
	"upload":      func() { stream(background, "Upload", &order{}, 11) },
	"chat":        func() { stream(background, "Chat", &order{}, 13) },
	"slowchat":    func() { stream(background, "Chat", &order{SleepMS: 5000}, 2) },
	"longchat":    func() { stream(background, "Chat", &order{}, 1000) },
	"chatdeadline": func() {
		within(50*time.Millisecond, func(ctx context.Context) { stream(ctx, "Chat", &order{SleepMS: 5000}, 2) })
	},
	"panics":     func() { call(&order{Code: panicCode}) },
	"chatpanics": func() { stream(background, "Chat", &order{Code: panicCode}, 3) },
	"chatend":    func() { stream(background, "Chat", &order{Code: 10}, 3) },
	"abandoned":  abandoned,
	"health":     func() { unary(background, connection(), "grpc.health.v1.Health/Check", &order{}) },
	"refused":    refused,
	"waiting":    waiting,
	"reflection": func() {
		unary(background, connection(), "grpc.reflection.v1.ServerReflection/ServerReflectionInfo", &order{})
		unary(background, connection(), "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &order{})
	},
}

var background = context.Background()

func kindNames() string {
	var names []string
	for name := range kinds {
		names = append(names, name)
	}
	sort.Strings(names)
	return strings.Join(names, ", ")
}

var (
	connected sync.Once
	shared    *grpc.ClientConn
)

func connection() *grpc.ClientConn {
	connected.Do(func() { shared = dial(*to) })
	return shared
}

func dial(address string, more ...grpc.DialOption) *grpc.ClientConn {
	credential := grpc.WithInsecure()
	if *secure || *overHTTP {
		credential = grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{InsecureSkipVerify: true}))
	}
	more = append(more, credential, grpc.WithDefaultCallOptions(grpc.CallContentSubtype("plain")))
	made, err := grpc.Dial(address, more...)
	if err != nil {
		fail(err)
	}
	return made
}

func call(o *order) error { return callWith(background, o) }

func callWith(ctx context.Context, o *order) error {
	return unary(ctx, connection(), "shop.v1.Cart/Get", o)
}

// unary makes a call and logs it.
func unary(ctx context.Context, over *grpc.ClientConn, method string, o *order) error {
	other := peer.Peer{}
	entry := line{Side: "client", Method: method, To: over.Target(), Start: monotonic()}
	err := over.Invoke(ctx, "/"+method, o, &order{}, grpc.Peer(&other))
	entry.End = monotonic()
	ended(entry, &other, err)
	return err
}

func ended(entry line, other *peer.Peer, err error) {
	entry.Code = codeOf(err)
	if other.Addr != nil {
		entry.Peer = other.Addr.String()
	}
	entry.print()
}

func within(limit time.Duration, do func(context.Context)) {
	ctx, cancel := context.WithTimeout(background, limit)
	defer cancel()
	do(ctx)
}

func cancelled() {
	ctx, cancel := context.WithCancel(background)
	time.AfterFunc(50*time.Millisecond, cancel)
	callWith(ctx, &order{SleepMS: 5000})
}

func withTraceparent() {
	callWith(metadata.AppendToOutgoingContext(background,
		"traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tracestate", "vendor=value"), &order{})
}

// withMetadata gives a call two values of one key, one in each of the ways there are, and more keys than a bucket holds.
func withMetadata() context.Context {
	md := metadata.Pairs("x-tenant", "blue", "authorization", "Bearer secret", "x-long", strings.Repeat("0123456789", 20))
	for i := 0; i < 11; i++ {
		md.Append(fmt.Sprintf("x-%d", i), "more")
	}
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(background, md))
	time.AfterFunc(time.Minute, cancel)
	ctx = metadata.AppendToOutgoingContext(ctx, "X-Request-Id", "id-1", "x-other", "none")
	ctx = metadata.AppendToOutgoingContext(ctx, "x-tenant", "green", "x-request-id", "")
	return context.WithValue(ctx, &background, "of the program's own")
}

var descriptions = map[string]*grpc.StreamDesc{
	"Watch":  {StreamName: "Watch", ServerStreams: true},
	"Upload": {StreamName: "Upload", ClientStreams: true},
	"Chat":   {StreamName: "Chat", ServerStreams: true, ClientStreams: true},
}

// stream sends so many messages, reads an answer to each where it chats, and what is left.
func stream(ctx context.Context, name string, o *order, messages int) {
	streamOver(ctx, connection(), name, o, messages)
}

func streamOver(ctx context.Context, over *grpc.ClientConn, name string, o *order, messages int) {
	other := peer.Peer{}
	entry := line{Side: "client", Method: "shop.v1.Cart/" + name, To: *to, Start: monotonic()}
	opened, err := over.NewStream(ctx, descriptions[name], "/"+entry.Method, grpc.Peer(&other))
	for i := 0; i < messages && err == nil; i++ {
		err = opened.SendMsg(o)
		if err == nil && name == "Chat" {
			err = opened.RecvMsg(&order{})
		}
	}
	if opened != nil && (err == nil || err == io.EOF) {
		opened.CloseSend()
		for err = nil; err == nil; {
			err = opened.RecvMsg(&order{})
			if name == "Upload" {
				break
			}
		}
	}
	if err == io.EOF {
		err = nil
	}
	entry.End = monotonic()
	ended(entry, &other, err)
}

// abandoned opens a stream that nobody reads; its context ends it.
func abandoned() {
	ctx, cancel := context.WithCancel(background)
	entry := line{Side: "client", Method: "shop.v1.Cart/Chat", To: *to, Start: monotonic()}
	opened, err := connection().NewStream(ctx, descriptions["Chat"], "/"+entry.Method)
	if err == nil {
		err = opened.SendMsg(&order{})
	}
	time.Sleep(20 * time.Millisecond)
	cancel()
	entry.End = monotonic()
	if err == nil {
		err = ctx.Err()
	}
	ended(entry, &peer.Peer{}, err)
}

func refused() {
	nobody := dial("127.0.0.1:1")
	unary(background, nobody, "shop.v1.Cart/Get", &order{})
	nobody.Close()
}

// waiting makes a call whose deadline comes before there is a connection.
func waiting() {
	nobody := dial("127.0.0.1:1", grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	within(50*time.Millisecond, func(ctx context.Context) { unary(ctx, nobody, "shop.v1.Cart/Get", &order{}) })
	nobody.Close()
}

// callMany makes -load calls with random ids, -streams at once, over -connections connections.
func callMany() {
	ids := make(chan string)
	var working sync.WaitGroup
	for i := 0; i < *connections; i++ {
		over := dial(*to)
		for j := 0; j < *streams / *connections; j++ {
			working.Add(1)
			go func() {
				defer working.Done()
				for id := range ids {
					unary(background, over, "load.Front/"+id, &order{})
				}
			}()
		}
	}
	for i := 0; i < *load; i++ {
		ids <- fmt.Sprintf("%d%08d", rand.Intn(10), rand.Intn(1e8))
	}
	close(ids)
	working.Wait()
}
