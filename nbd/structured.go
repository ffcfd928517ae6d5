package nbd

import (
	"encoding/binary"
	"errors"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// maxExtents is how many extents are asked for at once, and the most in one
// reply to NBD_CMD_BLOCK_STATUS.
const maxExtents = 256

// putChunk writes the header of a structured reply's chunk.
func putChunk(p []byte, cookie uint64, flags, typ uint16, n uint32) {
	binary.BigEndian.PutUint32(p, magicStructured)
	binary.BigEndian.PutUint16(p[4:], flags)
	binary.BigEndian.PutUint16(p[6:], typ)
	binary.BigEndian.PutUint64(p[8:], cookie)
	binary.BigEndian.PutUint32(p[16:], n)
}

// replyChunk ends r's reply, with an error or without.
func (c *conn) replyChunk(r command, code uint32) error {
	if code == 0 {
		p, err := c.reserve(chunkHeaderLen)
		if err == nil {
			putChunk(p, r.cookie, chunkDone, chunkNone, 0)
		}
		return err
	}
	text := wireText(code)
	n := 6 + len(text)
	p, err := c.reserve(chunkHeaderLen + n)
	if err != nil {
		return err
	}
	putChunk(p, r.cookie, chunkDone, chunkError, uint32(n))
	binary.BigEndian.PutUint32(p[chunkHeaderLen:], code)
	binary.BigEndian.PutUint16(p[chunkHeaderLen+4:], uint16(len(text)))
	copy(p[chunkHeaderLen+6:], text)
	return nil
}

// wireText is for people who look at their client's messages. It says no more
// than the number does.
func wireText(code uint32) string {
	switch code {
	case protocol.TRANSMISSION_ERROR_EPERM:
		return "the export is read-only"
	case protocol.TRANSMISSION_ERROR_EINVAL:
		return "outside of the export, unaligned, or not offered"
	case wireENOSPC:
		return "no space left, or past the end of the export"
	case wireEOVERFLOW:
		return "too long for one piece"
	case wireESHUTDOWN:
		return "the server shuts down"
	case wireENOTSUP:
		return "the device does not do this"
	default:
		return "the device failed, see the server's log"
	}
}

// readChunks answers NBD_CMD_READ in chunks, without what is known to be zero.
func (c *conn) readChunks(r command) error {
	left, off := int64(r.length), int64(r.offset)
	for left > 0 {
		n, zero := c.nextRange(off, left)
		flags := uint16(0)
		if n == left {
			flags = chunkDone
		}
		head := chunkHeaderLen + 8
		if zero {
			p, err := c.reserve(head + 4)
			if err != nil {
				return err
			}
			putChunk(p, r.cookie, flags, chunkHole, 12)
			binary.BigEndian.PutUint64(p[chunkHeaderLen:], uint64(off))
			binary.BigEndian.PutUint32(p[head:], uint32(n))
		} else {
			p, err := c.reserve(head + int(n))
			if err != nil {
				return err
			}
			if err := c.readAt(p[head:], off); err != nil {
				c.out.truncate(len(p))
				c.stats.Errors++
				return c.errorAt(r, c.wireError(err, "read"), off)
			}
			putChunk(p, r.cookie, flags, chunkData, uint32(8+n))
			binary.BigEndian.PutUint64(p[chunkHeaderLen:], uint64(off))
			c.stats.BytesRead += uint64(n)
		}
		left, off = left-n, off+n
	}
	return nil
}

// errorAt ends r's reply with an error that has a place.
func (c *conn) errorAt(r command, code uint32, off int64) error {
	text := wireText(code)
	n := 6 + len(text) + 8
	p, err := c.reserve(chunkHeaderLen + n)
	if err != nil {
		return err
	}
	putChunk(p, r.cookie, chunkDone, chunkErrorOffset, uint32(n))
	binary.BigEndian.PutUint32(p[chunkHeaderLen:], code)
	binary.BigEndian.PutUint16(p[chunkHeaderLen+4:], uint16(len(text)))
	copy(p[chunkHeaderLen+6:], text)
	binary.BigEndian.PutUint64(p[chunkHeaderLen+6+len(text):], uint64(off))
	return nil
}

// nextRange is what one chunk is to hold: zeroes, or data of at most pieceLen.
// Zeroes of less than blockLen count as data, a chunk has its price.
func (c *conn) nextRange(off, left int64) (n int64, zero bool) {
	data := min(left, pieceLen)
	if c.xdev == nil || left < blockLen {
		return data, false
	}
	exts, err := c.extentsAt(off, left, maxExtents)
	if err != nil {
		// Reading will tell whether something is wrong with the device.
		return data, false
	}
	for _, e := range exts {
		switch {
		case e.Zero && e.Length >= blockLen && n == 0:
			return e.Length, true
		case e.Zero && e.Length >= blockLen:
			return n, false
		}
		if n += e.Length; n >= data {
			return data, false
		}
	}
	return n, false
}

// extentsAt asks the device, and holds it to what an Extenter promises.
func (c *conn) extentsAt(off, n int64, most int) (exts []Extent, err error) {
	defer recovered(&err)
	if c.extents == nil {
		c.extents = make([]Extent, maxExtents)
	}
	m, err := c.xdev.Extents(off, n, c.extents[:most])
	if err != nil {
		return nil, err
	}
	if m <= 0 || m > most {
		return nil, errBadExtents
	}
	exts = c.extents[:m]
	for _, e := range exts {
		if e.Length <= 0 || e.Length > n {
			return nil, errBadExtents
		}
		n -= e.Length
	}
	return exts, nil
}

var errBadExtents = errors.New("nbd: the device's extents do not fit what it was asked for")

// blockStatus answers NBD_CMD_BLOCK_STATUS.
func (c *conn) blockStatus(r command) error {
	if !c.meta || c.badFlags(r, cmdFlagReqOne) || c.outside(r) || c.unaligned(r) || r.length == 0 {
		return c.done(r, protocol.TRANSMISSION_ERROR_EINVAL)
	}
	most := maxExtents
	if r.flags&cmdFlagReqOne != 0 {
		most = 1
	}
	exts, err := c.extentsAt(int64(r.offset), int64(r.length), most)
	if err != nil {
		return c.done(r, c.wireError(err, "block status"))
	}
	p, err := c.reserve(chunkHeaderLen + 4 + 8*len(exts))
	if err != nil {
		return err
	}
	putChunk(p, r.cookie, chunkDone, chunkBlockStatus, uint32(4+8*len(exts)))
	binary.BigEndian.PutUint32(p[chunkHeaderLen:], metaID)
	p = p[chunkHeaderLen+4:]
	for _, e := range exts {
		state := uint32(0)
		if e.Hole {
			state |= stateHole
		}
		if e.Zero {
			state |= stateZero
		}
		binary.BigEndian.PutUint32(p, uint32(e.Length))
		binary.BigEndian.PutUint32(p[4:], state)
		p = p[8:]
	}
	return nil
}
