// Command minimal is a small Go executable whose bytes the tests of gobinary damage.
package main

type speaker interface{ speak() string }

type loud struct{ word string }

func (l *loud) speak() string { return l.word + "!" }

//go:noinline
func say(s speaker) { println(s.speak()) }

func main() { say(&loud{"hello"}) }
