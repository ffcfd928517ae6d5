package nbd

import (
	"encoding/binary"
)

// resend sends what is left of a batch after its first sent bytes, reading
// what could not be sent from memory: the file was cut, or is gone from there.
// A read of which nothing is out can still be answered with an error; else the
// connection ends.
func (t *replier) resend(sent int64) error {
	buf, from := t.out.buf, 0
	pos := int64(0) // of the batch, at buf[from:]
	copied := make([]byte, zeroesLen)
	// plain sends a part of buf, but for what is out.
	plain := func(to int) error {
		p := buf[from:to]
		out := min(max(sent-pos, 0), int64(len(p)))
		from, pos = to, pos+int64(len(p))
		if p = p[out:]; len(p) == 0 {
			return nil
		}
		return t.sendPlain(p)
	}
	for _, m := range t.out.reads {
		if err := plain(m.at - m.head); err != nil {
			return err
		}
		if m.head > 0 && sent <= pos {
			if code := t.tryRead(m, copied); code != 0 {
				if err := t.sendPlain(m.failed(buf, code)); err != nil {
					return err
				}
				t.sums.errors++
				t.refused = true
				from, pos = m.at, pos+int64(m.head)+m.n
				continue
			}
		}
		if err := plain(m.at); err != nil {
			return err
		}
		for off := m.off + min(max(sent-pos, 0), m.n); off < m.off+m.n; {
			p := copied[:min(int64(len(copied)), m.off+m.n-off)]
			if err := t.c.readAt(p, off); err != nil {
				t.c.wireError(err, "read")
				return errTooLate(off, int64(len(p)))
			}
			if err := t.sendPlain(p); err != nil {
				return err
			}
			off += int64(len(p))
		}
		pos += m.n
	}
	return plain(len(buf))
}

// tryRead reads a range to see whether that can be done, a buffer at a time.
func (t *replier) tryRead(m mappedRead, buf []byte) uint32 {
	for off, end := m.off, m.off+m.n; off < end; off += int64(len(buf)) {
		if err := t.c.readAt(buf[:min(int64(len(buf)), end-off)], off); err != nil {
			return t.c.wireError(err, "read")
		}
	}
	return 0
}

// failed makes an error of a reply whose header is in buf.
func (m mappedRead) failed(buf []byte, code uint32) []byte {
	head := buf[m.at-m.head : m.at]
	if binary.BigEndian.Uint32(head) != magicStructured {
		p := make([]byte, replyHeaderLen)
		putReply(p, m.r.cookie, code)
		return p
	}
	// Chunks may follow: whether this is the last one is as it was.
	p := make([]byte, errorAtLen(code))
	putErrorAt(p, m.r.cookie, binary.BigEndian.Uint16(head[4:]), code, m.off)
	return p
}
