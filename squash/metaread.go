package squash

import (
	"encoding/binary"
	"math"
)

// piece returns the decoded metadata piece at an absolute offset; its bytes
// must end before end.
func (f *FS) piece(off, end int64) (*cached, error) {
	e, err := f.metas.get(off, f.loadPiece)
	if err != nil {
		return nil, err
	}
	if e.next > end {
		return nil, badFormat(off, "a metadata piece runs over its table's end at byte %d", end)
	}
	return e, nil
}

func (f *FS) loadPiece(e *cached) error {
	buf := f.buffer()
	defer f.scratch.Put(buf)
	// Header and body in one read, which costs one round trip on a network.
	in := (*buf)[:min(metaSize+2, int64(f.sb.Used)-e.off)]
	if len(in) < 2 {
		return badFormat(e.off, "a metadata piece at the end of the image")
	}
	if err := f.readAt(in, e.off, "metadata"); err != nil {
		return err
	}
	header := binary.LittleEndian.Uint16(in)
	n := int(header &^ rawMeta)
	if n == 0 || n > metaSize || n > len(in)-2 {
		return badFormat(e.off, "a metadata piece of %d bytes", n)
	}
	in = in[2 : 2+n]
	e.next = e.off + 2 + int64(n)
	if header&rawMeta != 0 {
		e.data = append([]byte(nil), in...)
		return nil
	}
	out, err := f.dec.decode(make([]byte, 0, metaSize+slack), in, metaSize)
	if err != nil {
		return &FormatError{Offset: e.off, Msg: "a metadata piece does not decode", Err: err}
	}
	if len(out) == 0 {
		return badFormat(e.off, "an empty metadata piece")
	}
	e.data = out
	return nil
}

// lookup returns the rest of the piece in which byte i of a lookup table's
// records lies. list is where the table's list of offsets begins.
func (f *FS) lookup(list, i int64, what string) ([]byte, error) {
	// The list is cached in pages of 512 offsets, under keys that no piece
	// has, for a piece never begins in a list.
	slot := list + i/metaSize*8
	page := list + i/metaSize/512*4096
	e, err := f.metas.get(-page, func(e *cached) error {
		n := min(4096, int64(f.sb.Used)-page)
		if n < 8 {
			return badFormat(page, "%s lies outside the image", what)
		}
		e.data = make([]byte, n)
		return f.readAt(e.data, page, what)
	})
	if err != nil {
		return nil, err
	}
	if int64(len(e.data)) < slot-page+8 {
		return nil, badFormat(slot, "%s lies outside the image", what)
	}
	off := binary.LittleEndian.Uint64(e.data[slot-page:])
	if off < superSize || off >= uint64(list) {
		return nil, badFormat(slot, "%s points to byte %d", what, off)
	}
	p, err := f.piece(int64(off), list)
	if err != nil {
		return nil, err
	}
	if i%metaSize >= int64(len(p.data)) {
		return nil, badFormat(int64(off), "%s is too short", what)
	}
	return p.data[i%metaSize:], nil
}

// cursor reads records of the inode or the directory table, which run across
// pieces.
type cursor struct {
	f    *FS
	end  int64 // of the table
	off  int64 // of the piece in data
	next int64 // of the piece after it
	data []byte
	pos  int
	tmp  []byte
}

// seek goes to a place given as the superblock and the inodes do.
func (c *cursor) seek(start int64, piece uint64, pos int) error {
	if piece > math.MaxUint32 || start+int64(piece) >= c.end {
		return badFormat(start, "a reference to byte %d of a table of %d", piece, c.end-start)
	}
	return c.open(start+int64(piece), pos)
}

func (c *cursor) open(off int64, pos int) error {
	p, err := c.f.piece(off, c.end)
	if err != nil {
		return err
	}
	if pos > len(p.data) {
		return badFormat(off, "a reference to byte %d of a metadata piece of %d", pos, len(p.data))
	}
	c.off, c.next, c.data, c.pos = off, p.next, p.data, pos
	return nil
}

// take returns the next n bytes, which are good until the next call.
func (c *cursor) take(n int) ([]byte, error) {
	if len(c.data)-c.pos >= n {
		p := c.data[c.pos : c.pos+n]
		c.pos += n
		return p, nil
	}
	c.tmp = c.tmp[:0]
	for {
		k := min(n-len(c.tmp), len(c.data)-c.pos)
		c.tmp = append(c.tmp, c.data[c.pos:c.pos+k]...)
		c.pos += k
		if len(c.tmp) == n {
			return c.tmp, nil
		}
		if c.next >= c.end {
			return nil, badFormat(c.off, "a record runs over its table's end at byte %d", c.end)
		}
		if err := c.open(c.next, 0); err != nil {
			return nil, err
		}
	}
}
