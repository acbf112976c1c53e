package main

import "google.golang.org/grpc"

func init() {
	kinds["repeated"] = func() { unary(background, repeating(), "shop.v1.Cart/Get", &order{Count: 1}) }
	kinds["chatrepeated"] = func() { streamOver(background, repeating(), "Chat", &order{Count: 2}, 3) }
}

// workerOptions has the server keep goroutines for calls: since grpc 1.30.
func workerOptions() []grpc.ServerOption {
	if *workers == 0 {
		return nil
	}
	return []grpc.ServerOption{grpc.NumStreamWorkers(uint32(*workers))}
}

// repeating is a connection over which grpc repeats calls that fail: since 1.40 without being asked to by the environment.
func repeating() *grpc.ClientConn {
	return dial(*to, grpc.WithDefaultServiceConfig(`{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 4,
		"initialBackoff": "0.01s", "maxBackoff": "0.01s", "backoffMultiplier": 1, "retryableStatusCodes": ["UNAVAILABLE"]}}]}`))
}
