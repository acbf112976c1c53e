//go:build !own_word

package main

import (
	"net/http"

	"github.com/labstack/echo/v4"
	"go.opentelemetry.io/contrib/instrumentation/github.com/labstack/echo/otelecho"
)

func instrument(engine *echo.Echo) { engine.Use(otelecho.Middleware("")) }

func matched(echo.Context) {}

func wrapped(engine *echo.Echo) http.Handler { return engine }
