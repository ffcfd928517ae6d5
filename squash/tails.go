package squash

import (
	"crypto/sha256"
	"io"
)

// place is where a tail lies.
type place struct{ frag, off uint32 }

// tails finds tails by their content. Those that the base has are not read: in
// one place there they are equal, and in two they are not if its build compared
// them. They are hashed, once for each length, where others need be compared.
type tails struct {
	base   *base
	hashed map[[sha256.Size]byte]place
	sizes  map[uint32]bool // of those in hashed
	unread map[origin]place
	later  map[uint32][]origin // unread ones that are not in hashed, by their size
}

func newTails(x *base) *tails {
	return &tails{
		base: x, hashed: make(map[[sha256.Size]byte]place), sizes: make(map[uint32]bool),
		unread: make(map[origin]place), later: make(map[uint32][]origin),
	}
}

// find returns where content is, or takes it in.
func (t *tails) find(p []byte, at place) (was place, again bool, err error) {
	if t.base != nil {
		if err := t.hash(uint32(len(p))); err != nil {
			return place{}, false, err
		}
	}
	was, again = t.enter(sha256.Sum256(p), at)
	return was, again, nil
}

// findUnread is find for a tail that the base has. compared says that its build
// compared it with all others of which that is said.
func (t *tails) findUnread(o origin, compared bool, at place) (was place, again bool, err error) {
	if was, again = t.unread[o]; again {
		return was, true, nil
	}
	if compared && !t.sizes[o.n] {
		t.unread[o] = at
		t.later[o.n] = append(t.later[o.n], o)
		return place{}, false, nil
	}
	if err := t.hash(o.n); err != nil {
		return place{}, false, err
	}
	sum, err := t.base.sum(o)
	if err != nil {
		return place{}, false, err
	}
	if was, again = t.enter(sum, at); again {
		at = was
	}
	t.unread[o] = at
	return was, again, nil
}

func (t *tails) enter(sum [sha256.Size]byte, at place) (was place, again bool) {
	if was, again = t.hashed[sum]; !again {
		t.hashed[sum] = at
	}
	return was, again
}

// hash takes in what was put off of a size.
func (t *tails) hash(size uint32) error {
	t.sizes[size] = true
	for _, o := range t.later[size] {
		sum, err := t.base.sum(o)
		if err != nil {
			return err
		}
		t.enter(sum, t.unread[o])
	}
	delete(t.later, size)
	return nil
}

// tail packs the end of a file that does not fill a block into the fragment
// block that is open; was is what the base has under the file's name, or nil.
func (d *dataWriter) tail(name string, ino *inode, f io.Reader, n int, was *node) error {
	at, err := d.openFragment(n)
	if err != nil {
		return err
	}
	p := d.frag.room(d.opts.BlockSize)[at.off:][:n]
	if err := fill(name, ino, f, p, int64(n)); err != nil {
		return err
	}
	if ino.twin {
		was, again, err := d.tails.find(p, at)
		if err != nil {
			return err
		}
		if again {
			d.share(ino, was, n)
			return nil
		}
	}
	if at.off == 0 && was != nil && was.frag != none32 && was.fragOff == 0 {
		d.frag.hint = d.base.fragment(was.frag)
	}
	d.pack(ino, at, n)
	return nil
}

// takeTail does the same with a tail that the base has.
func (d *dataWriter) takeTail(ino *inode, o origin) error {
	at, err := d.openFragment(int(o.n))
	if err != nil {
		return err
	}
	if ino.twin {
		was, again, err := d.tails.findUnread(o, ino.compared, at)
		if err != nil {
			return err
		}
		if again {
			d.share(ino, was, int(o.n))
			return nil
		}
	}
	if at.off == 0 && o.off == 0 {
		d.frag.hint = d.base.fragment(o.frag)
	}
	d.frag.parts = append(d.frag.parts, part{o, at.off})
	d.pack(ino, at, int(o.n))
	return nil
}

// openFragment returns where a tail of n bytes goes if it is not there already.
func (d *dataWriter) openFragment(n int) (place, error) {
	if d.frag != nil && d.frag.n+n > d.opts.FragmentSize {
		if err := d.flushFragment(); err != nil {
			return place{}, err
		}
	}
	if d.frag == nil {
		b, err := d.take(nil)
		if err != nil {
			return place{}, err
		}
		d.frag = b
		d.frags++
	}
	return place{d.frags - 1, uint32(d.frag.n)}, nil
}

func (d *dataWriter) pack(ino *inode, at place, n int) {
	ino.frag, ino.fragOff = at.frag, at.off
	d.frag.n += n
}

func (d *dataWriter) share(ino *inode, was place, n int) {
	ino.frag, ino.fragOff = was.frag, was.off
	d.report.note(func(p *Progress) { p.Read += int64(n) })
}

func (d *dataWriter) flushFragment() error {
	b := d.frag
	d.frag = nil
	switch {
	case b == nil:
	case b.n == 0: // every tail that it was opened for was there already
		d.frags--
		d.free <- b
	case b.hint.word != 0 && b.whole():
		return d.reuse(nil, b.n, b.hint, b)
	default:
		d.submit(b)
	}
	return nil
}
