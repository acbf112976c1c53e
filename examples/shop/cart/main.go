// Command cart keeps the carts of the shop's customers.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"example.test/shop/service"
)

const workers = 4

// quote is a job of the pool: what does this item cost at this moment?
type quote struct {
	ctx       context.Context
	item, id  string
	price     int
	err       error
	completed *sync.WaitGroup
}

type cart struct {
	pricing *service.Client
	quotes  chan *quote

	mu    sync.Mutex
	items map[string][]string // by customer
	known map[string]int      // prices, by item
}

func (c *cart) show(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	items := slices.Clone(c.items[r.PathValue("user")])
	c.mu.Unlock()
	service.Reply(w, items, nil)
}

func (c *cart) add(w http.ResponseWriter, r *http.Request) {
	user, item := r.PathValue("user"), r.PathValue("item")
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.known[item]; !ok {
		http.Error(w, "no such item", http.StatusNotFound)
		return
	}
	c.items[user] = append(c.items[user], item)
	service.Reply(w, c.items[user], nil)
}

// checkout lets the pool ask for what the items cost now, and empties the cart.
func (c *cart) checkout(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	items := c.items[r.PathValue("user")]
	delete(c.items, r.PathValue("user"))
	c.mu.Unlock()
	var asked []*quote
	var completed sync.WaitGroup
	for _, item := range items {
		job := &quote{ctx: r.Context(), item: item, id: r.Header.Get(service.RequestID), completed: &completed}
		completed.Add(1)
		c.quotes <- job
		asked = append(asked, job)
	}
	completed.Wait()
	total, failures := 0, []error{}
	for _, job := range asked {
		total += job.price
		failures = append(failures, job.err)
	}
	service.Reply(w, total, errors.Join(failures...))
}

// work is a goroutine of the pool; it serves every request.
func (c *cart) work() {
	for job := range c.quotes {
		job.err = c.pricing.Call(job.ctx, "GET", "/quotes/"+job.item, job.id, &job.price)
		job.completed.Done()
	}
}

// refresh asks for all prices again and again; it belongs to no request.
func (c *cart) refresh(every time.Duration) {
	for round := 1; ; round++ {
		known := map[string]int{}
		err := c.pricing.Call(context.Background(), "GET", "/prices", fmt.Sprintf("refresh-%d", round), &known)
		if err != nil {
			slog.Warn("prices are not refreshed", "error", err)
		} else {
			c.mu.Lock()
			c.known = known
			c.mu.Unlock()
		}
		time.Sleep(every)
	}
}

func main() {
	pricing := flag.String("pricing", "http://127.0.0.1:8082", "URL of pricing")
	every := flag.Duration("refresh", time.Second, "time between two looks at all prices")
	flag.Parse()
	c := &cart{
		pricing: service.NewClient("cart", *pricing), quotes: make(chan *quote), items: map[string][]string{},
	}
	for i := 0; i < workers; i++ {
		go c.work()
	}
	go c.refresh(*every)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /carts/{user}", c.show)
	mux.HandleFunc("POST /carts/{user}/{item}", c.add)
	mux.HandleFunc("POST /carts/{user}/checkout", c.checkout)
	service.Serve("cart", mux)
}
