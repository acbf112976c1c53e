// A Go program without net/http, which does nothing for a minute.
package main

import "time"

func main() { time.Sleep(time.Minute) }
