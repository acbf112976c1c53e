// Command hits calls one function as often as it is told, for the tests of the kernel package.
//
// A command a line, each answered by "done": "main N" N calls, "threads N" N calls on each of two threads that are
// pinned to two CPUs.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"unsafe"
)

//go:noinline
func sink(value uint64) {}

// work carries the probe. It has a frame, so there is a push %rbp behind its stack check.
//
//go:noinline
func work(producer, sequence uint64) {
	var frame [16]uint64
	frame[sequence%16] = producer
	sink(frame[(sequence+1)%16])
}

func calls(producer, count uint64) {
	for sequence := uint64(0); sequence < count; sequence++ {
		work(producer, sequence)
	}
}

func pinned(producer, count uint64) {
	runtime.LockOSThread()
	mask := [16]uint64{1 << (producer % uint64(runtime.NumCPU()))}
	syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(mask), uintptr(unsafe.Pointer(&mask)))
	calls(producer, count)
}

func main() {
	fmt.Println("ready")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var command string
		var count uint64
		fmt.Fscan(strings.NewReader(lines.Text()+" 0"), &command, &count)
		switch command {
		case "main":
			calls(0, count)
		case "threads":
			var both sync.WaitGroup
			for producer := uint64(0); producer < 2; producer++ {
				both.Add(1)
				go func(producer uint64) {
					defer both.Done()
					pinned(producer, count)
				}(producer)
			}
			both.Wait()
		}
		fmt.Println("done")
	}
}
