package squash

import (
	"bytes"
	"fmt"
	"io/fs"
	"sync/atomic"
)

// Unchanged says how [Options.Base] tells that a file is what it was.
type Unchanged int

const (
	// ByContent reads every file and compares it with what the base holds
	// under its name, which costs the decoding of the base instead of
	// compression. It is never wrong.
	ByContent Unchanged = iota

	// BySizeAndTime takes a file for unchanged, and does not read it, when it
	// has the size and the modification time, in seconds, that it has in the
	// base. A file that was changed and has both still is taken over as it
	// was, unless Options.BaseTime shows it. What differs is compared by
	// content.
	BySizeAndTime
)

// errOtherBase is what is wrong with a base that this build cannot have made.
func errOtherBase(format string, args ...any) error {
	return fmt.Errorf("squash: Options.Base: %s: %w: build without it", fmt.Sprintf(format, args...), fs.ErrInvalid)
}

// base is the image that blocks are taken over from.
type base struct {
	f     *FS
	times bool // BySizeAndTime

	// The reading side's: the directory looked into last.
	path string
	dir  *node
	list map[string]dirent

	reused atomic.Int64 // blocks
}

// newBase checks that an image was made with the same settings, as far as it
// tells.
func newBase(o *Options) (*base, error) {
	f := o.Base
	if f == nil {
		return nil, nil
	}
	if int(f.sb.BlockSize) != o.BlockSize || f.sb.Compressor != o.Compressor.ID() {
		return nil, errOtherBase("it has %s blocks of %d bytes", compressorName(f.sb.Compressor), f.sb.BlockSize)
	}
	options := optionBlock(o.Compressor.Options(o.BlockSize))
	if f.sb.Flags&flagOptions != 0 || len(options) > 0 {
		has := make([]byte, len(options))
		if err := f.readAt(has, superSize, "the compressor's options"); err != nil {
			return nil, fmt.Errorf("squash: Options.Base: %w", err)
		}
		if f.sb.Flags&flagOptions == 0 || !bytes.Equal(has, options) {
			return nil, errOtherBase("its compressor has other options")
		}
	}
	// With a time for all files, theirs tell nothing.
	return &base{f: f, times: o.Unchanged == BySizeAndTime && o.ModTime.IsZero()}, nil
}

// find returns what the base has under a name, if it is a regular file.
func (x *base) find(name string) *node {
	dir, elem := split(name)
	if x.list == nil || x.path != dir {
		x.open(dir)
	}
	e, ok := x.list[elem]
	if !ok || e.kind != kindFile {
		return nil
	}
	n, err := x.f.child(x.dir, e)
	if err != nil {
		return nil // what is damaged is not taken over
	}
	return n
}

// open lists a directory of the base, symbolic links not followed.
func (x *base) open(dir string) {
	x.path, x.dir, x.list = dir, x.f.root, make(map[string]dirent)
	if dir != "." {
		for elem := range bytes.SplitSeq([]byte(dir), []byte("/")) {
			e, err := x.f.find(x.dir, string(elem))
			if err != nil || e.kind != kindDir {
				return
			}
			if x.dir, err = x.f.child(x.dir, e); err != nil {
				return
			}
		}
	}
	l, err := x.f.listing(x.dir)
	if err != nil {
		return
	}
	for {
		ok, err := l.next()
		if err != nil || !ok {
			return
		}
		x.list[string(l.name)] = l.dirent()
	}
}

// unchanged says whether a file need not be read.
func (x *base) unchanged(ino *inode, n *node) bool {
	return x.times && !ino.recent && n != nil && n.size == ino.size && n.mtime == ino.mtime
}

// hint is where a block may be in the base.
type hint struct {
	start int64
	word  uint32
}

// fragment is the hint for a file's fragment block.
func (x *base) fragment(n *node) hint {
	start, word, err := x.f.fragment(n.frag)
	if err != nil {
		return hint{}
	}
	return hint{start, word}
}

// tail is the end of a file that lies in a fragment, nil if there is none of
// that length.
func (x *base) tail(n *node, size int) []byte {
	if n.frag == none32 || n.tail(int64(x.f.sb.BlockSize)) != int64(size) {
		return nil
	}
	p := make([]byte, size)
	if k, err := (&file{f: x.f, n: n, size: n.size}).readTail(p, 0); err != nil || k < size {
		return nil
	}
	return p
}

// take fills a block with what the base has stored for it.
func (x *base) take(b *block, enc Encoder) error {
	if b.hint.word == 0 {
		b.zero = true
		return nil
	}
	raw := b.hint.word&rawBlock != 0
	if raw {
		data, err := x.f.readBlock(b.raw[:0:b.n], b.hint.start, b.hint.word, b.n)
		if err != nil {
			return fmt.Errorf("squash: Options.Base: %w", err)
		}
		b.out = append(b.out[:0], data...) // no shorter than raw: stored as it is
	} else if err := x.stored(b); err != nil {
		return err
	}
	if !x.sample() {
		return nil
	}
	if !raw {
		if _, err := x.f.readBlock(b.raw[:0:b.n], b.hint.start, b.hint.word, b.n); err != nil {
			return fmt.Errorf("squash: Options.Base: %w", err)
		}
	}
	return x.check(b, enc)
}

// compare takes a block over if the base has the same content.
func (x *base) compare(b *block, enc Encoder) (same bool, err error) {
	if b.hint.word == 0 {
		return false, nil
	}
	want := b.n
	if b.ino == nil {
		want = -1
	}
	data, err := x.f.cachedBlock(b.hint.start, b.hint.word, want)
	if err != nil || !bytes.Equal(data, b.raw[:b.n]) {
		return false, nil // what is damaged is not taken over
	}
	if b.hint.word&rawBlock != 0 {
		b.out = append(b.out[:0], data...)
	} else if err := x.stored(b); err != nil {
		return false, err
	}
	if x.sample() {
		return true, x.check(b, enc)
	}
	return true, nil
}

// stored reads a compressed block as it is.
func (x *base) stored(b *block) error {
	size := int64(b.hint.word)
	if size >= int64(b.n) || b.hint.start < superSize || b.hint.start > int64(x.f.sb.Used)-size {
		return errOtherBase("a block of %d bytes for %d", size, b.n)
	}
	b.out = append(b.out[:0], make([]byte, size)...)
	if err := x.f.readAt(b.out, b.hint.start, "data"); err != nil {
		return fmt.Errorf("squash: Options.Base: %w", err)
	}
	return nil
}

// sample says for which of the blocks taken over to make sure: the first ones
// and some of the others.
func (x *base) sample() bool {
	n := x.reused.Add(1)
	return n <= 16 || n%64 == 0
}

// check compresses a block to see whether the base was made with the same
// compressor and level, which an image does not say.
func (x *base) check(b *block, enc Encoder) error {
	out, err := enc.Encode(nil, b.raw[:b.n])
	if err != nil {
		return fmt.Errorf("squash: compressing: %w", err)
	}
	if raw := len(out) >= b.n; raw != (len(b.out) >= b.n) || !raw && !bytes.Equal(out, b.out) {
		return errOtherBase("its blocks were compressed otherwise, at another level or by another version")
	}
	return nil
}
