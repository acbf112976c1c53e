// Command front is what the shop's customers see. It asks cart and pricing, and has nothing of OpenTelemetry in it.
package main

import (
	"context"
	"errors"
	"flag"
	"net/http"
	"sync"
	"time"

	"example.test/shop/service"
)

type front struct {
	cart, pricing *service.Client
}

func (f *front) product(w http.ResponseWriter, r *http.Request) {
	var price int
	err := f.pricing.Call(r.Context(), "GET", "/prices/"+r.PathValue("item"), r.Header.Get(service.RequestID), &price)
	service.Reply(w, price, err)
}

func (f *front) add(w http.ResponseWriter, r *http.Request) {
	var items []string
	path := "/carts/" + r.PathValue("user") + "/" + r.PathValue("item")
	err := f.cart.Call(r.Context(), "POST", path, r.Header.Get(service.RequestID), &items)
	service.Reply(w, items, err)
}

// show asks for the prices of all items in a cart at once.
func (f *front) show(w http.ResponseWriter, r *http.Request) {
	id := r.Header.Get(service.RequestID)
	var items []string
	if err := f.cart.Call(r.Context(), "GET", "/carts/"+r.PathValue("user"), id, &items); err != nil {
		service.Reply(w, nil, err)
		return
	}
	prices, failures := make([]int, len(items)), make([]error, len(items))
	var calls sync.WaitGroup
	for i, item := range items {
		calls.Add(1)
		go func() {
			defer calls.Done()
			failures[i] = f.pricing.Call(r.Context(), "GET", "/prices/"+item, id, &prices[i])
		}()
	}
	calls.Wait()
	total := 0
	for _, price := range prices {
		total += price
	}
	service.Reply(w, total, errors.Join(failures...))
}

// checkout goes on when the customer has closed the browser: its context isn't the request's.
func (f *front) checkout(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var total int
	path := "/carts/" + r.PathValue("user") + "/checkout"
	err := f.cart.Call(ctx, "POST", path, r.Header.Get(service.RequestID), &total)
	service.Reply(w, total, err)
}

func main() {
	cart := flag.String("cart", "http://127.0.0.1:8081", "URL of cart")
	pricing := flag.String("pricing", "http://127.0.0.1:8082", "URL of pricing")
	flag.Parse()
	f := &front{cart: service.NewClient("front", *cart), pricing: service.NewClient("front", *pricing)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /products/{item}", f.product)
	mux.HandleFunc("GET /cart/{user}", f.show)
	mux.HandleFunc("POST /cart/{user}/{item}", f.add)
	mux.HandleFunc("POST /checkout/{user}", f.checkout)
	service.Serve("front", mux)
}
