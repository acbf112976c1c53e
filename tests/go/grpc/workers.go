package main

import "google.golang.org/grpc"

// workerOptions has the server keep goroutines for calls: since grpc 1.30.
func workerOptions() []grpc.ServerOption {
	if *workers == 0 {
		return nil
	}
	return []grpc.ServerOption{grpc.NumStreamWorkers(uint32(*workers))}
}
