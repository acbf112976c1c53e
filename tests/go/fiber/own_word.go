//go:build own_word

package main

import (
	"context"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"

	"official"
)

// For a fiber that is older than otelfiber: the program's own spans, and its own word for the route.
func instrument(*fiber.App) {}

func matched(c *fiber.Ctx) {
	official.Route(c.Context().UserValue("span").(context.Context), c.Route().Path)
}

func wrapped(handler fasthttp.RequestHandler) fasthttp.RequestHandler { return traced(handler) }
