package main

import (
	"fmt"

	"google.golang.org/grpc/encoding"
)

// order is a message: what the server is to do.
type order struct {
	Code    uint32 // to end with
	SleepMS uint32
	Count   uint32 // messages to send; of a unary call 1, to fail the first time
}

// plain encodes orders, registered by name so that both sides choose it by the content type.
type plain struct{}

func (plain) Name() string { return "plain" }

func (plain) Marshal(v interface{}) ([]byte, error) {
	o := v.(*order)
	return []byte(fmt.Sprintf("%d %d %d", o.Code, o.SleepMS, o.Count)), nil
}

func (plain) Unmarshal(data []byte, v interface{}) error {
	o := v.(*order)
	_, err := fmt.Sscanf(string(data), "%d %d %d", &o.Code, &o.SleepMS, &o.Count)
	return err
}

func init() { encoding.RegisterCodec(plain{}) }
