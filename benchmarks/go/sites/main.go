// Command sites calls a function as often as it is told, for benchmarks/sites.py.
//
// Commands are lines such as "push 20000": the answer is the CPU time of its thread in ns, for all calls together.
package main

import (
	"bufio"
	"fmt"
	"log"
	"os"
	"runtime"
	"strings"
	"syscall"
	"unsafe"
)

func cmp()
func mov()
func sub()
func lea()
func push()
func jcc()
func jmp()
func call()
func ret()
func nop()

var functions = map[string]func(){
	"cmp": cmp, "mov": mov, "sub": sub, "lea": lea, "push": push, "jcc": jcc, "jmp": jmp, "call": call, "ret": ret, "nop": nop,
}

// threadTime is CLOCK_THREAD_CPUTIME_ID.
func threadTime() int64 {
	var time syscall.Timespec
	if _, _, failed := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, 3, uintptr(unsafe.Pointer(&time)), 0); failed != 0 {
		log.Fatal(failed)
	}
	return time.Nano()
}

func main() {
	runtime.LockOSThread()
	fmt.Println("ready")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var kind string
		var count int
		fmt.Fscan(strings.NewReader(lines.Text()), &kind, &count)
		function := functions[kind]
		if function == nil {
			log.Fatalf("%q is no kind", kind)
		}
		began := threadTime()
		for range count {
			function()
		}
		fmt.Println(threadTime() - began)
	}
}
