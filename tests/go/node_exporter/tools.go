//go:build tools

// Package tools pins node_exporter: a real program that nobody here wrote, built from the Go module proxy by tests/e2e/test_wild.py.
package tools

import _ "github.com/prometheus/node_exporter"
