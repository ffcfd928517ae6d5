package squash

import (
	"bytes"
	"context"
	"io"
	"iter"
	"maps"
	"path"
	"strings"
	"syscall"
)

// Aspects says in which ways two files differ, as a set of bits.
type Aspects uint16

// What may differ. Where the type differs, only that is said.
const (
	DiffAdded   Aspects = 1 << iota // only the new image has the name
	DiffRemoved                     // only the old image has it
	DiffType                        // a file where a directory was
	DiffContent                     // the bytes of a regular file
	DiffMode                        // permissions, setuid, setgid, sticky
	DiffOwner                       // owner or group
	DiffModTime                     // time of modification
	DiffTarget                      // where a symbolic link points
	DiffDevice                      // a device node's numbers
	DiffXattrs                      // extended attributes
	DiffLinks                       // which names are one file
)

var aspectNames = []string{"added", "removed", "type", "content", "mode", "owner", "time", "target", "device", "xattrs", "links"}

// String lists the aspects, such as "content,time".
func (a Aspects) String() string {
	var list []string
	for i, name := range aspectNames {
		if a&(1<<i) != 0 {
			list = append(list, name)
		}
	}
	return strings.Join(list, ",")
}

// Change is a name that is not the same in two images.
type Change struct {
	Path     string
	What     Aspects
	Old, New *Entry // nil in the image that does not have the name
}

// Diff compares two images, whatever their compression and block sizes: one
// change for each name that is new, gone or different, in the order of
// [FS.Entries]. The content of regular files of equal size is read and
// compared. The iteration ends with the first error.
//
// A directory that only one image has comes with everything below it. Memory
// does not grow with the images but for some 50 bytes a hard link.
func Diff(ctx context.Context, old, new *FS) iter.Seq2[*Change, error] {
	return func(yield func(*Change, error) bool) {
		d := &differ{ctx: ctx, yield: yield, old: old, new: new, pairs: make(map[uint32]uint32), back: make(map[uint32]uint32)}
		d.bufs[0], d.bufs[1] = make([]byte, 128<<10), make([]byte, 128<<10)
		if d.both(".", old.root, new.root) {
			d.dir(".", old.root, new.root)
		}
	}
}

type differ struct {
	ctx         context.Context
	yield       func(*Change, error) bool
	old, new    *FS
	pairs, back map[uint32]uint32 // files with several names: the other image's number
	bufs        [2][]byte
}

func (d *differ) fail(err error) bool {
	d.yield(nil, err)
	return false
}

// stream is one side of the merge of two listings; l is nil at its end.
type stream struct {
	f    *FS
	dir  *node
	l    *listing
	name string
}

func (s *stream) next() error {
	ok, err := s.l.next()
	if err != nil || !ok {
		s.l = nil
		return err
	}
	s.name = string(s.l.name)
	return nil
}

// open begins with a directory's first name; n may be nil, as one without any.
func openStream(f *FS, n *node) (*stream, error) {
	s := &stream{f: f, dir: n}
	if n == nil {
		return s, nil
	}
	var err error
	if s.l, err = f.listing(n); err != nil {
		return nil, err
	}
	return s, s.next()
}

// dir compares what two directories hold, one of which may be nil. It is
// false when the iteration is over.
func (d *differ) dir(name string, a, b *node) bool {
	sa, err := openStream(d.old, a)
	if err != nil {
		return d.fail(pathError("readdir", name, err))
	}
	sb, err := openStream(d.new, b)
	if err != nil {
		return d.fail(pathError("readdir", name, err))
	}
	type pair struct {
		name string
		a, b *node
	}
	var dirs []pair
	for sa.l != nil || sb.l != nil {
		if err := context.Cause(d.ctx); err != nil {
			return d.fail(err)
		}
		var na, nb *node
		var base string
		takeA := sa.l != nil && (sb.l == nil || sa.name <= sb.name)
		takeB := sb.l != nil && (sa.l == nil || sb.name <= sa.name)
		for _, side := range []struct {
			take bool
			s    *stream
			n    **node
		}{{takeA, sa, &na}, {takeB, sb, &nb}} {
			if !side.take {
				continue
			}
			s := side.s
			base = s.name
			if *side.n, err = s.f.child(s.dir, s.l.dirent()); err == nil {
				err = s.next()
			}
			if err != nil {
				return d.fail(pathError("lstat", path.Join(name, base), err))
			}
		}
		full := path.Join(name, base)
		if len(full) > maxPath {
			return d.fail(pathError("readdir", full[:100]+"...", syscall.ENAMETOOLONG))
		}
		if !d.both(full, na, nb) {
			return false
		}
		if na != nil && na.kind != kindDir {
			na = nil
		}
		if nb != nil && nb.kind != kindDir {
			nb = nil
		}
		if na != nil || nb != nil {
			dirs = append(dirs, pair{full, na, nb})
		}
	}
	for _, p := range dirs {
		if !d.dir(p.name, p.a, p.b) {
			return false
		}
	}
	return true
}

// both compares what a name stands for; a or b may be nil.
func (d *differ) both(name string, a, b *node) bool {
	c := &Change{Path: name}
	var err error
	if a != nil {
		if c.Old, err = d.old.entry(name, a); err != nil {
			return d.fail(err)
		}
	}
	if b != nil {
		if c.New, err = d.new.entry(name, b); err != nil {
			return d.fail(err)
		}
	}
	switch {
	case a == nil:
		c.What = DiffAdded
	case b == nil:
		c.What = DiffRemoved
	case a.kind != b.kind:
		c.What = DiffType
	default:
		if c.What, err = d.aspects(name, a, b, c); err != nil {
			return d.fail(err)
		}
	}
	return c.What == 0 || d.yield(c, nil)
}

func (d *differ) aspects(name string, a, b *node, c *Change) (what Aspects, err error) {
	differ := func(is bool, bit Aspects) {
		if is {
			what |= bit
		}
	}
	differ(a.perm != b.perm, DiffMode)
	differ(a.uid != b.uid || a.gid != b.gid, DiffOwner)
	differ(a.mtime != b.mtime, DiffModTime)
	differ(a.target != b.target, DiffTarget)
	differ((a.kind == kindBlock || a.kind == kindChar) && a.device != b.device, DiffDevice)
	differ(!maps.EqualFunc(c.Old.Xattrs, c.New.Xattrs, bytes.Equal), DiffXattrs)
	if a.kind != kindDir {
		differ(!d.linked(a, b), DiffLinks)
	}
	if a.kind == kindFile {
		same, err := d.content(name, a, b)
		if err != nil {
			return 0, err
		}
		differ(!same, DiffContent)
	}
	return what, nil
}

// linked says whether the names of a file in one image are those of one file
// in the other, as far as they have been seen.
func (d *differ) linked(a, b *node) bool {
	if a.nlink <= 1 && b.nlink <= 1 {
		return true
	}
	to, okA := d.pairs[a.number]
	from, okB := d.back[b.number]
	if !okA {
		d.pairs[a.number] = b.number
	}
	if !okB {
		d.back[b.number] = a.number
	}
	return a.nlink == b.nlink && (!okA || to == b.number) && (!okB || from == a.number)
}

func (d *differ) content(name string, a, b *node) (bool, error) {
	if a.size != b.size {
		return false, nil
	}
	fa, fb := d.old.open(name, a), d.new.open(name, b)
	for off := int64(0); off < a.size; {
		if err := context.Cause(d.ctx); err != nil {
			return false, err
		}
		n := min(a.size-off, int64(len(d.bufs[0])))
		for i, f := range []*file{fa, fb} {
			if _, err := f.ReadAt(d.bufs[i][:n], off); err != nil && err != io.EOF {
				return false, err
			}
		}
		if !bytes.Equal(d.bufs[0][:n], d.bufs[1][:n]) {
			return false, nil
		}
		off += n
	}
	return true, nil
}
