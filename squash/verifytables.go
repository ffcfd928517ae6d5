package squash

import (
	"encoding/binary"
	"math"
	"strings"
)

// tables checks that each metadata table is where its neighbours say, and that
// its pieces are whole.
func (v *verifier) tables() bool {
	sb := &v.f.sb
	type table struct {
		name    string
		start   uint64
		head    int64 // bytes before the list
		records int64 // of size bytes
		size    int64
		exact   bool // Linux wants no gap after it
	}
	list := []table{
		{"fragment", sb.FragStart, 0, int64(sb.Fragments), fragmentEntry, false},
		{"export", sb.ExportStart, 0, int64(sb.Inodes), 8, true},
		{"id", sb.IDStart, 0, int64(sb.IDs), 4, true},
		{"xattr", sb.XattrStart, xattrHeader, int64(v.f.xattrN), xattrEntry, true},
	}
	// From the last to the first, each ends where the next begins.
	end := int64(sb.Used)
	for i := len(list) - 1; i >= 0; i-- {
		t := list[i]
		if t.start == none64 {
			continue
		}
		first, ok := v.lookup(t.name, int64(t.start)+t.head, t.records*t.size)
		if !ok {
			return false
		}
		last := int64(t.start) + t.head + (t.records*t.size+metaSize-1)/metaSize*8
		if !v.require(last == end || !t.exact && last < end, "", last, "the %s table ends at byte %d, where what follows begins at byte %d", t.name, last, end) {
			return false
		}
		end = min(int64(t.start), first)
		if t.name == "xattr" && t.records > 0 {
			if !v.pieces("extended attributes'", v.f.xattrKV, end, nil) {
				return false
			}
			end = v.f.xattrKV
		}
	}
	if v.room = 0; !v.pieces("inode", int64(sb.InodeStart), int64(sb.DirStart), nil) {
		return false
	}
	room := v.room
	ok := v.pieces("directory", int64(sb.DirStart), end, v.ordinal)
	v.room = room
	return ok
}

// pieces checks a table that is only pieces: all but the last are full. It
// counts them in ordinal.
func (v *verifier) pieces(name string, off, end int64, ordinal map[int64]int64) bool {
	for i := int64(0); off < end; i++ {
		if v.done() {
			return false
		}
		p, ok := v.piece(off, end)
		if p == nil {
			return ok
		}
		if !v.require(len(p.data) == metaSize || p.next == end, "", off, "a piece of %d bytes in the middle of the %s table, where all have %d", len(p.data), name, metaSize) {
			return false
		}
		v.room += int64(len(p.data)) / 4
		if ordinal != nil {
			ordinal[off] = i
		}
		off = p.next
	}
	return true
}

// piece decodes a piece and checks its stream; nil when it was a defect.
func (v *verifier) piece(off, end int64) (*cached, bool) {
	p, err := v.f.piece(off, end)
	if err != nil {
		return nil, v.bad("", err)
	}
	stored := make([]byte, p.next-off)
	if err := v.f.readAt(stored, off, "metadata"); err != nil {
		return nil, v.bad("", err)
	}
	if binary.LittleEndian.Uint16(stored)&rawMeta == 0 {
		if err := v.stream(stored[2:], off); err != nil {
			return p, v.bad("", err)
		}
	}
	return p, true
}

// lookup checks a table of size bytes of records whose list of pieces begins
// at list, and returns where the first piece begins.
func (v *verifier) lookup(name string, list, size int64) (first int64, ok bool) {
	first, low := list, int64(superSize)
	for i := int64(0); i < size; i += metaSize {
		if v.done() {
			return 0, false
		}
		rest, err := v.f.lookup(list, i, "the "+name+" table")
		if err != nil {
			return first, v.bad("", err) // what follows is as bad
		}
		var b [8]byte
		if err := v.f.readAt(b[:], list+i/metaSize*8, name); err != nil {
			return first, v.bad("", err)
		}
		off := int64(binary.LittleEndian.Uint64(b[:]))
		if i == 0 {
			first = off
		}
		want := min(metaSize, size-i)
		if !v.require(off >= low, "", list+i/metaSize*8, "the pieces of the %s table overlap", name) ||
			!v.require(int64(len(rest)) == want, "", off, "a piece of %d bytes in the %s table where %d belong", len(rest), name, want) {
			return 0, false
		}
		p, ok := v.piece(off, list)
		if p == nil {
			return first, ok
		}
		low = p.next
	}
	return first, true
}

// export checks an inode's place in the export table.
func (v *verifier) export(path string, n *node) bool {
	at := v.f.sb.ExportStart
	if at == none64 {
		return true
	}
	p, err := v.f.lookup(int64(at), int64(n.number-1)*8, "the export table")
	if err != nil || len(p) < 8 {
		return true // said before
	}
	ref := binary.LittleEndian.Uint64(p)
	return v.require(ref == n.ref, path, int64(at), "the export table has inode %d at %#x, it is at %#x: NFS clients would get another file", n.number, ref, n.ref)
}

// xattrSize checks a set of attributes' names, and the size that it is said to
// have.
func (v *verifier) xattrSize(path string, n *node, attrs map[string][]byte) bool {
	p, err := v.f.lookup(int64(v.f.sb.XattrStart)+xattrHeader, int64(n.xattr)*xattrEntry, "the xattr table")
	if err != nil || len(p) < xattrEntry {
		return true // said before
	}
	says, long := int64(binary.LittleEndian.Uint32(p[12:])), int64(0)
	for name, value := range attrs {
		if !v.require(!strings.Contains(name, "\x00"), path, int64(v.f.sb.XattrStart), "an extended attribute with a NUL in its name, %q, which nobody can ask for", name) {
			return false
		}
		long += int64(len(name)) + 1 + int64(len(value))
	}
	return v.require(says == long || long > math.MaxUint32, path, int64(v.f.sb.XattrStart), "set %d of extended attributes says to have %d bytes, it has %d", n.xattr, says, long)
}
