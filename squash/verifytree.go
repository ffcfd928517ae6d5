package squash

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// tree checks every name and every inode.
func (v *verifier) tree() bool {
	root := v.f.root
	if !v.inode(".", root) || !v.dir(".", root) {
		return false
	}
	for _, number := range slices.Sorted(maps.Keys(v.links)) {
		l := v.links[number]
		if !v.require(l.says == l.found, l.path, int64(v.f.sb.InodeStart), "inode %d says to have %d names, it has %d", number, l.says, l.found) {
			return false
		}
	}
	slices.SortFunc(v.lists, func(a, b span) int { return cmp.Compare(a.begin, b.begin) })
	for i := 1; i < len(v.lists); i++ {
		if a, b := v.lists[i-1], v.lists[i]; !v.require(a.end <= b.begin, "", int64(v.f.sb.DirStart), "the listings of two directories overlap, at %d in the table", b.begin) {
			return false
		}
	}
	return v.require(int64(v.f.sb.Inodes) == int64(len(v.seen)), "", 4, "the superblock counts %d inodes, the tree has %d", v.f.sb.Inodes, len(v.seen))
}

// span is a part of a table.
type span struct{ begin, end int64 }

// run is where a header stands in a listing.
type run struct {
	piece uint32
	name  string
}

func (v *verifier) dir(name string, d *node) bool {
	l, err := v.f.listing(d)
	if err != nil {
		return v.bad(name, err)
	}
	if !v.require(d.size >= 3, name, int64(v.f.sb.InodeStart), "a directory with a size of %d, which counts from 3", d.size) {
		return false
	}
	var dirs []string
	var nodes []*node
	runs := make(map[uint32]run) // only those that an index may name
	entries, subs := uint32(0), uint32(0)
	for {
		if v.done() {
			return false
		}
		at, header := l.at, l.run == 0
		piece := uint32(l.c.off - int64(v.f.sb.DirStart))
		if header && l.c.pos == len(l.c.data) {
			piece = uint32(l.c.next - int64(v.f.sb.DirStart))
		}
		ok, err := l.next()
		if err != nil {
			return v.bad(name, err)
		}
		if !ok {
			break
		}
		if header && d.indexes > 0 {
			runs[at] = run{piece, string(l.name)}
		}
		full := path.Join(name, string(l.name))
		if v.names++; v.o.MaxEntries >= 0 && v.names > v.o.MaxEntries {
			v.yield(nil, fmt.Errorf("squash: the image has more names than VerifyOptions.MaxEntries allows (%d)", v.o.MaxEntries))
			return false
		}
		if len(full) > maxPath {
			if !v.require(false, name, int64(v.f.sb.DirStart), "a path of more than %d bytes", maxPath) {
				return false
			}
			continue
		}
		entries++
		if l.kind == kindDir {
			subs++
		}
		n, err := v.f.child(d, l.dirent())
		if err != nil {
			if !v.bad(full, err) {
				return false
			}
			continue
		}
		if !v.inode(full, n) {
			return false
		}
		if n.kind == kindDir {
			if !v.parent(full, n, d) {
				return false
			}
			dirs, nodes = append(dirs, full), append(nodes, n)
		}
	}
	if begin, ok := v.ordinal[int64(v.f.sb.DirStart)+int64(d.piece)]; ok && d.size > 3 {
		at := begin*metaSize + int64(d.offset)
		v.lists = append(v.lists, span{at, at + d.size - 3})
	}
	// mksquashfs counts as ext4 does; gensquashfs every entry.
	if !v.require(d.nlink == 2+subs || d.nlink == 2+entries, name, int64(v.f.sb.InodeStart), "a directory with %d links and %d directories in it", d.nlink, subs) ||
		!v.index(name, d, runs) {
		return false
	}
	for i, full := range dirs {
		if !v.dir(full, nodes[i]) {
			return false
		}
	}
	return true
}

// parent checks the number of the directory above, which NFS clients see.
func (v *verifier) parent(name string, n, above *node) bool {
	c := v.f.inodes()
	if c.seek(int64(v.f.sb.InodeStart), n.ref>>16, int(n.ref&0xffff)) != nil {
		return true // it was read before
	}
	b, err := c.take(32)
	if err != nil {
		return v.bad(name, err)
	}
	number := binary.LittleEndian.Uint32(b[28:])
	return v.require(number == above.number, name, c.off, "the directory says that inode %d is above it, it stands in %d", number, above.number)
}

// index checks that each entry of a directory's index leads to a run.
func (v *verifier) index(name string, d *node, runs map[uint32]run) bool {
	if d.indexes == 0 {
		return true
	}
	c := v.f.inodes()
	if err := c.open(d.indexAt, d.indexIn); err != nil {
		return v.bad(name, err)
	}
	for range d.indexes {
		b, err := c.take(12)
		if err != nil {
			return v.bad(name, err)
		}
		off, piece, size := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), int64(binary.LittleEndian.Uint32(b[8:]))+1
		if size > maxRun {
			return v.require(false, name, c.off, "a directory index with a name of %d bytes", size)
		}
		if b, err = c.take(int(size)); err != nil {
			return v.bad(name, err)
		}
		if r, ok := runs[off]; !v.require(ok && r == (run{piece, string(b)}), name, c.off, "the directory's index has %q at byte %d of the listing, where it is not: names would not be found", b, off) {
			return false
		}
	}
	return true
}

// inode checks a file, once however many names it has.
func (v *verifier) inode(name string, n *node) bool {
	at := int64(v.f.sb.InodeStart)
	if ref, again := v.seen[n.number]; again {
		l := v.links[n.number]
		if l == nil {
			l = &linkCount{path: name, says: 1, found: 1}
			v.links[n.number] = l
		}
		l.found++
		return v.require(ref == n.ref, name, at, "inode number %d is that of another file, too: Linux would show one for both", n.number)
	}
	v.seen[n.number] = n.ref
	if n.kind != kindDir && n.nlink != 1 {
		v.links[n.number] = &linkCount{name, n.nlink, 1}
	}
	if !v.export(name, n) {
		return false
	}
	if n.xattr != none32 {
		attrs, err := v.f.xattrs(n)
		if !v.bad(name, err) || err == nil && !v.xattrSize(name, n, attrs) {
			return false
		}
	}
	switch n.kind {
	case kindSymlink:
		return v.require(n.size > 0 && n.size <= maxTarget, name, at, "a symbolic link of %d bytes; Linux allows 1 to %d", n.size, maxTarget) &&
			v.require(!strings.Contains(n.target, "\x00"), name, at, "a symbolic link to %q, of which Linux sees what is before the NUL", n.target)
	case kindFile:
		return v.file(name, n)
	}
	return true
}
