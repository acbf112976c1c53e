//go:build tools

// Package tools pins nats-server: a real program that nobody here wrote, built from the Go module proxy by tests/e2e/test_wild.py.
package tools

import _ "github.com/nats-io/nats-server/v2"
