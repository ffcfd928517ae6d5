package squash

import (
	"encoding/binary"
	"io/fs"
	"math"
	"time"
)

// node is an inode as an image holds it.
type node struct {
	ref    uint64
	kind   uint16 // basic type
	perm   uint16
	uid    uint32
	gid    uint32
	mtime  uint32
	number uint32
	nlink  uint32
	device uint32
	xattr  uint32 // index of the set, none32 for none
	size   int64
	target string

	// A regular file's data; the words stand at wordOff, wordPos.
	start   int64
	frag    uint32
	fragOff uint32
	wordOff int64
	wordPos int

	// A directory's listing, and where its index stands.
	piece   uint32
	offset  uint16
	indexes int
	indexAt int64
	indexIn int
}

func (f *FS) inodes() cursor { return cursor{f: f, end: int64(f.sb.DirStart)} }

func (f *FS) readInode(ref uint64) (*node, error) {
	c := f.inodes()
	if err := c.seek(int64(f.sb.InodeStart), ref>>16, int(ref&0xffff)); err != nil {
		return nil, err
	}
	at := c.off
	le := binary.LittleEndian
	b, err := c.take(16)
	if err != nil {
		return nil, err
	}
	typ := le.Uint16(b)
	n := &node{ref: ref, perm: le.Uint16(b[2:]), mtime: le.Uint32(b[8:]), number: le.Uint32(b[12:]), nlink: 1, frag: none32, xattr: none32}
	uid, gid := int(le.Uint16(b[4:])), int(le.Uint16(b[6:]))
	switch {
	case typ < kindDir || typ > kindSocket+extended:
		return nil, badFormat(at, "an inode of type %d", typ)
	case n.perm > 0o7777:
		return nil, badFormat(at, "an inode with mode %#o", n.perm)
	case uid >= len(f.ids) || gid >= len(f.ids):
		return nil, badFormat(at, "an inode with owner %d and group %d of %d", uid, gid, len(f.ids))
	case n.number == 0 || n.number > f.sb.Inodes:
		return nil, badFormat(at, "an inode with number %d of %d", n.number, f.sb.Inodes)
	}
	n.uid, n.gid, n.kind = f.ids[uid], f.ids[gid], typ
	if typ > extended {
		n.kind -= extended
	}
	switch n.kind {
	case kindDir:
		err = f.readDirBody(&c, n, typ > extended)
	case kindFile:
		err = f.readFileBody(&c, n, typ > extended)
	default:
		err = readOtherBody(&c, n, typ > extended)
	}
	if err != nil {
		return nil, err
	}
	return n, nil
}

func (f *FS) readDirBody(c *cursor, n *node, ext bool) error {
	le := binary.LittleEndian
	if !ext {
		b, err := c.take(16)
		if err != nil {
			return err
		}
		n.piece, n.nlink, n.size, n.offset = le.Uint32(b), le.Uint32(b[4:]), int64(le.Uint16(b[8:])), le.Uint16(b[10:])
		return nil
	}
	b, err := c.take(24)
	if err != nil {
		return err
	}
	n.nlink, n.size, n.piece = le.Uint32(b), int64(le.Uint32(b[4:])), le.Uint32(b[8:])
	n.indexes, n.offset, n.xattr = int(le.Uint16(b[16:])), le.Uint16(b[18:]), le.Uint32(b[20:])
	n.indexAt, n.indexIn = c.off, c.pos
	return nil
}

func (f *FS) readFileBody(c *cursor, n *node, ext bool) error {
	le := binary.LittleEndian
	var start, size uint64
	if !ext {
		b, err := c.take(16)
		if err != nil {
			return err
		}
		start, n.frag, n.fragOff, size = uint64(le.Uint32(b)), le.Uint32(b[4:]), le.Uint32(b[8:]), uint64(le.Uint32(b[12:]))
	} else {
		b, err := c.take(40)
		if err != nil {
			return err
		}
		start, size, n.nlink = le.Uint64(b), le.Uint64(b[8:]), le.Uint32(b[24:])
		n.frag, n.fragOff, n.xattr = le.Uint32(b[28:]), le.Uint32(b[32:]), le.Uint32(b[36:])
	}
	n.wordOff, n.wordPos = c.off, c.pos
	if start > f.sb.Used || size > math.MaxInt64-maxBlock {
		return badFormat(c.off, "a file of %d bytes that begins at byte %d", size, start)
	}
	n.start, n.size = int64(start), int64(size)
	// Three bytes of a table hold at most a whole piece, so a size whose
	// words cannot be there is a lie.
	if n.blocks(int64(f.sb.BlockSize)) > (c.end-c.off)/3*metaSize/4+metaSize {
		return badFormat(c.off, "a file of %d bytes, for whose blocks the inode table has no room", size)
	}
	if n.frag != none32 {
		if n.frag >= f.sb.Fragments {
			return badFormat(c.off, "a file with fragment %d of %d", n.frag, f.sb.Fragments)
		}
		if n.tail(int64(f.sb.BlockSize)) == 0 || int64(n.fragOff)+n.tail(int64(f.sb.BlockSize)) > int64(f.sb.BlockSize) {
			return badFormat(c.off, "a file of %d bytes with a fragment at %d", size, n.fragOff)
		}
	}
	return nil
}

func readOtherBody(c *cursor, n *node, ext bool) error {
	le := binary.LittleEndian
	b, err := c.take(4)
	if err != nil {
		return err
	}
	n.nlink = le.Uint32(b)
	switch n.kind {
	case kindBlock, kindChar:
		if b, err = c.take(4); err != nil {
			return err
		}
		n.device = le.Uint32(b)
	case kindSymlink:
		if b, err = c.take(4); err != nil {
			return err
		}
		size := le.Uint32(b)
		if size > maxTarget+1 {
			return badFormat(c.off, "a symbolic link of %d bytes", size)
		}
		if b, err = c.take(int(size)); err != nil {
			return err
		}
		n.target, n.size = string(b), int64(size)
	}
	if ext {
		if b, err = c.take(4); err != nil {
			return err
		}
		n.xattr = le.Uint32(b)
	}
	return nil
}

// blocks is how many words a file has.
func (n *node) blocks(size int64) int64 {
	if n.frag != none32 {
		return n.size / size
	}
	return (n.size + size - 1) / size
}

// tail is how many bytes of the file lie in a fragment.
func (n *node) tail(size int64) int64 {
	if n.frag == none32 {
		return 0
	}
	return n.size % size
}

// fileInfo is a node under a name.
type fileInfo struct {
	name string
	n    *node
	dev  uint64
	attr map[string][]byte
}

func (i *fileInfo) Name() string       { return i.name }
func (i *fileInfo) Size() int64        { return i.n.size }
func (i *fileInfo) Mode() fs.FileMode  { return goMode(i.n.kind, i.n.perm) }
func (i *fileInfo) ModTime() time.Time { return time.Unix(int64(i.n.mtime), 0) }
func (i *fileInfo) IsDir() bool        { return i.n.kind == kindDir }
func (i *fileInfo) String() string     { return fs.FormatFileInfo(i) }

func (i *fileInfo) Sys() any {
	st := &Stat{Uid: i.n.uid, Gid: i.n.gid, Nlink: i.n.nlink, Ino: uint64(i.n.number), Dev: i.dev, Xattrs: i.attr}
	if i.n.kind == kindBlock || i.n.kind == kindChar {
		st.Major, st.Minor = decodeDevice(i.n.device)
	}
	return st
}
