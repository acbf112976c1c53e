// A server of echo v5 with otelhttp about it, and a client of net/http, for `make test-libraries`. The route is the
// program's own word: there is no official instrumentation of it. The id of a request is in its path.
package main

import (
	"net"

	"github.com/labstack/echo/v5"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"

	"official"
)

func answer(c *echo.Context) error {
	official.Route(c.Request().Context(), c.Path())
	return c.String(200, "answer")
}

func abort(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c *echo.Context) error {
		if c.QueryParam("abort") != "" {
			official.Route(c.Request().Context(), c.Path())
			return c.NoContent(401)
		}
		return next(c)
	}
}

func main() {
	engine := echo.New()
	engine.GET("/users/:id", answer)
	engine.GET("/files/*", answer)
	engine.GET("/static", answer)
	group := engine.Group("/group/:name", abort)
	group.POST("/items/:id", answer)
	group.Group("/deeper").GET("/items/:id", answer)
	official.Run(
		func(listener net.Listener) { official.Serve(listener, otelhttp.NewHandler(engine, "server")) },
		official.Calls(
			[2]string{"GET", "/users/r1"},
			[2]string{"GET", "/files/r2/and/more"},
			[2]string{"GET", "/static"},
			[2]string{"GET", "/nowhere/r3"},
			[2]string{"POST", "/group/a/items/r5"},
			[2]string{"POST", "/group/a/items/r6?abort=1"},
			[2]string{"GET", "/group/b/deeper/items/r7"},
		),
	)
}
