package nbd

import (
	"io"
	"net"
	"sync"
	"syscall"
)

// reader buffers what a connection sends. It holds a buffer only while there
// is something in it: most connections of a busy server are idle.
type reader struct {
	nc   net.Conn
	pool *sync.Pool // of *[readBufLen]byte
	buf  *[readBufLen]byte
	r, w int // buf[r:w] is unread

	// alone: nobody else needs this thread, it may wait for a moment itself.
	alone  bool
	prompt bool // the last request came soon

	// raw reads without holding a buffer while it waits; nil where there is no
	// file descriptor.
	raw     syscall.RawConn
	rawRead func(fd uintptr) bool // r.tryRead, made once
	rawN    int
	rawErr  error
}

func (b *reader) init(nc net.Conn, pool *sync.Pool) {
	b.nc, b.pool, b.raw = nc, pool, nil
	b.initRaw()
}

func (b *reader) buffered() int { return b.w - b.r }

// peek returns the next n bytes, which must be buffered. They are valid until
// the next fill or release.
func (b *reader) peek(n int) []byte { return b.buf[b.r : b.r+n] }

func (b *reader) discard(n int) { b.r += n }

// fill reads once, so that there will be room for n unread bytes in all.
func (b *reader) fill(n int) error {
	if b.r == b.w {
		b.r, b.w = 0, 0
	} else if b.r+n > readBufLen {
		b.w = copy(b.buf[:], b.buf[b.r:b.w])
		b.r = 0
	}
	if b.raw != nil {
		return b.fillRaw()
	}
	b.acquire()
	m, err := b.nc.Read(b.buf[b.w:])
	b.w += m
	if m > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

func (b *reader) fillRaw() error {
	if err := b.raw.Read(b.rawRead); err != nil {
		return err
	}
	if b.rawErr != nil {
		return b.rawErr
	}
	if b.rawN <= 0 {
		return io.EOF
	}
	b.w += b.rawN
	return nil
}

func (b *reader) acquire() {
	if b.buf == nil {
		var ok bool
		if b.buf, ok = b.pool.Get().(*[readBufLen]byte); !ok {
			b.buf = new([readBufLen]byte)
		}
	}
}

// release gives the buffer back if nothing is in it.
func (b *reader) release() {
	if b.buf != nil && b.r == b.w {
		b.pool.Put(b.buf)
		b.buf, b.r, b.w = nil, 0, 0
	}
}
