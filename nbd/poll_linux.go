package nbd

import (
	"time"

	"golang.org/x/sys/unix"
)

// moment is how long a connection that is alone waits on a thread of its own
// before it leaves that to the runtime's poller. To be woken by that takes two
// to three times as long, which is what a client with one request at a time
// feels; and as long as this may others wait, should they turn up.
const moment = 250 * time.Microsecond

// pollMoment waits until the socket is readable, for a moment at most.
func pollMoment(fd uintptr) {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	timeout := unix.NsecToTimespec(int64(moment))
	_, _ = unix.Ppoll(fds[:], &timeout, nil)
}
