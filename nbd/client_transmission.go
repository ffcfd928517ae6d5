package nbd

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

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
		if _, err := c.do(exchange{typ: typ, flags: flags, off: off, n: uint32(m)}); err != nil {
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
	return c.do(q)
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
	p := c.in[:12]
	if _, err := io.ReadFull(c.rd, p[:4]); err != nil {
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
		if _, err := io.ReadFull(c.rd, head); err != nil {
			return err
		}
		if typ == chunkHole {
			length = binary.BigEndian.Uint32(p[8:])
		}
		at := binary.BigEndian.Uint64(p) - uint64(q.off) // wraps when it is less
		if length == 0 || length > q.n || at > uint64(q.n-length) || !q.place(uint32(at), length) {
			return errors.New("a chunk of data that was not asked for, or came before")
		}
		part := q.data[at : at+uint64(length)]
		if typ == chunkHole {
			clear(part)
			return nil
		}
		_, err := io.ReadFull(c.rd, part)
		return err
	case typ == chunkBlockStatus && q.typ == cmdBlockStatus && n >= 12 && n%8 == 4 && n <= maxListLen:
		return c.takeExtents(q, n)
	case typ&chunkIsError != 0 && n >= 6 && n <= maxReplyLen:
		if _, err := io.ReadFull(c.rd, p[:4]); err != nil {
			return err
		}
		if q.code == 0 {
			q.code = max(binary.BigEndian.Uint32(p), 1)
		}
		_, err := io.CopyN(io.Discard, c.rd, int64(n-4))
		return err
	}
	return fmt.Errorf("a chunk of type %#x with %d bytes", typ, n)
}

// place notes that n bytes came for a place in data. It is false for one that
// came before, which would leave another as it was.
func (q *exchange) place(at, n uint32) bool {
	end := at + n
	i, _ := slices.BinarySearchFunc(q.apart, at, func(p span, at uint32) int { return cmp.Compare(p.from, at) })
	behind := i < len(q.apart) // apart[i] begins where this does, or behind it
	if at < q.got || i > 0 && q.apart[i-1].to > at || behind && q.apart[i].from < end {
		return false
	}
	joined := behind && q.apart[i].from == end
	switch {
	case at == q.got:
		if q.got = end; joined {
			q.got, q.apart = q.apart[0].to, q.apart[1:]
		}
	case i > 0 && q.apart[i-1].to == at:
		if q.apart[i-1].to = end; joined {
			q.apart[i-1].to = q.apart[i].to
			q.apart = slices.Delete(q.apart, i, i+1)
		}
	case joined:
		q.apart[i].from = at
	case len(q.apart) == maxApart:
		return false // no server has reason to
	default:
		q.apart = slices.Insert(q.apart, i, span{at, end})
	}
	return true
}

// takeExtents takes a chunk of n bytes.
func (c *Client) takeExtents(q *exchange, n uint32) error {
	p := c.in[:8]
	if _, err := io.ReadFull(c.rd, p[:4]); err != nil {
		return err
	}
	if binary.BigEndian.Uint32(p) != c.metaID {
		return errors.New("extents of a context that was not asked for")
	}
	left := int64(q.n)
	for n -= 4; n > 0; n -= 8 {
		if _, err := io.ReadFull(c.rd, p); err != nil {
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
