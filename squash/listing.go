package squash

import (
	"bytes"
	"encoding/binary"
	"io/fs"
)

// dirent is an entry of a directory.
type dirent struct {
	name   string
	ref    uint64
	number uint32
	kind   uint16
	at     uint32 // offset in the listing
}

// listing reads a directory's entries one by one.
type listing struct {
	c     cursor
	left  int64 // bytes of listing not read yet
	at    uint32
	run   uint32 // entries left under the header
	piece uint32
	base  uint32
	name  []byte // of the last entry; with ref, number, kind
	ref   uint64
	num   uint32
	kind  uint16
	pos   uint32
	prev  [maxRun]byte
}

func (f *FS) listing(d *node) (*listing, error) {
	l := &listing{c: cursor{f: f, end: f.dirEnd()}}
	if d.size <= 3 {
		return l, nil
	}
	l.left = d.size - 3
	return l, l.c.seek(int64(f.sb.DirStart), uint64(d.piece), int(d.offset))
}

// next goes to the next entry. Names must rise, as readers that search rely
// on it; that also rules out that a name occurs twice.
func (l *listing) next() (bool, error) {
	le := binary.LittleEndian
	prev := append(l.prev[:0], l.name...) // before take may overwrite it
	if l.run == 0 {
		if l.left == 0 {
			return false, nil
		}
		b, err := l.take(12)
		if err != nil {
			return false, err
		}
		l.run, l.piece, l.base = le.Uint32(b)+1, le.Uint32(b[4:]), le.Uint32(b[8:])
		if l.run == 0 || l.run > maxRun {
			return false, badFormat(l.c.off, "%d directory entries under one header", l.run)
		}
	}
	l.pos = l.at
	b, err := l.take(8)
	if err != nil {
		return false, err
	}
	l.run--
	l.ref = uint64(l.piece)<<16 | uint64(le.Uint16(b))
	l.num = l.base + uint32(int32(int16(le.Uint16(b[2:]))))
	l.kind = le.Uint16(b[4:])
	size := int(le.Uint16(b[6:])) + 1
	if l.kind < kindDir || l.kind > kindSocket || size > maxRun {
		return false, badFormat(l.c.off, "a directory entry of type %d with a name of %d bytes", l.kind, size)
	}
	if l.name, err = l.take(size); err != nil {
		return false, err
	}
	if bytes.IndexByte(l.name, '/') >= 0 || bytes.IndexByte(l.name, 0) >= 0 || string(l.name) == "." || string(l.name) == ".." {
		return false, badFormat(l.c.off, "a directory entry with the name %q", l.name)
	}
	if bytes.Compare(prev, l.name) >= 0 {
		return false, badFormat(l.c.off, "the directory entry %q after %q", l.name, prev)
	}
	return true, nil
}

func (l *listing) take(n int) ([]byte, error) {
	if l.left < int64(n) {
		return nil, badFormat(l.c.off, "a directory entry runs over its listing's end")
	}
	l.left -= int64(n)
	l.at += uint32(n)
	return l.c.take(n)
}

func (l *listing) dirent() dirent {
	return dirent{name: string(l.name), ref: l.ref, number: l.num, kind: l.kind, at: l.pos}
}

// find looks for one name in a directory, through the index if there is one.
func (f *FS) find(d *node, name string) (dirent, error) {
	l, err := f.listing(d)
	if err != nil {
		return dirent{}, err
	}
	if d.indexes > 0 && l.left > 0 {
		if err := f.findRun(d, name, l); err != nil {
			return dirent{}, err
		}
	}
	for {
		ok, err := l.next()
		if err != nil {
			return dirent{}, err
		}
		if !ok || string(l.name) > name {
			return dirent{}, fs.ErrNotExist
		}
		if string(l.name) == name {
			return l.dirent(), nil
		}
	}
}

// findRun moves l to the last run in the index that begins at or before name.
func (f *FS) findRun(d *node, name string, l *listing) error {
	c := f.inodes()
	if err := c.open(d.indexAt, d.indexIn); err != nil {
		return err
	}
	var off, piece uint32
	for range d.indexes {
		b, err := c.take(12)
		if err != nil {
			return err
		}
		o, p, size := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), int64(binary.LittleEndian.Uint32(b[8:]))+1
		if size > maxRun {
			return badFormat(c.off, "a directory index with a name of %d bytes", size)
		}
		if b, err = c.take(int(size)); err != nil {
			return err
		}
		if string(b) > name {
			break
		}
		off, piece = o, p
	}
	if off == 0 {
		return nil
	}
	if int64(off) >= l.left {
		return badFormat(c.off, "a directory index that points to byte %d of a listing of %d", off, l.left)
	}
	l.left -= int64(off)
	l.at = off
	return l.c.seek(int64(f.sb.DirStart), uint64(piece), int((int64(d.offset)+int64(off))%metaSize))
}

// child reads the inode of an entry of d and checks that the two agree.
func (f *FS) child(d *node, e dirent) (*node, error) {
	n, err := f.readInode(e.ref)
	if err != nil {
		return nil, err
	}
	if n.kind != e.kind || n.number != e.number {
		return nil, badFormat(int64(f.sb.InodeStart), "the entry %q has type %d and number %d, its inode %d and %d", e.name, e.kind, e.number, n.kind, n.number)
	}
	if n.kind == kindDir {
		return n, f.claimDir(n, d.ref, e.at)
	}
	return n, nil
}

// claim is the one entry through which a directory is reached.
type claim struct {
	ref, parent uint64
	at          uint32
}

// claimDir refuses a directory that was reached through another entry before.
// Without that, a damaged image could hold a loop, or so many names for one
// directory that a walk never ends.
func (f *FS) claimDir(n *node, parent uint64, at uint32) error {
	c := claim{n.ref, parent, at}
	f.mu.Lock()
	defer f.mu.Unlock()
	if old, ok := f.claims[n.number]; ok {
		if old != c {
			return badFormat(int64(f.sb.InodeStart), "directory %d stands in two places", n.number)
		}
		return nil
	}
	f.claims[n.number] = c
	return nil
}
