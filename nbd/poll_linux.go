package nbd

import (
	"time"

	"golang.org/x/sys/unix"
)

// A connection that is alone waits on a thread of its own before it leaves that
// to the runtime's poller. To be woken by that takes two to three times as
// long, which is what a client with one request at a time feels. As long as a
// moment may others wait, should they turn up. And when the last request came
// within a glance, as that of a client on this machine does, it is looked out
// for without sleep: to be woken at all takes longer than that.
const (
	moment = 250 * time.Microsecond
	glance = 60 * time.Microsecond
)

// linger waits until the socket is readable, for a moment at most.
func (b *reader) linger(fd uintptr) {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	began := time.Now()
	for first := true; b.prompt; first = false {
		var now unix.Timespec
		if n, _ := unix.Ppoll(fds[:], &now, nil); n != 0 {
			if first {
				return // it had come already: nothing is known of the next
			}
			break
		}
		if b.prompt = time.Since(began) < glance; b.prompt {
			yield()
		}
	}
	if !b.prompt {
		timeout := unix.NsecToTimespec(int64(moment))
		_, _ = unix.Ppoll(fds[:], &timeout, nil)
		b.prompt = time.Since(began) < glance
	}
}

// yield lets other threads run, who may be the one that is waited for.
func yield() { _, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }
