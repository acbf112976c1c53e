// Command pricing says what the shop's items cost.
package main

import (
	"flag"
	"net/http"
	"sync/atomic"
	"time"

	"example.test/shop/service"
)

var prices = map[string]int{"tea": 450, "coffee": 690, "cake": 320}

type pricing struct {
	quotes atomic.Int64
}

func (*pricing) all(w http.ResponseWriter, _ *http.Request) {
	service.Reply(w, prices, nil)
}

func (*pricing) price(w http.ResponseWriter, r *http.Request) {
	price, ok := prices[r.PathValue("item")]
	if !ok {
		http.Error(w, "no such item", http.StatusNotFound)
		return
	}
	time.Sleep(3 * time.Millisecond)
	service.Reply(w, price, nil)
}

// quote is a price that is calculated anew, for which this service is now and then too busy.
func (p *pricing) quote(w http.ResponseWriter, r *http.Request) {
	if p.quotes.Add(1)%5 == 1 {
		http.Error(w, "busy", http.StatusServiceUnavailable)
		return
	}
	p.price(w, r)
}

func main() {
	flag.Parse()
	p := &pricing{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /prices", p.all)
	mux.HandleFunc("GET /prices/{item}", p.price)
	mux.HandleFunc("GET /quotes/{item}", p.quote)
	service.Serve("pricing", mux)
}
