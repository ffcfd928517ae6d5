package squash

import (
	"bytes"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
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
	// was, unless Options.BaseTime shows it. So is most of what is damaged in
	// the base, for little of it is decoded: [Verify] a base that lay on an
	// unsafe disk. What differs is compared by content.
	BySizeAndTime
)

// errOtherBase is what is wrong with a base that this build cannot have made.
func errOtherBase(format string, args ...any) error {
	return fmt.Errorf("squash: Options.Base: %s: %w: build without it", fmt.Sprintf(format, args...), fs.ErrInvalid)
}

func baseError(err error) error { return fmt.Errorf("squash: Options.Base: %w", err) }

// base is the image that blocks are taken over from.
type base struct {
	f     *FS
	times bool // BySizeAndTime

	// It is numbered as Build does it, so that equal tails of files of equal
	// size lie in one place. Other programs compare less, or none at all.
	ours bool

	// The reading side's.
	levels []level // the directories down to the one looked into last
	head   [zstd.HeaderMaxSize]byte

	packed, plain atomic.Int64 // bytes taken over of blocks that are compressed, and of others
}

// level is a directory of the base.
type level struct {
	path string
	dir  *node
	list []dirent // sorted
	next int      // after the one found last
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
	if f.sb.Flags&(flagPlainData|flagPlainFragments) != 0 {
		return nil, errOtherBase("its data is not compressed")
	}
	options := optionBlock(o.Compressor.Options(o.BlockSize))
	if f.sb.Flags&flagOptions != 0 || len(options) > 0 {
		has := make([]byte, len(options))
		if err := f.readAt(has, superSize, "the compressor's options"); err != nil {
			return nil, baseError(err)
		}
		if len(options) == 0 || f.sb.Flags&flagOptions == 0 || !bytes.Equal(has, options) {
			return nil, errOtherBase("its compressor has other options")
		}
	}
	const always = flagExport | flagDuplicates | flagAlwaysFragments
	// With a time for all files, theirs tell nothing.
	return &base{
		f: f, times: o.Unchanged == BySizeAndTime && o.ModTime.IsZero(),
		ours: f.sb.Flags&always == always && f.root.number == 1 && f.sb.Inodes > 1,
	}, nil
}

// find returns what the base has under a name, if it is a regular file.
func (x *base) find(name string) *node {
	dir, elem := split(name)
	l := x.level(dir)
	e := l.find(elem)
	if e == nil || e.kind != kindFile {
		return nil
	}
	n, err := x.f.child(l.dir, *e)
	if err != nil {
		return nil // what is damaged is not taken over
	}
	return n
}

// find looks for a name, at first where it is when names are asked for in
// order.
func (l *level) find(name string) *dirent {
	if l.next >= len(l.list) || l.list[l.next].name != name {
		i, ok := slices.BinarySearchFunc(l.list, name, func(e dirent, name string) int { return strings.Compare(e.name, name) })
		if !ok {
			return nil
		}
		l.next = i
	}
	l.next++
	return &l.list[l.next-1]
}

// level lists a directory, symbolic links not followed; what is missing is
// empty. The directories above it stay listed, for a tree comes in order.
func (x *base) level(dir string) *level {
	for len(x.levels) > 0 {
		l := &x.levels[len(x.levels)-1]
		if l.path == dir {
			return l
		}
		if l.path == "." || strings.HasPrefix(dir, l.path) && dir[len(l.path)] == '/' {
			break
		}
		x.levels = x.levels[:len(x.levels)-1]
	}
	if len(x.levels) == 0 {
		x.levels = append(x.levels, level{".", x.f.root, x.f.dirents(x.f.root), 0})
	}
	for {
		l := &x.levels[len(x.levels)-1]
		if l.path == dir {
			return l
		}
		below := 0
		if l.path != "." {
			below = len(l.path) + 1
		}
		elem, _, _ := strings.Cut(dir[below:], "/")
		down := level{path: dir[:below+len(elem)]}
		if e := l.find(elem); e != nil && e.kind == kindDir {
			if n, err := x.f.child(l.dir, *e); err == nil {
				down.dir, down.list = n, x.f.dirents(n)
			}
		}
		x.levels = append(x.levels, down)
	}
}

// dirents lists a directory as far as it can be read.
func (f *FS) dirents(dir *node) (list []dirent) {
	l, err := f.listing(dir)
	for err == nil {
		var ok bool
		if ok, err = l.next(); !ok {
			break
		}
		list = append(list, l.dirent())
	}
	return list
}
