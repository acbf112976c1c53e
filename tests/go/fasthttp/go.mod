module fasthttp

go 1.21
