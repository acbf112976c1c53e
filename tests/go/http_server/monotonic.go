package main

import (
	"syscall"
	"unsafe"
)

// monotonic reads the clock that bpf_ktime_get_ns reads; time.Now's own monotonic reading isn't accessible.
func monotonic() int64 {
	var ts syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, 1, uintptr(unsafe.Pointer(&ts)), 0)
	return ts.Nano()
}
