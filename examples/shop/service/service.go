// Package service is what the shop's services have in common: they serve until they are told to stop, log what they are
// asked, and call each other.
package service

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

var listen = flag.String("listen", "127.0.0.1:0", "address to listen on; port 0 takes a free one")

// RequestID is the header by which the services' logs belong together.
const RequestID = "X-Request-Id"

// Serve answers requests until SIGINT or SIGTERM, and ends the program.
func Serve(name string, handler http.Handler) {
	slog.SetDefault(slog.New(slog.NewJSONHandler(os.Stderr, nil)).With("service", name))
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		slog.Error("can't listen", "error", err)
		os.Exit(1)
	}
	slog.Info("listening", "url", "http://"+listener.Addr().String())
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	server := &http.Server{Handler: logged(handler), ReadHeaderTimeout: 5 * time.Second}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		patience, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		server.Shutdown(patience)
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		slog.Error("can't serve", "error", err)
		os.Exit(1)
	}
	<-stopped
}

func logged(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		slog.Info("asked", "method", r.Method, "path", r.URL.Path, "by", r.UserAgent(), "request", r.Header.Get(RequestID))
		next.ServeHTTP(w, r)
	})
}

// Reply answers with JSON, or with the error where there is one.
func Reply(w http.ResponseWriter, answer any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(answer)
}
