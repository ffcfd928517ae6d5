package nbd

import (
	"errors"
	"sync"
)

// writer collects replies so that they leave in one system call: headers and
// copied data in a buffer, and between them segments of memory that are sent
// from where they are. It holds a buffer only while there is something in it,
// and all writers of a server share a budget for them.
type writer struct {
	c    *conn
	send sender

	least int    // the smallest buffer worth taking
	extra int64  // what sending takes, beside the buffer
	buf   []byte // of one of the pools, cut to what is in it

	*batch // nil: nothing is mapped
}

// batch is what a writer needs for segments.
type batch struct {
	reads  []mappedRead
	segs   []Segment
	mapped int64 // bytes of segs
	vecs   int   // vectors that reads and segs take
	files  []mappedFile
}

// mappedRead is the data of a reply, or a part of it, as segments.
type mappedRead struct {
	r      command
	off, n int64 // of the device
	head   int   // length of the header before it; 0: it went before
	at     int   // the segments come after buf[:at]
	segs   int   // how many
}

// mappedFile is a file in a batch and how long it has to be.
type mappedFile struct {
	m   *Mapping
	end int64
}

// bufPools are the buffers of a Server.
type bufPools struct{ read, head, small, large, batch, vecs sync.Pool }

func (b *writer) empty() bool { return b.buf == nil }

// fits says whether n bytes more can be had without a flush.
func (b *writer) fits(n int) bool { return b.buf == nil || len(b.buf)+n <= cap(b.buf) }

// fitsMapped is fits for head bytes and then n mapped ones.
func (b *writer) fitsMapped(head int, n int64) bool {
	return b.fits(head) && (b.batch == nil || b.mapped+n <= pieceLen && b.vecs+2 < maxVecs)
}

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

// add puts what dev.Map gives for m.n bytes at m.off after what is in the
// buffer. False is that there are too many segments for what is there already.
func (b *writer) add(dev Mapper, m mappedRead) (ok bool, err error) {
	if b.batch == nil {
		if b.batch, ok = b.c.srv.bufs.batch.Get().(*batch); !ok {
			b.batch = new(batch)
		}
	}
	old := len(b.segs)
	b.segs, err = mapDevice(dev, m.off, m.n, b.segs)
	vecs, length := 1, int64(0)
	for i := old; i < len(b.segs); i++ {
		s := &b.segs[i]
		if s.Len() <= 0 {
			err = errBadSegments
			break
		}
		length += s.Len()
		vecs++
		if s.Data == nil {
			vecs += int((s.Zeroes - 1) / zeroesLen)
		}
	}
	if err == nil && length != m.n {
		err = errBadSegments
	}
	if err != nil || len(b.reads) > 0 && b.vecs+vecs >= maxVecs {
		releaseSegments(b.segs[old:])
		b.segs = b.segs[:old]
		return false, err
	}
	for i := old; i < len(b.segs); i++ {
		b.note(&b.segs[i])
	}
	m.at, m.segs = len(b.buf), len(b.segs)-old
	b.reads = append(b.reads, m)
	b.mapped += m.n
	b.vecs += vecs
	return true, nil
}

var errBadSegments = errors.New("nbd: the device's segments are not as long as what it was asked for")

// mapDevice calls a foreign Map.
func mapDevice(dev Mapper, off, n int64, dst []Segment) (segs []Segment, err error) {
	segs = dst
	defer recovered(&err)
	return dev.Map(off, n, dst)
}

func (b *batch) note(s *Segment) {
	if s.m == nil {
		return
	}
	for i := range b.files {
		if f := &b.files[i]; f.m == s.m {
			f.end = max(f.end, s.end)
			return
		}
	}
	b.files = append(b.files, mappedFile{s.m, s.end})
}

// intact says whether no file was cut since it was mapped. Should that happen
// right after, sending fails.
func (b *batch) intact() bool {
	for _, f := range b.files {
		if !f.m.reaches(f.end) {
			return false
		}
	}
	return true
}

// budgeted is what a buffer takes of the budget. Those for headers take none: a
// connection has one, and with it goes on when others have used up the budget.
func (b *writer) budgeted(size int64) int64 {
	if size == headBufLen {
		return b.extra
	}
	return size + b.extra
}

func (b *writer) acquire(n int) error {
	n = max(n, b.least)
	size := int64(headBufLen)
	switch {
	case n > smallBufLen:
		size = largeBufLen
	case n > headBufLen/4:
		size = smallBufLen
	}
	if err := b.c.srv.budget.take(b.c.ctx, &b.c.share, b.budgeted(size)); err != nil {
		return err
	}
	switch size {
	case headBufLen:
		p, ok := b.c.srv.bufs.head.Get().(*[headBufLen]byte)
		if !ok {
			p = new([headBufLen]byte)
		}
		b.buf = p[:0]
	case smallBufLen:
		p, ok := b.c.srv.bufs.small.Get().(*[smallBufLen]byte)
		if !ok {
			p = new([smallBufLen]byte)
		}
		b.buf = p[:0]
	default:
		p, ok := b.c.srv.bufs.large.Get().(*[largeBufLen]byte)
		if !ok {
			p = new([largeBufLen]byte)
		}
		b.buf = p[:0]
	}
	return nil
}

// rewind forgets what is in the buffer and keeps that. Nothing is mapped.
func (b *writer) rewind() { b.buf = b.buf[:0] }

// release forgets what is unsent.
func (b *writer) release() {
	if b.batch != nil {
		releaseSegments(b.segs)
		clear(b.files)
		b.reads, b.segs, b.files = b.reads[:0], b.segs[:0], b.files[:0]
		b.mapped, b.vecs = 0, 0
		b.c.srv.bufs.batch.Put(b.batch)
		b.batch = nil
	}
	if b.buf == nil {
		return
	}
	size := cap(b.buf)
	switch size {
	case headBufLen:
		b.c.srv.bufs.head.Put((*[headBufLen]byte)(b.buf[:size]))
	case smallBufLen:
		b.c.srv.bufs.small.Put((*[smallBufLen]byte)(b.buf[:size]))
	default:
		b.c.srv.bufs.large.Put((*[largeBufLen]byte)(b.buf[:size]))
	}
	b.c.srv.budget.give(&b.c.share, b.budgeted(int64(size)))
	b.buf = nil
}
