//go:build unix

package nbd

import (
	"net"
	"syscall"
)

// initRaw takes the descriptor of the standard library's own connections
// only: a type that wraps one may want to see what is read.
func (b *reader) initRaw() {
	switch c := b.nc.(type) {
	case *net.TCPConn:
		b.raw, _ = c.SyscallConn()
	case *net.UnixConn:
		b.raw, _ = c.SyscallConn()
	}
	b.rawRead = b.tryRead
}

// tryRead is called by the runtime's poller, and again each time that the
// socket is readable until it returns true.
func (b *reader) tryRead(fd uintptr) bool {
	if b.alone {
		b.linger(fd)
	}
	b.acquire()
	for {
		b.rawN, b.rawErr = syscall.Read(int(fd), b.buf[b.w:])
		switch b.rawErr {
		case syscall.EINTR:
		case syscall.EAGAIN:
			b.release()
			return false
		default:
			return true
		}
	}
}
