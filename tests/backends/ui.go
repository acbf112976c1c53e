//go:build tools

// Package backends pins what the tests' Jaeger and Collector are built from; this file keeps the module that holds
// Jaeger's user interface, which nothing imports, in go.mod.
package backends

import _ "github.com/tonistiigi/jaeger-ui-rest"
