//go:build own_word

package main

import (
	"net/http"

	"github.com/gin-gonic/gin"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"

	"official"
)

// For a gin that is older than otelgin: otelhttp about the engine, and the route by the program's own word.
func instrumentation() gin.HandlerFunc { return func(c *gin.Context) { c.Next() } }

func matched(c *gin.Context) { official.Route(c.Request.Context(), c.FullPath()) }

func wrapped(engine *gin.Engine) http.Handler { return otelhttp.NewHandler(engine, "server") }
