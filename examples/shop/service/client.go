package service

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

const (
	attempts = 3
	pause    = 20 * time.Millisecond // before the second attempt; then twice as long
)

// Client calls one of the other services.
type Client struct {
	caller, base string
	http         http.Client
}

// NewClient returns a client for the service at base; caller is the name of the service that uses it.
func NewClient(caller, base string) *Client {
	return &Client{caller: caller, base: base, http: http.Client{Timeout: 5 * time.Second}}
}

// Call sends a request and decodes its answer. A service that is busy (503) is asked again, up to three times.
func (c *Client) Call(ctx context.Context, method, path, requestID string, answer any) error {
	for attempt := 1; ; attempt++ {
		status, err := c.once(ctx, method, path, requestID, answer)
		switch {
		case err != nil || status == http.StatusOK:
			return err
		case status != http.StatusServiceUnavailable || attempt == attempts:
			return fmt.Errorf("%s %s: status %d", method, path, status)
		}
		time.Sleep(time.Duration(attempt) * pause)
	}
}

func (c *Client) once(ctx context.Context, method, path, requestID string, answer any) (int, error) {
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, nil)
	if err != nil {
		return 0, err
	}
	request.Header.Set("User-Agent", c.caller)
	request.Header.Set(RequestID, requestID)
	response, err := c.http.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusOK {
		err = json.NewDecoder(response.Body).Decode(answer)
	}
	return response.StatusCode, err
}
