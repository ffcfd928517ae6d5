package squash

import "encoding/binary"

// metaWriter collects one metadata table: pieces of 8 KiB, each compressed by
// itself, with records that run across the pieces.
type metaWriter struct {
	enc Encoder
	buf []byte // not yet a whole piece
	out []byte // pieces
	tmp []byte
	err error // the first of the encoder's
}

// pos is where the next byte goes: the piece's offset in the table and the
// place in the piece, as inode references hold them.
func (m *metaWriter) pos() uint64 { return uint64(len(m.out))<<16 | uint64(len(m.buf)) }

func (m *metaWriter) write(p []byte) {
	for len(p) > 0 {
		n := min(len(p), metaSize-len(m.buf))
		m.buf = append(m.buf, p[:n]...)
		p = p[n:]
		if len(m.buf) == metaSize {
			m.flush()
		}
	}
}

func (m *metaWriter) flush() {
	if len(m.buf) == 0 || m.err != nil {
		return
	}
	m.tmp, m.err = m.enc.Encode(m.tmp[:0], m.buf)
	piece, header := m.tmp, uint16(len(m.tmp))
	if len(m.tmp) >= len(m.buf) {
		piece, header = m.buf, uint16(len(m.buf))|rawMeta
	}
	m.out = binary.LittleEndian.AppendUint16(m.out, header)
	m.out = append(m.out, piece...)
	m.buf = m.buf[:0]
}

// lookupPieces renders a table of fixed-size records that begins at off in
// the image: the pieces, and the list of their offsets.
func lookupPieces(enc Encoder, records []byte, off int64) (pieces, list []byte, err error) {
	m := metaWriter{enc: enc}
	for len(records) > 0 {
		n := min(len(records), metaSize)
		list = binary.LittleEndian.AppendUint64(list, uint64(off)+uint64(len(m.out)))
		m.write(records[:n])
		m.flush()
		records = records[n:]
	}
	return m.out, list, m.err
}
