package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"

	"github.com/valyala/fasthttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// span is one attempt's, as the HTTP conventions have it.
type span struct {
	trace.Span
	ctx context.Context
}

func begin(ctx context.Context, method, full string, resends int) span {
	at, _ := url.Parse(full)
	port, _ := strconv.Atoi(at.Port())
	name, known := method, method
	attributes := []attribute.KeyValue{}
	if method == "PROPFIND" {
		name, known = "HTTP", "_OTHER"
		attributes = append(attributes, attribute.String("http.request.method_original", method))
	}
	attributes = append(attributes,
		attribute.String("http.request.method", known),
		attribute.String("url.full", full),
		attribute.String("server.address", at.Hostname()),
		attribute.Int("server.port", port),
	)
	if resends > 0 {
		attributes = append(attributes, attribute.Int("http.request.resend_count", resends))
	}
	ctx, made := otel.Tracer("program").Start(
		ctx, name, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attributes...))
	return span{made, ctx}
}

// inject puts the span's context into the request.
func (s span) inject(header *fasthttp.RequestHeader) {
	context := s.SpanContext()
	header.Set("traceparent", fmt.Sprintf("00-%s-%s-%s", context.TraceID(), context.SpanID(), context.TraceFlags()))
}

func (s span) answered(response *fasthttp.Response) {
	s.told(response.StatusCode())
	s.peer(response.RemoteAddr().String())
}

func (s span) told(status int) {
	s.SetAttributes(
		attribute.Int("http.response.status_code", status), attribute.String("network.protocol.version", "1.1"))
	if status >= 400 {
		s.SetAttributes(attribute.String("error.type", strconv.Itoa(status)))
		s.SetStatus(codes.Error, "")
	}
}

func (s span) peer(at string) {
	host, text, _ := net.SplitHostPort(at)
	port, _ := strconv.Atoi(text)
	s.SetAttributes(attribute.String("network.peer.address", host), attribute.Int("network.peer.port", port))
}

func (s span) failed(err error) {
	name := fmt.Sprintf("%T", err)
	var operation *net.OpError
	switch {
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		name = "github.com/valyala/fasthttp.ErrBodyTooLarge"
	case errors.Is(err, fasthttp.ErrNoFreeConns):
		name = "github.com/valyala/fasthttp.ErrNoFreeConns"
	case errors.As(err, &operation):
		name = "*net.OpError"
	}
	s.SetAttributes(attribute.String("error.type", name))
	s.SetStatus(codes.Error, "")
}
