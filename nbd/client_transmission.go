package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// maxSpan is the most that one request without data reaches over: a round
// number below what 32 bits hold.
const maxSpan = int64(1 << 30)

// Trim tells the server that a range is not needed any more (NBD_CMD_TRIM).
// Where the server does not offer that it fails with [errors.ErrUnsupported],
// as Zero, Cache and Extents do.
func (c *Client) Trim(off, n int64) error {
	if !c.Features().Trim {
		return unsupported("trim")
	}
	return c.inSpans(cmdTrim, 0, off, n)
}

// Zero makes a range zero (NBD_CMD_WRITE_ZEROES).
func (c *Client) Zero(off, n int64, flags ZeroFlags) error {
	f := c.Features()
	if !f.Zero || flags&ZeroFast != 0 && !f.FastZero {
		return unsupported("zero")
	}
	wire := uint16(0)
	if flags&ZeroNoHole != 0 {
		wire |= cmdFlagNoHole
	}
	if flags&ZeroFast != 0 {
		wire |= cmdFlagFastZero
	}
	return c.inSpans(cmdWriteZeroes, wire, off, n)
}

// Cache tells the server what will be read (NBD_CMD_CACHE).
func (c *Client) Cache(off, n int64) error {
	if !c.Features().Cache {
		return unsupported("cache")
	}
	return c.inSpans(cmdCache, 0, off, n)
}

func (c *Client) inSpans(typ, flags uint16, off, n int64) error {
	if err := c.inside(off, n); err != nil {
		return err
	}
	for n > 0 {
		m := min(n, maxSpan)
		if err := c.do(&exchange{typ: typ, flags: flags, off: off, n: uint32(m)}); err != nil {
			return err
		}
		off, n = off+m, n-m
	}
	return nil
}

func (c *Client) inside(off, n int64) error {
	if off < 0 || n < 0 || off > c.size || n > c.size-off {
		return fmt.Errorf("nbd: %d bytes at %d are past the end: %w", n, off, fs.ErrInvalid)
	}
	return nil
}

// Extents asks the server for holes and zeroes (NBD_CMD_BLOCK_STATUS), as
// [Extenter] says.
func (c *Client) Extents(off, n int64, dst []Extent) (int, error) {
	if !c.meta {
		return 0, unsupported("tell its extents")
	}
	if err := c.inside(off, n); err != nil || n == 0 || len(dst) == 0 {
		return 0, err
	}
	q := exchange{typ: cmdBlockStatus, off: off, n: uint32(min(n, maxSpan)), extents: dst}
	if len(dst) == 1 {
		q.flags = cmdFlagReqOne
	}
	if err := c.do(&q); err != nil {
		return 0, err
	}
	return q.found, nil
}

// exchange is a request, and what its reply brings.
type exchange struct {
	typ, flags uint16
	off        int64
	n          uint32
	data       []byte // to be written, or read into

	got     uint32   // bytes of data that came
	extents []Extent // to be filled in
	found   int
	code    uint32 // the first error
}

// do sends one request and takes its reply.
func (c *Client) do(q *exchange) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	if err := c.roundTrip(q); err != nil {
		c.err = fmt.Errorf("nbd: the connection failed: %w", unexpected(err))
		c.nc.Close()
		return c.err
	}
	if q.code != 0 {
		return fmt.Errorf("nbd: the server answered: %w", errnoOf(q.code))
	}
	return nil
}

func (c *Client) roundTrip(q *exchange) error {
	c.cookie++
	if err := c.send(q); err != nil {
		return err
	}
	for {
		// Both kinds of replies begin with as many bytes.
		h := c.hdr[:replyHeaderLen]
		if _, err := io.ReadFull(c.nc, h); err != nil {
			return err
		}
		magic, cookie := binary.BigEndian.Uint32(h), binary.BigEndian.Uint64(h[8:])
		chunked := c.structured && magic == magicStructured
		switch {
		case !chunked && magic != protocol.TRANSMISSION_MAGIC_REPLY:
			return errors.New("a reply without its magic number")
		case cookie != c.cookie:
			return fmt.Errorf("a reply to request %d, not %d", cookie, c.cookie)
		case chunked:
			flags, typ := binary.BigEndian.Uint16(h[4:]), binary.BigEndian.Uint16(h[6:])
			if err := c.chunk(q, typ); err != nil {
				return err
			}
			if flags&chunkDone == 0 {
				continue
			}
			return q.complete()
		}
		q.code = binary.BigEndian.Uint32(h[4:])
		isRead := q.typ == protocol.TRANSMISSION_TYPE_REQUEST_READ
		if c.structured && (isRead || q.typ == cmdBlockStatus) {
			return errors.New("a simple reply where a structured one was agreed on")
		}
		if q.code == 0 && isRead {
			_, err := io.ReadFull(c.nc, q.data)
			return err
		}
		return nil
	}
}

// complete checks that a structured reply without an error brought all.
func (q *exchange) complete() error {
	switch {
	case q.code != 0:
		return nil
	case q.typ == protocol.TRANSMISSION_TYPE_REQUEST_READ && q.got != q.n:
		return fmt.Errorf("a read of %d bytes was answered with %d", q.n, q.got)
	case q.typ == cmdBlockStatus && q.found == 0:
		return errors.New("no extents in the reply to a block status")
	}
	return nil
}

// chunk takes the rest of a chunk of a structured reply, from its length on.
func (c *Client) chunk(q *exchange, typ uint16) error {
	p := c.hdr[:12]
	if _, err := io.ReadFull(c.nc, p[:4]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(p)
	isRead := q.typ == protocol.TRANSMISSION_TYPE_REQUEST_READ
	switch {
	case typ == chunkNone && n == 0:
		return nil
	case typ == chunkData && isRead && n > 8, typ == chunkHole && isRead && n == 12:
		head, length := p[:8], n-8
		if typ == chunkHole {
			head = p[:12]
		}
		if _, err := io.ReadFull(c.nc, head); err != nil {
			return err
		}
		if typ == chunkHole {
			length = binary.BigEndian.Uint32(p[8:])
		}
		at := binary.BigEndian.Uint64(p) - uint64(q.off) // wraps when it is less
		if length == 0 || uint64(length) > uint64(q.n-q.got) || at > uint64(q.n)-uint64(length) {
			return errors.New("a chunk of data that was not asked for")
		}
		q.got += length
		part := q.data[at : at+uint64(length)]
		if typ == chunkHole {
			clear(part)
			return nil
		}
		_, err := io.ReadFull(c.nc, part)
		return err
	case typ == chunkBlockStatus && q.typ == cmdBlockStatus && n >= 12 && n%8 == 4 && n <= maxListLen:
		return c.takeExtents(q, n)
	case typ&chunkIsError != 0 && n >= 6 && n <= maxReplyLen:
		if _, err := io.ReadFull(c.nc, p[:4]); err != nil {
			return err
		}
		if q.code == 0 {
			q.code = max(binary.BigEndian.Uint32(p), 1)
		}
		_, err := io.CopyN(io.Discard, c.nc, int64(n-4))
		return err
	}
	return fmt.Errorf("a chunk of type %#x with %d bytes", typ, n)
}

// takeExtents takes a chunk of n bytes.
func (c *Client) takeExtents(q *exchange, n uint32) error {
	p := c.hdr[:8]
	if _, err := io.ReadFull(c.nc, p[:4]); err != nil {
		return err
	}
	if binary.BigEndian.Uint32(p) != c.metaID {
		return errors.New("extents of a context that was not asked for")
	}
	left := int64(q.n)
	for n -= 4; n > 0; n -= 8 {
		if _, err := io.ReadFull(c.nc, p); err != nil {
			return err
		}
		length, state := int64(binary.BigEndian.Uint32(p)), binary.BigEndian.Uint32(p[4:])
		if length == 0 {
			return errors.New("an extent of no length")
		}
		if left == 0 || q.found == len(q.extents) {
			continue // the last may reach further, and what is behind it is not kept
		}
		length = min(length, left)
		q.extents[q.found] = Extent{Length: length, Hole: state&stateHole != 0, Zero: state&stateZero != 0}
		q.found++
		left -= length
	}
	return nil
}

func (c *Client) send(q *exchange) error {
	h := c.hdr[:]
	binary.BigEndian.PutUint32(h, protocol.TRANSMISSION_MAGIC_REQUEST)
	binary.BigEndian.PutUint16(h[4:], q.flags)
	binary.BigEndian.PutUint16(h[6:], q.typ)
	binary.BigEndian.PutUint64(h[8:], c.cookie)
	binary.BigEndian.PutUint64(h[16:], uint64(q.off))
	binary.BigEndian.PutUint32(h[24:], q.n)
	if q.typ == protocol.TRANSMISSION_TYPE_REQUEST_WRITE {
		bufs := net.Buffers{h, q.data}
		_, err := bufs.WriteTo(c.nc)
		return err
	}
	_, err := c.nc.Write(h)
	return err
}
