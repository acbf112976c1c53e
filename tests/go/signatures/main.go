// Functions whose arguments and results go where the register ABI puts them; the tests say where.
package main

import "fmt"

type pair struct{ a, b int32 }
type mixed struct {
	f   float32
	s   string
	c   complex128
	_   int
	e   struct{}
	one [1]*int
}
type big struct{ x [2]int }

//go:noinline
func blanks(_ int, a string, _ error, b float64) (int, error) { return len(a) + int(b), nil }

//go:noinline
func (p pair) value(m mixed, x big, y ...string) (r pair, n int, f float64) {
	return p, len(y) + x.x[0], float64(m.f)
}

//go:noinline
func many(a, b, c, d, e, f, g, h, i int, j string, k uint8, l bool, m []byte) (string, []byte, error, map[string]int, int) {
	return j, m, nil, nil, a + b + c + d + e + f + g + h + i + int(k)
}

//go:noinline
func generic[T any](a T, f func(T) T) T { return f(a) }

func main() {
	fmt.Println(blanks(1, "a", nil, 2))
	fmt.Println(pair{1, 2}.value(mixed{}, big{}, "a", "b"))
	fmt.Println(many(1, 2, 3, 4, 5, 6, 7, 8, 9, "x", 1, true, nil))
	fmt.Println(generic(1, func(i int) int { return i }), generic("a", func(s string) string { return s }))
	fmt.Println(func(x int, c chan int) int { return x }(1, nil))
}
