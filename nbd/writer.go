package nbd

import (
	"context"
	"io"
	"sync"

	"golang.org/x/sync/semaphore"
)

// writer collects replies so that they leave in one piece. It holds a buffer
// only while there is something in it, and all writers of a server share a
// budget for them.
type writer struct {
	w            io.Writer
	ctx          context.Context // ends the wait for the budget
	budget       *semaphore.Weighted
	smallP, bigP *sync.Pool // of *[smallBufLen]byte, *[largeBufLen]byte

	small *[smallBufLen]byte
	large *[largeBufLen]byte
	buf   []byte // one of the two, cut to what is in it
}

// fits says whether n bytes more can be had without a flush.
func (b *writer) fits(n int) bool { return b.buf == nil || len(b.buf)+n <= cap(b.buf) }

// extend adds n bytes, to be filled in by the caller; they must fit.
func (b *writer) extend(n int) ([]byte, error) {
	if b.buf == nil {
		if err := b.acquire(n); err != nil {
			return nil, err
		}
	}
	old := len(b.buf)
	b.buf = b.buf[:old+n]
	return b.buf[old:], nil
}

// truncate takes the last n bytes back.
func (b *writer) truncate(n int) { b.buf = b.buf[:len(b.buf)-n] }

// flush sends what there is.
func (b *writer) flush() error {
	if b.buf == nil {
		return nil
	}
	_, err := b.w.Write(b.buf)
	b.release()
	return err
}

func (b *writer) acquire(n int) error {
	size := int64(smallBufLen)
	if n > smallBufLen {
		size = largeBufLen
	}
	if err := b.budget.Acquire(b.ctx, size); err != nil {
		return context.Cause(b.ctx)
	}
	var ok bool
	if size == smallBufLen {
		if b.small, ok = b.smallP.Get().(*[smallBufLen]byte); !ok {
			b.small = new([smallBufLen]byte)
		}
		b.buf = b.small[:0]
	} else {
		if b.large, ok = b.bigP.Get().(*[largeBufLen]byte); !ok {
			b.large = new([largeBufLen]byte)
		}
		b.buf = b.large[:0]
	}
	return nil
}

// release forgets what is unsent.
func (b *writer) release() {
	switch {
	case b.small != nil:
		b.smallP.Put(b.small)
		b.budget.Release(smallBufLen)
	case b.large != nil:
		b.bigP.Put(b.large)
		b.budget.Release(largeBufLen)
	}
	b.small, b.large, b.buf = nil, nil, nil
}
