// An echo server, and a client of net/http, for `make test-libraries`. The id of a request is in its path.
package main

import (
	"net"
	"net/http"

	"github.com/labstack/echo/v4"

	"official"
)

func answer(c echo.Context) error {
	matched(c)
	return c.String(200, "answer")
}

func abort(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if c.QueryParam("abort") != "" {
			matched(c)
			return c.NoContent(401)
		}
		return next(c)
	}
}

// serve has middlewares before its router where there are any in `before`.
func server(before ...echo.MiddlewareFunc) http.Handler {
	engine := echo.New()
	engine.Pre(before...)
	instrument(engine)
	engine.GET("/users/:id", answer)
	engine.GET("/pre/users/:id", answer)
	engine.GET("/files/*", answer)
	engine.GET("/static", answer)
	group := engine.Group("/group/:name", abort)
	group.POST("/items/:id", answer)
	group.Group("/deeper").GET("/items/:id", answer)
	return wrapped(engine)
}

func main() {
	plain := server()
	pre := server(func(next echo.HandlerFunc) echo.HandlerFunc { return next })
	official.Run(
		func(listener net.Listener) {
			official.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if len(r.URL.Path) > 4 && r.URL.Path[:5] == "/pre/" {
					pre.ServeHTTP(w, r)
				} else {
					plain.ServeHTTP(w, r)
				}
			}))
		},
		official.Calls(
			[2]string{"GET", "/users/r1"},
			[2]string{"GET", "/files/r2/and/more"},
			[2]string{"GET", "/static"},
			[2]string{"GET", "/nowhere/r3"},
			[2]string{"GET", "/pre/users/r4"},
			[2]string{"POST", "/group/a/items/r5"},
			[2]string{"POST", "/group/a/items/r6?abort=1"},
			[2]string{"GET", "/group/b/deeper/items/r7"},
		),
	)
}
