//go:build tools

// Package tools pins etcd: a real program that nobody here wrote, built from the Go module proxy by tests/e2e/test_wild.py.
package tools

import _ "go.etcd.io/etcd/server/v3"
