package squash

import (
	"encoding/binary"
	"math"
)

const (
	xattrEntry  = 16 // bytes of a set in the table
	xattrHeader = 16 // before the table's list of offsets
)

// openXattrs reads the head of the table.
func (f *FS) openXattrs() error {
	at := f.sb.XattrStart
	if at == none64 {
		return nil
	}
	var head [xattrHeader]byte
	if at > f.sb.Used-xattrHeader {
		return badFormat(56, "the xattr table begins at byte %d of %d", at, f.sb.Used)
	}
	if err := f.readAt(head[:], int64(at), "the xattr table"); err != nil {
		return err
	}
	kv := binary.LittleEndian.Uint64(head[:])
	f.xattrN = binary.LittleEndian.Uint32(head[8:])
	if f.xattrN > 0 && (kv < superSize || kv > at) {
		return badFormat(int64(at), "the extended attributes begin at byte %d", kv)
	}
	f.xattrKV = int64(kv)
	return nil
}

// xattrs returns a file's extended attributes, which are at most 1 MiB.
func (f *FS) xattrs(n *node) (map[string][]byte, error) {
	if n.xattr == none32 {
		return nil, nil
	}
	if n.xattr >= f.xattrN {
		return nil, badFormat(int64(f.sb.InodeStart), "inode %d has set %d of %d of extended attributes", n.number, n.xattr, f.xattrN)
	}
	le := binary.LittleEndian
	p, err := f.lookup(int64(f.sb.XattrStart)+xattrHeader, int64(n.xattr)*xattrEntry, "the xattr table")
	if err != nil {
		return nil, err
	}
	if len(p) < xattrEntry {
		return nil, badFormat(int64(f.sb.XattrStart), "the xattr table is too short")
	}
	ref, pairs := le.Uint64(p), le.Uint32(p[8:])
	c := cursor{f: f, end: int64(f.sb.XattrStart)}
	if err := c.seek(f.xattrKV, ref>>16, int(ref&0xffff)); err != nil {
		return nil, err
	}
	var attrs map[string][]byte
	for total := 0; pairs > 0; pairs-- {
		kind, name, value, err := f.xattr(&c)
		if err != nil {
			return nil, err
		}
		if total += 8 + len(name) + len(value); total > maxXattrBytes {
			return nil, badFormat(c.off, "inode %d has more than %d bytes of extended attributes", n.number, maxXattrBytes)
		}
		name = xattrPrefixes[kind] + name
		if _, twice := attrs[name]; twice {
			return nil, badFormat(c.off, "the extended attribute %q comes twice", name)
		}
		if attrs == nil {
			attrs = make(map[string][]byte)
		}
		attrs[name] = value
	}
	return attrs, nil
}

// xattr reads one pair.
func (f *FS) xattr(c *cursor) (kind uint16, name string, value []byte, err error) {
	le := binary.LittleEndian
	b, err := c.take(4)
	if err != nil {
		return 0, "", nil, err
	}
	kind, size := le.Uint16(b), int(le.Uint16(b[2:]))
	outside := kind&xattrOutOfLine != 0
	if kind &^= xattrOutOfLine; int(kind) >= len(xattrPrefixes) || size > maxXattrName {
		return 0, "", nil, badFormat(c.off, "an extended attribute of type %d with a name of %d bytes", kind, size)
	}
	if b, err = c.take(size); err != nil {
		return 0, "", nil, err
	}
	name = string(b)
	if value, err = xattrValue(c); err != nil || !outside {
		return kind, name, value, err
	}
	if len(value) != 8 {
		return 0, "", nil, badFormat(c.off, "a reference of %d bytes to a value", len(value))
	}
	ref := le.Uint64(value)
	if ref>>16 > math.MaxUint32 {
		return 0, "", nil, badFormat(c.off, "a value at byte %d", ref>>16)
	}
	away := cursor{f: f, end: c.end}
	if err = away.seek(f.xattrKV, ref>>16, int(ref&0xffff)); err != nil {
		return 0, "", nil, err
	}
	value, err = xattrValue(&away)
	return kind, name, value, err
}

func xattrValue(c *cursor) ([]byte, error) {
	b, err := c.take(4)
	if err != nil {
		return nil, err
	}
	size := binary.LittleEndian.Uint32(b)
	if size > maxXattrValue {
		return nil, badFormat(c.off, "an extended attribute of %d bytes", size)
	}
	if b, err = c.take(int(size)); err != nil {
		return nil, err
	}
	return append([]byte{}, b...), nil
}
