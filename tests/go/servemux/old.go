//go:build old

//go:debug httpmuxgo121=1
package main
