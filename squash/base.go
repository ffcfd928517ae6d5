package squash

import (
	"bytes"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
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
	frag uint32 // the fragment block used last

	ahead  chan uint32 // fragment blocks to decode before they are used
	wg     sync.WaitGroup
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
	x := &base{f: f, times: o.Unchanged == BySizeAndTime && o.ModTime.IsZero(), frag: none32, ahead: make(chan uint32, 2)}
	x.wg.Go(func() {
		for i := range x.ahead {
			if h := x.fragment(i); h.word != 0 {
				if e, err := x.f.cachedBlock(h.start, h.word, -1); err == nil { // an error shows to who needs it
					x.f.blocks.release(e)
				}
			}
		}
	})
	return x, nil
}

// close ends the goroutine that decodes ahead.
func (x *base) close() {
	if x != nil {
		close(x.ahead)
		x.wg.Wait()
	}
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
		for elem := range strings.SplitSeq(dir, "/") {
			e, err := x.f.find(x.dir, elem)
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

// unchanged says whether a file of so many blocks need not be read: it is what
// it was, and cut into blocks in the same way.
func (x *base) unchanged(ino *inode, blocks int64, n *node) bool {
	size := int64(x.f.sb.BlockSize)
	return x.times && !ino.recent && n != nil && n.size == ino.size && n.mtime == ino.mtime &&
		n.blocks(size) == blocks && n.tail(size) == max(ino.size-blocks*size, 0)
}

// hint is where a block may be in the base.
type hint struct {
	start int64
	word  uint32
}

// fragment is the hint for a fragment block.
func (x *base) fragment(i uint32) hint {
	if i >= x.f.sb.Fragments {
		return hint{}
	}
	start, word, err := x.f.fragment(i)
	if err != nil {
		return hint{}
	}
	return hint{start, word}
}

// tail shows the end of a file that lies in a fragment.
func (x *base) tail(n *node, use func([]byte) error) error {
	if n.frag != x.frag {
		x.frag = n.frag
		for i := range uint32(2) { // they mostly come in order
			select {
			case x.ahead <- n.frag + 1 + i:
			default:
			}
		}
	}
	var failed error
	if err := (&file{f: x.f, n: n, size: n.size}).withTail(func(tail []byte) error {
		failed = use(tail)
		return nil
	}); err != nil {
		return fmt.Errorf("squash: Options.Base: %w", err)
	}
	return failed
}

// take fills a block with what the base has stored for it.
func (x *base) take(b *block, enc Encoder) error {
	if b.hint.word == 0 {
		b.zero = true
		return nil
	}
	raw := b.hint.word&rawBlock != 0
	if raw {
		data, err := x.f.readBlock(b.raw[:0], b.hint.start, b.hint.word, b.n)
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
		if _, err := x.f.readBlock(b.raw[:0], b.hint.start, b.hint.word, b.n); err != nil {
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
	var data []byte
	if x.times && b.ino == nil { // the tails in it have been decoded
		var e *cached
		if e, err = x.f.cachedBlock(b.hint.start, b.hint.word, want); err == nil {
			defer x.f.blocks.release(e)
			data = e.data
		}
	} else {
		buf := x.f.buffer()
		defer x.f.scratch.Put(buf)
		data, err = x.f.readBlock((*buf)[:0], b.hint.start, b.hint.word, want)
	}
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
	b.out = slices.Grow(b.out[:0], int(size))[:size]
	if err := x.f.readAt(b.out, b.hint.start, "data"); err != nil {
		return fmt.Errorf("squash: Options.Base: %w", err)
	}
	return nil
}

// sample says for which of the blocks taken over to make sure: the first ones
// and some of the others.
func (x *base) sample() bool {
	n := x.reused.Add(1)
	return n <= 16 || n%256 == 0
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
