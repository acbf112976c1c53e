package main

import "google.golang.org/grpc"

// workerOptions: this version of grpc keeps no goroutines for calls.
func workerOptions() []grpc.ServerOption { return nil }
