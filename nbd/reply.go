package nbd

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// replier answers requests of one connection, on one goroutine: that of the
// connection or a worker's.
type replier struct {
	c       *conn
	out     writer
	extents []Extent // made when the first are asked for
	sums    replySums

	// whole is set while c.writing is held, for a reply that leaves in
	// pieces.
	whole bool
	// refused is set when a reply that was to begin with its first piece became
	// an error.
	refused bool
}

// replySums is what a replier adds to ConnStats.
type replySums struct{ errors, read, written uint64 }

func (c *conn) newReplier() replier {
	return replier{c: c, out: writer{c: c}}
}

// reserve returns n bytes at the end of the replies at hand.
func (t *replier) reserve(n int) ([]byte, error) {
	if !t.out.fits(n) {
		if err := t.flush(); err != nil {
			return nil, err
		}
	}
	return t.out.extend(n)
}

// flush sends the replies at hand.
func (t *replier) flush() error {
	if t.out.empty() {
		return nil
	}
	if !t.whole {
		t.c.writing.Lock()
		defer t.c.writing.Unlock()
	}
	err := t.send()
	if t.whole && t.c.mdev == nil {
		t.out.rewind()
	} else {
		t.out.release()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("nbd: the client does not take its replies: %w", err)
	}
	return err
}

func (t *replier) send() error {
	switch {
	case !t.out.send.can():
		return t.sendPlain(t.out.buf)
	case t.out.batch == nil:
		_, err := t.out.send.write(&t.c.srv.bufs.vecs, t.out.buf, nil)
		return err
	case !t.out.intact():
		return t.resend(0)
	}
	sent, err := t.out.send.write(&t.c.srv.bufs.vecs, t.out.buf, t.out.batch)
	if errors.Is(err, syscall.EFAULT) {
		return t.resend(sent)
	}
	return err
}

// sendPlain sends p, in whatever way the connection has.
func (t *replier) sendPlain(p []byte) error {
	c := t.c
	if c.dev != nil && c.timeout > 0 {
		_ = c.nc.SetWriteDeadline(time.Now().Add(c.timeout))
	}
	if tc, ok := c.rw.(*tls.Conn); ok {
		return c.cork.write(tc, p)
	}
	_, err := c.rw.Write(p)
	if t.out.send.can() {
		_ = c.nc.SetWriteDeadline(time.Time{}) // a sender sets one only when it waits
	}
	return err
}

// data adds a header of head bytes, to be filled in by the caller, and n bytes
// of the device after it. Where the device fails there is a code, and nothing
// was added.
func (t *replier) data(r command, head int, off, n int64) (p []byte, code uint32, err error) {
	if t.c.mdev != nil {
		p, failure, err := t.mapData(mappedRead{r: r, off: off, n: n, head: head})
		switch {
		case err != nil || failure == nil:
			return p, 0, err
		case !errors.Is(failure, errors.ErrUnsupported):
			return nil, t.c.wireError(failure, "map"), nil
		}
	}
	if p, err = t.reserve(head + int(n)); err != nil {
		return nil, 0, err
	}
	if failure := t.c.readAt(p[head:], off); failure != nil {
		t.out.truncate(len(p))
		return nil, t.c.wireError(failure, "read"), nil
	}
	return p[:head], 0, nil
}

// mapData is data without a copy. The failure is the device's.
func (t *replier) mapData(m mappedRead) (p []byte, failure, err error) {
	if !t.out.fitsMapped(m.head, m.n) {
		if err := t.flush(); err != nil {
			return nil, nil, err
		}
	}
	for {
		if p, err = t.out.extend(m.head); err != nil {
			return nil, nil, err
		}
		ok, failure := t.out.add(t.c.mdev, m)
		if ok {
			return p, nil, nil
		}
		t.out.truncate(m.head)
		if failure != nil {
			return nil, failure, nil
		}
		if err := t.flush(); err != nil { // alone it fits
			return nil, nil, err
		}
	}
}

// read answers NBD_CMD_READ.
func (t *replier) read(r command) error {
	c := t.c
	allowed := uint16(0)
	if c.structured {
		allowed = cmdFlagDF
	}
	switch {
	case c.badFlags(r, allowed), c.outside(r), c.unaligned(r):
		return t.done(r, protocol.TRANSMISSION_ERROR_EINVAL)
	case r.length > c.maxReq && r.flags&cmdFlagDF != 0:
		return t.done(r, wireEOVERFLOW)
	case r.length > c.maxReq:
		return t.done(r, protocol.TRANSMISSION_ERROR_EINVAL)
	}
	var err error
	switch {
	case r.length == 0:
		err = t.done(r, 0)
	case c.structured && r.flags&cmdFlagDF == 0:
		err = t.readChunks(r)
	case r.length > pieceLen:
		err = t.readPieces(r)
	default:
		_, err = t.readWhole(r, int64(r.length))
	}
	if err == nil && !c.readSeen.Load() && !c.readSeen.Swap(true) {
		if t := c.srv.Trace; t != nil && t.FirstRead != nil {
			t.FirstRead(c.info, c.open)
		}
	}
	return err
}

// readWhole answers with one header and the first n bytes of the data after
// it, or with an error.
func (t *replier) readWhole(r command, n int64) (failed bool, err error) {
	head := replyHeaderLen
	if t.c.structured {
		head = chunkHeaderLen + 8
	}
	p, code, err := t.data(r, head, int64(r.offset), n)
	if err != nil {
		return true, err
	}
	if code != 0 {
		return true, t.done(r, code)
	}
	if t.c.structured {
		putChunk(p, r.cookie, chunkDone, chunkData, 8+r.length)
		binary.BigEndian.PutUint64(p[chunkHeaderLen:], r.offset)
	} else {
		putReply(p, r.cookie, 0)
	}
	t.sums.read += uint64(n)
	return false, nil
}

// readPieces is readWhole for what is too long to be held at once. Nothing may
// come between the pieces.
func (t *replier) readPieces(r command) error {
	if err := t.flush(); err != nil {
		return err
	}
	if t.c.mdev == nil {
		// Before the lock, and kept to the end: who waits for the lock may hold
		// the buffers that would be waited for under it.
		if err := t.out.acquire(replyHeaderLen + pieceLen); err != nil {
			return err
		}
	}
	t.c.writing.Lock()
	t.whole, t.refused = true, false
	defer func() {
		t.whole = false
		t.out.release()
		t.c.writing.Unlock()
	}()
	failed, err := t.readWhole(r, pieceLen)
	if err == nil {
		err = t.flush()
	}
	off, end := int64(r.offset)+pieceLen, int64(r.offset)+int64(r.length)
	for err == nil && !failed && !t.refused && off < end {
		n := min(end-off, pieceLen)
		var code uint32
		if _, code, err = t.data(r, 0, off, n); err != nil {
			return err
		}
		if code != 0 {
			// The header is out: an error cannot be said any more.
			return errTooLate(off, n)
		}
		t.sums.read += uint64(n)
		off += n
		err = t.flush()
	}
	return err
}

func errTooLate(off, n int64) error {
	return fmt.Errorf("nbd: the device failed to read %d bytes at %d after the reply's header was sent, its error is in the log", n, off)
}

// done answers r, other than with data.
func (t *replier) done(r command, code uint32) error {
	if code != 0 {
		t.sums.errors++
	}
	if t.c.structured && (code != 0 || r.typ == protocol.TRANSMISSION_TYPE_REQUEST_READ) {
		return t.replyChunk(r, code)
	}
	p, err := t.reserve(replyHeaderLen)
	if err == nil {
		putReply(p, r.cookie, code)
	}
	return err
}
