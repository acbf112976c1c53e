// A fasthttp server, and a client of net/http, for `make test-libraries`. The id of a request is in its path.
package main

import (
	"context"
	"net"
	"strings"

	"github.com/valyala/fasthttp"

	"official"
)

func answer(ctx *fasthttp.RequestCtx) {
	switch path := string(ctx.Path()); {
	case strings.HasPrefix(path, "/missing/"):
		ctx.NotFound()
	case strings.HasPrefix(path, "/broken/"):
		ctx.Error("broken", fasthttp.StatusInternalServerError)
	case strings.HasPrefix(path, "/empty/"):
		ctx.SetStatusCode(fasthttp.StatusNoContent)
	case strings.HasPrefix(path, "/moved/"):
		ctx.Redirect("/elsewhere", fasthttp.StatusFound)
	case strings.HasPrefix(path, "/rewritten/"):
		// What a proxy does: the buffers that the request came in are written to.
		ctx.Request.Header.SetMethod("PUT")
		ctx.Request.SetRequestURI("/over/and/over/and/over")
		ctx.Request.Header.SetHost("elsewhere.example:80")
	case strings.HasPrefix(path, "/calls/"):
		within := ctx.UserValue("span").(context.Context)
		official.Get(within, ctx.LocalAddr().String(), "GET", "/called/"+path[len("/calls/"):])
	default:
		ctx.SetBodyString(strings.Repeat("answer ", 10000))
	}
}

func main() {
	server := &fasthttp.Server{Handler: traced(answer)}
	official.Run(
		func(listener net.Listener) { server.Serve(listener) },
		official.Calls(
			[2]string{"GET", "/plain/r1"},
			[2]string{"HEAD", "/plain/r2"},
			[2]string{"POST", "/plain/r3?q=1&more=2"},
			[2]string{"GET", "/missing/r4"},
			[2]string{"GET", "/broken/r5"},
			[2]string{"DELETE", "/empty/r6"},
			[2]string{"GET", "/moved/r7"},
			[2]string{"REPORT", "/plain/r8"},
			[2]string{"GET", "/rewritten/r9"},
			[2]string{"GET", "/calls/r10"},
			[2]string{"GET", "/a/path/that/is/longer/than/what/the/smaller/one/of/the/two/records/has/room/for/r11"},
			[2]string{"GET", "/escaped/%C3%A9%20/r12"},
		),
	)
}
