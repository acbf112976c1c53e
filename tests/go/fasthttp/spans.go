package main

import (
	"context"
	"net"
	"strings"

	"github.com/valyala/fasthttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

var known = " GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH QUERY "

// traced makes the spans of a server by OpenTelemetry's SDK, as the conventions say, where there is no official
// instrumentation: the program's own word of what it was asked and of what it answered.
func traced(next fasthttp.RequestHandler) fasthttp.RequestHandler {
	tracer := otel.Tracer("own")
	return func(ctx *fasthttp.RequestCtx) {
		carrier := propagation.MapCarrier{"traceparent": string(ctx.Request.Header.Peek("Traceparent"))}
		method, host := string(ctx.Method()), string(ctx.Host())
		remote := ctx.RemoteAddr().(*net.TCPAddr)
		attributes := []attribute.KeyValue{
			attribute.String("http.request.method", method),
			attribute.String("url.path", string(ctx.Path())),
			attribute.String("url.scheme", "http"),
			attribute.String("client.address", remote.IP.String()),
			attribute.String("network.peer.address", remote.IP.String()),
			attribute.Int("network.peer.port", remote.Port),
			attribute.String("network.protocol.version", "1.1"),
			attribute.String("user_agent.original", string(ctx.UserAgent())),
		}
		name := method
		if !strings.Contains(known, " "+method+" ") {
			name = "HTTP"
			attributes[0] = attribute.String("http.request.method", "_OTHER")
			attributes = append(attributes, attribute.String("http.request.method_original", method))
		}
		if query := string(ctx.URI().QueryString()); query != "" {
			attributes = append(attributes, attribute.String("url.query", query))
		}
		if address, err := net.ResolveTCPAddr("tcp", host); err == nil {
			attributes = append(attributes,
				attribute.String("server.address", address.IP.String()), attribute.Int("server.port", address.Port))
		}
		parent := otel.GetTextMapPropagator().Extract(context.Background(), carrier)
		within, span := tracer.Start(parent, name, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(attributes...))
		defer span.End()
		ctx.SetUserValue("span", within)
		next(ctx)
		status := ctx.Response.StatusCode()
		span.SetAttributes(attribute.Int("http.response.status_code", status))
		if status >= 500 {
			span.SetStatus(codes.Error, "")
		}
	}
}
