package main

import "google.golang.org/grpc"

func init() { kinds["repeated"] = repeated }

// workerOptions has the server keep goroutines for calls: since grpc 1.30.
func workerOptions() []grpc.ServerOption {
	if *workers == 0 {
		return nil
	}
	return []grpc.ServerOption{grpc.NumStreamWorkers(uint32(*workers))}
}

// repeated makes a call that the server fails the first time, and that grpc repeats: since grpc 1.40 without being asked to
// by the environment.
func repeated() {
	again := dial(*to, grpc.WithDefaultServiceConfig(`{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 4,
		"initialBackoff": "0.01s", "maxBackoff": "0.01s", "backoffMultiplier": 1, "retryableStatusCodes": ["UNAVAILABLE"]}}]}`))
	unary(background, again, "shop.v1.Cart/Get", &order{Count: 1})
}
