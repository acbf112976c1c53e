// A server of fiber v2, and a client of net/http, for `make test-libraries`. The id of a request is in its path.
package main

import (
	"errors"
	"net"

	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/middleware/recover"
	"github.com/valyala/fasthttp"

	"official"
)

func answer(c *fiber.Ctx) error {
	matched(c)
	return c.SendString("answer")
}

func abort(c *fiber.Ctx) error {
	if c.Query("abort") != "" {
		matched(c)
		return c.SendStatus(401)
	}
	return c.Next()
}

func server() *fiber.App {
	app := fiber.New(fiber.Config{DisableStartupMessage: true})
	instrument(app)
	app.Use(recover.New(), func(c *fiber.Ctx) error { return c.Next() })
	app.Get("/users/:id", answer)
	app.Get("/files/*", answer)
	app.Get("/optional/:name?/:id", answer)
	app.Get("/panics/:id", func(c *fiber.Ctx) error {
		matched(c)
		panic(errors.New("on purpose"))
	})
	app.Get("/fails/:id", func(c *fiber.Ctx) error {
		matched(c)
		return fiber.NewError(503, "on purpose")
	})
	app.Use("/closed", func(c *fiber.Ctx) error { return c.SendStatus(403) })
	group := app.Group("/group/:name")
	group.Post("/items/:id", abort, answer)
	group.Group("/deeper").Get("/items/:id", answer)
	other := fiber.New()
	other.Get("/items/:id", answer)
	app.Mount("/mounted", other)
	return app
}

func main() {
	app := server()
	own := &fasthttp.Server{Handler: wrapped(app.Handler())}
	official.Run(
		func(listener net.Listener) { own.Serve(listener) },
		official.Calls(
			[2]string{"GET", "/users/r1"},
			[2]string{"GET", "/files/r2/and/more"},
			[2]string{"GET", "/nowhere/r3"},
			[2]string{"GET", "/optional/a/r4"},
			[2]string{"POST", "/group/a/items/r5"},
			[2]string{"POST", "/group/a/items/r6?abort=1"},
			[2]string{"GET", "/group/b/deeper/items/r7"},
			[2]string{"GET", "/panics/r8"},
			[2]string{"GET", "/fails/r9"},
			[2]string{"GET", "/closed/r10"},
			[2]string{"GET", "/mounted/items/r11"},
			[2]string{"HEAD", "/users/r12"},
			[2]string{"DELETE", "/users/r13"},
		),
	)
}
