package main

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// refusing answers the first connections itself, and refuses the first request over each: by a GOAWAY that says that it
// won't be processed, or by resetting its stream (REFUSED_STREAM), and the others over that connection get 200.
type refusing struct {
	net.Listener
	how   string
	tls   *tls.Config // nil: h2c
	count int
}

func (r *refusing) Accept() (net.Conn, error) {
	for {
		conn, err := r.Listener.Accept()
		if err != nil || r.count == 0 {
			return conn, err
		}
		r.count--
		go r.refuse(conn)
	}
}

func (r *refusing) refuse(conn net.Conn) {
	defer conn.Close()
	if r.tls != nil {
		conn = tls.Server(conn, r.tls)
	}
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(conn, preface); err != nil {
		return
	}
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	framer.WriteSettings()
	refused := false
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				framer.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame:
			switch {
			case refused:
				var block bytes.Buffer
				hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
				framer.WriteHeaders(http2.HeadersFrameParam{
					StreamID: frame.StreamID, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true,
				})
			case r.how == "goaway":
				framer.WriteGoAway(0, http2.ErrCodeNo, nil)
			default:
				framer.WriteRSTStream(frame.StreamID, http2.ErrCodeRefusedStream)
			}
			refused = true
		}
	}
}
