// Command hello is a small web service of the usual kind: greetings, orders, a slow report and a bug. It has no
// dependencies, and nothing of OpenTelemetry or of any other instrumentation.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"
)

type order struct {
	ID    int    `json:"id"`
	Item  string `json:"item"`
	Count int    `json:"count"`
}

// shop holds the orders in memory.
type shop struct {
	mu     sync.Mutex
	orders map[int]order
}

func hello(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "Hello, %s!\n", r.PathValue("name"))
}

func (s *shop) getOrder(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.Atoi(r.PathValue("id"))
	if err != nil {
		http.Error(w, "an order's id is a number", http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	found, ok := s.orders[id]
	s.mu.Unlock()
	if !ok {
		http.Error(w, "no such order", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(found)
}

func (s *shop) postOrder(w http.ResponseWriter, r *http.Request) {
	var made order
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&made); err != nil {
		http.Error(w, "an order is JSON with item and count", http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	made.ID = len(s.orders) + 1
	s.orders[made.ID] = made
	s.mu.Unlock()
	w.Header().Set("Location", fmt.Sprintf("/orders/%d", made.ID))
	w.WriteHeader(http.StatusCreated)
	json.NewEncoder(w).Encode(made)
}

// report takes its time, as reports do.
func report(w http.ResponseWriter, r *http.Request) {
	select {
	case <-time.After(200 * time.Millisecond):
		fmt.Fprintln(w, "everything is fine")
	case <-r.Context().Done():
	}
}

func stock(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "the warehouse does not answer", http.StatusInternalServerError)
}

// invoice has a bug: nobody made the map that it writes to.
func invoice(http.ResponseWriter, *http.Request) {
	var totals map[string]int
	totals["invoices"]++
}

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "address to listen on; port 0 takes a free one")
	flag.Parse()

	s := &shop{orders: map[int]order{1: {ID: 1, Item: "tea", Count: 2}}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /hello/{name}", hello)
	mux.HandleFunc("GET /orders/{id}", s.getOrder)
	mux.HandleFunc("POST /orders", s.postOrder)
	mux.HandleFunc("GET /report", report)
	mux.HandleFunc("GET /stock", stock)
	mux.HandleFunc("GET /invoice", invoice)

	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("listening on http://%s", listener.Addr())

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		<-ctx.Done()
		patience, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		server.Shutdown(patience)
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}
