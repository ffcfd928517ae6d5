package nbd

import (
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// zeroes are never written to.
var zeroes [zeroesLen]byte

// A call that sends what is in memory, without waiting for the client, takes
// less than diskTime. One that takes longer was waiting for the disk. When
// nothing was known to be missing, the system has dropped what was in memory.
// Else there are single pages: for the next coldSends calls it is told of those
// too, to have all at once instead of one after the other.
const (
	diskTime  = time.Millisecond
	coldSends = 16
)

// fetch has the system read what may not be in memory. It says whether anything
// may not.
func (b *batch) fetch(cold bool) (fresh bool) {
	several := cold && len(b.segs) > 1
	for i := range b.segs {
		if s := &b.segs[i]; s.m != nil && s.m.fetch(s, several) {
			fresh = true
		}
	}
	return fresh
}

func (b *batch) forget() {
	for _, f := range b.files {
		f.m.seen.forget()
	}
}

// sender sends vectors through a socket of the standard library.
type sender struct {
	nc      net.Conn
	raw     syscall.RawConn // nil: there is none, or it is encrypted
	timeout time.Duration
	cold    int // sends for which single pages are fetched
}

// sending is one write of a sender, which needs it only meanwhile.
type sending struct {
	s   *sender
	try func(fd uintptr) bool // trySend, made once

	vecs  []unix.Iovec
	iov   []unix.Iovec // what is left of vecs
	sent  int64
	err   error
	armed bool // the deadline is set
	slow  bool // a call took as long as the disk does
	msg   unix.Msghdr
}

func (s *sender) init(nc net.Conn) {
	s.nc = nc
	switch c := nc.(type) {
	case *net.TCPConn:
		s.raw, _ = c.SyscallConn()
	case *net.UnixConn:
		s.raw, _ = c.SyscallConn()
	}
}

// setTimeout says how long the client may take for what one write sends.
func (s *sender) setTimeout(d time.Duration) { s.timeout = d }

func (s *sender) can() bool { return s.raw != nil }

// write sends buf with the segments of b, which may be nil, in their places. The
// pool is of *sending.
// It returns how many bytes are out, all unless it fails.
func (s *sender) write(pool *sync.Pool, buf []byte, b *batch) (int64, error) {
	w, ok := pool.Get().(*sending)
	if !ok {
		w = new(sending)
		w.try = w.trySend
	}
	iov := w.vecs[:0]
	add := func(p []byte) {
		if len(p) > 0 {
			v := unix.Iovec{Base: unsafe.SliceData(p)}
			v.SetLen(len(p))
			iov = append(iov, v)
		}
	}
	from := 0
	if b != nil {
		segs := b.segs
		for _, r := range b.reads {
			add(buf[from:r.at])
			from = r.at
			for _, seg := range segs[:r.segs] {
				add(seg.Data)
				for n := seg.Zeroes; seg.Data == nil && n > 0; n -= zeroesLen {
					add(zeroes[:min(n, zeroesLen)])
				}
			}
			segs = segs[r.segs:]
		}
	}
	add(buf[from:])

	fresh := b != nil && b.fetch(s.cold > 0)
	s.cold = max(s.cold-1, 0)
	w.s, w.iov = s, iov
	happened()
	err := s.raw.Write(w.try)
	if err == nil {
		err = w.err
	}
	if w.armed {
		_ = s.nc.SetWriteDeadline(time.Time{})
	}
	if w.slow && b != nil {
		s.cold = coldSends
		if !fresh {
			b.forget()
		}
	}
	sent := w.sent
	clear(iov) // they keep what they point to
	*w = sending{try: w.try, vecs: iov[:0]}
	pool.Put(w)
	return sent, err
}

// trySend is called by the runtime's poller, and again each time that the
// socket takes more, until it returns true.
func (w *sending) trySend(fd uintptr) bool {
	for len(w.iov) > 0 {
		w.msg.Iov = &w.iov[0]
		w.msg.SetIovlen(min(len(w.iov), maxVecs))
		began := time.Now()
		n, _, errno := syscall.Syscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&w.msg)), unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		if time.Since(began) > diskTime {
			w.slow = true
		}
		switch errno {
		case 0:
			w.advance(int64(n))
		case unix.EINTR:
		case unix.EAGAIN:
			// Most replies go out at once, and a timer has its price.
			if !w.armed && w.s.timeout > 0 {
				_ = w.s.nc.SetWriteDeadline(time.Now().Add(w.s.timeout))
				w.armed = true
			}
			return false
		default:
			w.err = fmt.Errorf("nbd: sending replies: %w", os.NewSyscallError("sendmsg", errno))
			return true
		}
	}
	return true
}

func (w *sending) advance(n int64) {
	w.sent += n
	for len(w.iov) > 0 {
		v := &w.iov[0]
		if n < int64(v.Len) {
			v.Base = (*byte)(unsafe.Add(unsafe.Pointer(v.Base), n))
			v.SetLen(int(int64(v.Len) - n))
			return
		}
		n -= int64(v.Len)
		w.iov = w.iov[1:]
	}
}
