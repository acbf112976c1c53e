//go:build own_word

package main

import (
	"net/http"

	"github.com/labstack/echo/v4"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"

	"official"
)

// For an echo that is older than otelecho: otelhttp about it, and the route by the program's own word.
func instrument(*echo.Echo) {}

func matched(c echo.Context) { official.Route(c.Request().Context(), c.Path()) }

func wrapped(engine *echo.Echo) http.Handler { return otelhttp.NewHandler(engine, "server") }
