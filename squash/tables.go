package squash

import (
	"encoding/binary"
	"fmt"
	"math"
	"path"
)

// indexEntry leads a reader to the run of a listing in which a name may be.
type indexEntry struct {
	offset uint32 // in the listing
	piece  uint32 // in the directory table
	name   string
}

// indexEvery is the distance in bytes of listing between index entries.
const indexEvery = metaSize

// tables writes the inode and the directory table.
type tables struct {
	inodes metaWriter
	dirs   metaWriter
	ids    map[uint32]uint16
	idList []byte
	export []byte
	buf    []byte
}

func newTables(enc Encoder, inodes uint32) *tables {
	return &tables{
		inodes: metaWriter{enc: enc},
		dirs:   metaWriter{enc: enc},
		ids:    make(map[uint32]uint16),
		export: make([]byte, 8*int(inodes)),
	}
}

// dir writes everything below d, its listing and its inode, which stands beside
// those of its files: who opens one of them for the first time needs both, and
// has them with one piece.
func (t *tables) dir(name string, d *inode) error {
	for _, e := range d.dir.entries {
		if e.ino.kind == kindDir {
			if err := t.dir(path.Join(name, e.name), e.ino); err != nil {
				return err
			}
		}
	}
	for _, e := range d.dir.entries {
		if e.ino.kind == kindDir {
			continue
		}
		if err := t.inode(path.Join(name, e.name), e.ino); err != nil {
			return err
		}
	}
	if err := t.listing(name, d); err != nil {
		return err
	}
	return t.inode(name, d)
}

// listing writes a directory's names: runs of entries that share a piece of
// the inode table and a base number.
func (t *tables) listing(name string, d *inode) error {
	le := binary.LittleEndian
	entries := d.dir.entries
	if len(entries) == 0 {
		return nil
	}
	d.dir.pos = t.dirs.pos()
	off, indexed := 0, 0
	for len(entries) > 0 {
		if off-indexed >= indexEvery && len(d.dir.index) < math.MaxUint16 {
			d.dir.index = append(d.dir.index, indexEntry{uint32(off), uint32(t.dirs.pos() >> 16), entries[0].name})
			indexed = off
		}
		base := entries[0].ino
		n, size := 0, 12
		for _, e := range entries {
			delta := int64(e.ino.number) - int64(base.number)
			if n == maxRun || e.ino.ref>>16 != base.ref>>16 || delta != int64(int16(delta)) ||
				n > 0 && off+size-indexed >= indexEvery {
				break
			}
			n++
			size += 8 + len(e.name)
		}
		b := le.AppendUint32(t.buf[:0], uint32(n-1))
		b = le.AppendUint32(b, uint32(base.ref>>16))
		b = le.AppendUint32(b, base.number)
		for _, e := range entries[:n] {
			b = le.AppendUint16(b, uint16(e.ino.ref))
			b = le.AppendUint16(b, uint16(e.ino.number-base.number))
			b = le.AppendUint16(b, e.ino.kind)
			b = le.AppendUint16(b, uint16(len(e.name)-1))
			b = append(b, e.name...)
		}
		t.dirs.write(b)
		t.buf = b
		off += size
		entries = entries[n:]
	}
	if int64(off) > math.MaxUint32-3 || t.dirs.pos()>>16 > math.MaxUint32 {
		return entryError(name, fmt.Errorf("its listing of %d bytes is more than SquashFS can address", off))
	}
	d.dir.size = uint32(off)
	return nil
}

// id returns the index of an owner or a group in the id table.
func (t *tables) id(id uint32) (uint16, error) {
	if i, ok := t.ids[id]; ok {
		return i, nil
	}
	if len(t.ids) == maxIDs {
		return 0, fmt.Errorf("the tree has more than %d different owners and groups, which SquashFS cannot hold", maxIDs)
	}
	i := uint16(len(t.ids))
	t.ids[id] = i
	t.idList = binary.LittleEndian.AppendUint32(t.idList, id)
	return i, nil
}

// inode writes an inode unless another link to it came first.
func (t *tables) inode(name string, n *inode) error {
	if n.written {
		return nil
	}
	n.written = true
	uid, err := t.id(n.uid)
	if err != nil {
		return entryError(name, err)
	}
	gid, err := t.id(n.gid)
	if err != nil {
		return entryError(name, err)
	}
	n.ref = t.inodes.pos()
	if n.ref>>16 > math.MaxUint32 {
		return entryError(name, fmt.Errorf("the inode table is larger than SquashFS can address"))
	}
	le := binary.LittleEndian
	le.PutUint64(t.export[8*(n.number-1):], n.ref)

	b := le.AppendUint16(t.buf[:0], n.kind) // corrected below for extended ones
	b = le.AppendUint16(b, n.perm)
	b = le.AppendUint16(b, uid)
	b = le.AppendUint16(b, gid)
	b = le.AppendUint32(b, n.mtime)
	b = le.AppendUint32(b, n.number)
	switch n.kind {
	case kindDir:
		b = appendDir(b, n)
	case kindFile:
		b = appendFile(b, n)
	case kindSymlink:
		b = le.AppendUint32(b, n.nlink)
		b = le.AppendUint32(b, uint32(len(n.target)))
		b = append(b, n.target...)
		b = appendXattr(b, n)
	case kindBlock, kindChar:
		b = le.AppendUint32(b, n.nlink)
		b = le.AppendUint32(b, n.device)
		b = appendXattr(b, n)
	case kindFIFO, kindSocket:
		b = le.AppendUint32(b, n.nlink)
		b = appendXattr(b, n)
	}
	t.inodes.write(b)
	t.buf = b
	return nil
}

// appendXattr makes the inode an extended one if it has attributes.
func appendXattr(b []byte, n *inode) []byte {
	if n.xattr == none32 {
		return b
	}
	binary.LittleEndian.PutUint16(b, n.kind+extended)
	return binary.LittleEndian.AppendUint32(b, n.xattr)
}

func appendDir(b []byte, n *inode) []byte {
	le := binary.LittleEndian
	d := n.dir
	size := d.size + 3 // the size field counts the two dot entries that are not stored
	piece, off := uint32(d.pos>>16), uint16(d.pos)
	if size <= math.MaxUint16 && len(d.index) == 0 && n.xattr == none32 {
		b = le.AppendUint32(b, piece)
		b = le.AppendUint32(b, n.nlink)
		b = le.AppendUint16(b, uint16(size))
		b = le.AppendUint16(b, off)
		return le.AppendUint32(b, d.parent)
	}
	le.PutUint16(b, kindDir+extended)
	b = le.AppendUint32(b, n.nlink)
	b = le.AppendUint32(b, size)
	b = le.AppendUint32(b, piece)
	b = le.AppendUint32(b, d.parent)
	b = le.AppendUint16(b, uint16(len(d.index)))
	b = le.AppendUint16(b, off)
	b = le.AppendUint32(b, n.xattr)
	for _, e := range d.index {
		b = le.AppendUint32(b, e.offset)
		b = le.AppendUint32(b, e.piece)
		b = le.AppendUint32(b, uint32(len(e.name)-1))
		b = append(b, e.name...)
	}
	return b
}

func appendFile(b []byte, n *inode) []byte {
	le := binary.LittleEndian
	// The basic form has no link count and 32 bits for size and start. Holes
	// would do with it, but only the extended form lets du see them.
	if n.nlink == 1 && n.sparse == 0 && n.xattr == none32 && n.size <= math.MaxUint32 && n.start <= math.MaxUint32 {
		b = le.AppendUint32(b, uint32(n.start))
		b = le.AppendUint32(b, n.frag)
		b = le.AppendUint32(b, n.fragOff)
		b = le.AppendUint32(b, uint32(n.size))
	} else {
		le.PutUint16(b, kindFile+extended)
		b = le.AppendUint64(b, uint64(n.start))
		b = le.AppendUint64(b, uint64(n.size))
		b = le.AppendUint64(b, uint64(n.sparse))
		b = le.AppendUint32(b, n.nlink)
		b = le.AppendUint32(b, n.frag)
		b = le.AppendUint32(b, n.fragOff)
		b = le.AppendUint32(b, n.xattr)
	}
	for _, w := range n.words {
		b = le.AppendUint32(b, w)
	}
	return b
}
