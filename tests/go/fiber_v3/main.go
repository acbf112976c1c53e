// A server of fiber v3, and a client of net/http, for `make test-libraries`. The id of a request is in its path.
package main

import (
	"context"
	"errors"
	"net"

	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/middleware/recover"
	"github.com/valyala/fasthttp"

	"official"
)

func matched(c fiber.Ctx) {
	official.Route(c.RequestCtx().UserValue("span").(context.Context), c.Route().Path)
}

func answer(c fiber.Ctx) error {
	matched(c)
	return c.SendString("answer")
}

func abort(c fiber.Ctx) error {
	if c.Query("abort") != "" {
		matched(c)
		return c.SendStatus(401)
	}
	return c.Next()
}

// own is a kind of context that a program makes for itself.
type own struct{ fiber.DefaultCtx }

func server(app *fiber.App) *fiber.App {
	app.Use(recover.New(), func(c fiber.Ctx) error { return c.Next() })
	app.Get("/users/:id", answer)
	app.Get("/own/users/:id", answer)
	app.Get("/files/*", answer)
	app.Get("/panics/:id", func(c fiber.Ctx) error {
		matched(c)
		panic(errors.New("on purpose"))
	})
	app.Use("/closed", func(c fiber.Ctx) error { return c.SendStatus(403) })
	group := app.Group("/group/:name")
	group.Post("/items/:id", abort, answer)
	group.Group("/deeper").Get("/items/:id", answer)
	other := fiber.New()
	other.Get("/items/:id", answer)
	app.Use("/mounted", other)
	return app
}

func main() {
	plain := server(fiber.New()).Handler()
	custom := server(fiber.NewWithCustomCtx(func(app *fiber.App) fiber.CustomCtx {
		return &own{DefaultCtx: *fiber.NewDefaultCtx(app)}
	})).Handler()
	both := &fasthttp.Server{Handler: traced(func(ctx *fasthttp.RequestCtx) {
		if path := string(ctx.Path()); len(path) > 4 && path[:5] == "/own/" {
			custom(ctx)
		} else {
			plain(ctx)
		}
	})}
	official.Run(
		func(listener net.Listener) { both.Serve(listener) },
		official.Calls(
			[2]string{"GET", "/users/r1"},
			[2]string{"GET", "/files/r2/and/more"},
			[2]string{"GET", "/nowhere/r3"},
			[2]string{"GET", "/own/users/r4"},
			[2]string{"POST", "/group/a/items/r5"},
			[2]string{"POST", "/group/a/items/r6?abort=1"},
			[2]string{"GET", "/group/b/deeper/items/r7"},
			[2]string{"GET", "/panics/r8"},
			[2]string{"GET", "/closed/r10"},
			[2]string{"GET", "/mounted/items/r11"},
			[2]string{"HEAD", "/users/r12"},
			[2]string{"DELETE", "/users/r13"},
		),
	)
}
