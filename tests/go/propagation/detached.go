//go:build !go1.21

package main

import "context"

// withoutCancel stands for context.WithoutCancel, which Go has had since 1.21.
func withoutCancel(ctx context.Context) context.Context { return detached{ctx} }

type detached struct{ context.Context }

func (detached) Done() <-chan struct{} { return nil }

func (detached) Err() error { return nil }
