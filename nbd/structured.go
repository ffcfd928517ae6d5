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
func (t *replier) replyChunk(r command, code uint32) error {
	if code == 0 {
		p, err := t.reserve(chunkHeaderLen)
		if err == nil {
			putChunk(p, r.cookie, chunkDone, chunkNone, 0)
		}
		return err
	}
	text := wireText(code)
	n := 6 + len(text)
	p, err := t.reserve(chunkHeaderLen + n)
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
func (t *replier) readChunks(r command) error {
	left, off := int64(r.length), int64(r.offset)
	for left > 0 {
		n, zero := t.nextRange(off, left)
		flags := uint16(0)
		if n == left {
			flags = chunkDone
		}
		head := chunkHeaderLen + 8
		if zero {
			p, err := t.reserve(head + 4)
			if err != nil {
				return err
			}
			putChunk(p, r.cookie, flags, chunkHole, 12)
			binary.BigEndian.PutUint64(p[chunkHeaderLen:], uint64(off))
			binary.BigEndian.PutUint32(p[head:], uint32(n))
		} else {
			p, code, err := t.data(r, head, off, n)
			if err != nil {
				return err
			}
			if code != 0 {
				t.sums.errors++
				return t.errorAt(r, code, off)
			}
			putChunk(p, r.cookie, flags, chunkData, uint32(8+n))
			binary.BigEndian.PutUint64(p[chunkHeaderLen:], uint64(off))
			t.sums.read += uint64(n)
		}
		left, off = left-n, off+n
	}
	return nil
}

// errorAt ends r's reply with an error that has a place.
func (t *replier) errorAt(r command, code uint32, off int64) error {
	p, err := t.reserve(errorAtLen(code))
	if err == nil {
		putErrorAt(p, r.cookie, chunkDone, code, off)
	}
	return err
}

func errorAtLen(code uint32) int { return chunkHeaderLen + 6 + len(wireText(code)) + 8 }

func putErrorAt(p []byte, cookie uint64, flags uint16, code uint32, off int64) {
	text := wireText(code)
	putChunk(p, cookie, flags, chunkErrorOffset, uint32(6+len(text)+8))
	binary.BigEndian.PutUint32(p[chunkHeaderLen:], code)
	binary.BigEndian.PutUint16(p[chunkHeaderLen+4:], uint16(len(text)))
	copy(p[chunkHeaderLen+6:], text)
	binary.BigEndian.PutUint64(p[chunkHeaderLen+6+len(text):], uint64(off))
}

// nextRange is what one chunk is to hold: zeroes, or data of at most pieceLen.
// Zeroes of less than blockLen count as data, a chunk has its price.
func (t *replier) nextRange(off, left int64) (n int64, zero bool) {
	data := min(left, pieceLen)
	if t.c.xdev == nil || left < blockLen {
		return data, false
	}
	exts, err := t.extentsAt(off, left, maxExtents)
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
func (t *replier) extentsAt(off, n int64, most int) (exts []Extent, err error) {
	defer recovered(&err)
	if t.extents == nil {
		t.extents = make([]Extent, maxExtents)
	}
	m, err := t.c.xdev.Extents(off, n, t.extents[:most])
	if err != nil {
		return nil, err
	}
	if m <= 0 || m > most {
		return nil, errBadExtents
	}
	exts = t.extents[:m]
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
func (t *replier) blockStatus(r command) error {
	if !t.c.meta || t.c.badFlags(r, cmdFlagReqOne) || t.c.outside(r) || t.c.unaligned(r) || r.length == 0 {
		return t.done(r, protocol.TRANSMISSION_ERROR_EINVAL)
	}
	most := maxExtents
	if r.flags&cmdFlagReqOne != 0 {
		most = 1
	}
	exts, err := t.extentsAt(int64(r.offset), int64(r.length), most)
	if err != nil {
		return t.done(r, t.c.wireError(err, "block status"))
	}
	p, err := t.reserve(chunkHeaderLen + 4 + 8*len(exts))
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
