// A gin server, and a client of net/http, for `make test-libraries`. The id of a request is in its path.
package main

import (
	"net"

	"github.com/gin-gonic/gin"

	"official"
)

func answer(c *gin.Context) {
	matched(c)
	c.String(200, "answer")
}

func main() {
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	engine.HandleMethodNotAllowed = true
	engine.Use(instrumentation(), gin.Recovery(), func(c *gin.Context) { c.Next() })
	engine.GET("/users/:id", answer)
	engine.GET("/files/*path", answer)
	engine.GET("/static", answer)
	engine.GET("/panics/:id", func(c *gin.Context) {
		matched(c)
		panic("as asked")
	})
	group := engine.Group("/group/:name", func(c *gin.Context) {
		if c.Query("abort") != "" {
			matched(c)
			c.AbortWithStatus(401)
			return
		}
		c.Next()
	})
	group.POST("/items/:id", answer)
	group.Group("/deeper").GET("/items/:id", answer)
	official.Run(
		func(listener net.Listener) { official.Serve(listener, wrapped(engine)) },
		official.Calls(
			[2]string{"GET", "/users/r1"},
			[2]string{"GET", "/files/r2/and/more"},
			[2]string{"GET", "/static"},
			[2]string{"GET", "/nowhere/r3"},
			[2]string{"DELETE", "/users/r4"},
			[2]string{"POST", "/group/a/items/r5"},
			[2]string{"POST", "/group/a/items/r6?abort=1"},
			[2]string{"GET", "/group/b/deeper/items/r7"},
			[2]string{"GET", "/panics/r8"},
		),
	)
}
