package squash

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"
)

// inode is one file of the image being built.
type inode struct {
	kind   uint16
	perm   uint16
	uid    uint32
	gid    uint32
	mtime  uint32
	nlink  uint32
	number uint32
	device uint32
	size   int64
	target string

	// Where a regular file's data went.
	start   int64
	sparse  int64
	words   []uint32
	frag    uint32
	fragOff uint32
	read    bool

	dir *dirData

	ref     uint64 // place in the inode table
	written bool
}

// dirData is what only directories have.
type dirData struct {
	entries []entry
	parent  uint32
	pos     uint64 // place in the directory table
	size    uint32 // of the listing
	index   []indexEntry
}

type entry struct {
	name string
	ino  *inode
}

type linkKey struct {
	dev, ino uint64
	kind     uint16
}

// scanner reads the names and attributes of a source into memory.
type scanner struct {
	ctx     context.Context
	src     fs.FS
	opts    *Options
	links   map[linkKey]*inode
	refuse  func(Stat) error
	inodes  uint32
	newest  uint32
	prog    Progress
	clamped string // the first name whose time did not fit
}

func entryError(name string, err error) error {
	return &fs.PathError{Op: "squash", Path: name, Err: err}
}

func (s *scanner) scan() (*inode, error) {
	fi, err := fs.Stat(s.src, ".")
	if err != nil {
		return nil, fmt.Errorf("squash: the source's root: %w", err)
	}
	if !fi.IsDir() {
		return nil, entryError(".", fmt.Errorf("the source's root is no directory: %w", syscall.ENOTDIR))
	}
	root, err := s.inode(".", fi)
	if err != nil {
		return nil, err
	}
	if err := s.readDir(".", root); err != nil {
		return nil, err
	}
	root.dir.parent = s.inodes + 1 // as mksquashfs has it: nobody's number
	return root, nil
}

// readDir numbers all of a directory's entries before it descends, so that
// the entries of one directory have consecutive numbers.
func (s *scanner) readDir(dir string, d *inode) error {
	if err := context.Cause(s.ctx); err != nil {
		return err
	}
	list, err := fs.ReadDir(s.src, dir)
	if err != nil {
		return wrapPath(dir, err)
	}
	d.dir.entries = make([]entry, 0, len(list))
	for _, de := range list {
		name := de.Name()
		full := path.Join(dir, name)
		if err := checkName(name); err != nil {
			return entryError(full, err)
		}
		fi, err := de.Info()
		if err != nil {
			return wrapPath(full, err)
		}
		ino, err := s.inode(full, fi)
		if err != nil {
			return err
		}
		if ino.kind == kindDir {
			ino.dir.parent = d.number
			d.nlink++
		}
		d.dir.entries = append(d.dir.entries, entry{name, ino})
	}
	// Readers search listings by unsigned bytes, which is how Go orders
	// strings; a source may have another order.
	slices.SortFunc(d.dir.entries, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	for i := 1; i < len(d.dir.entries); i++ {
		if d.dir.entries[i].name == d.dir.entries[i-1].name {
			return entryError(path.Join(dir, d.dir.entries[i].name), errors.New("the source lists this name twice"))
		}
	}
	if s.opts.Progress != nil {
		s.opts.Progress(s.prog)
	}
	for _, e := range d.dir.entries {
		if e.ino.kind == kindDir {
			if err := s.readDir(path.Join(dir, e.name), e.ino); err != nil {
				return err
			}
		}
	}
	return nil
}

// inode makes the inode for a name, or finds it when the name is another link.
func (s *scanner) inode(name string, fi fs.FileInfo) (*inode, error) {
	kind := kindOf(fi.Mode())
	if kind == 0 {
		return nil, entryError(name, fmt.Errorf("SquashFS has no files of type %v; leave it out of the source", fi.Mode().Type()))
	}
	st, known := statOf(fi)
	if s.refuse != nil && known {
		if err := s.refuse(st); err != nil {
			return nil, entryError(name, err)
		}
	}
	s.prog.Entries++
	key := linkKey{st.Dev, st.Ino, kind}
	linked := known && st.Nlink > 1 && kind != kindDir
	if linked {
		if ino := s.links[key]; ino != nil {
			ino.nlink++
			return ino, nil
		}
	}
	if s.inodes == math.MaxUint32-1 {
		return nil, entryError(name, errors.New("more files than SquashFS can number"))
	}
	s.inodes++
	ino := &inode{
		kind: kind, perm: unixPerm(fi.Mode()), uid: st.Uid, gid: st.Gid,
		mtime: s.mtime(name, fi.ModTime()), nlink: 1, number: s.inodes, frag: none32,
	}
	s.newest = max(s.newest, ino.mtime)
	switch kind {
	case kindDir:
		ino.nlink = 2
		ino.dir = &dirData{}
	case kindFile:
		ino.size = fi.Size()
		if ino.size < 0 {
			return nil, entryError(name, fmt.Errorf("the source gives a size of %d bytes", ino.size))
		}
		s.prog.Total += ino.size
	case kindSymlink:
		if _, ok := s.src.(fs.ReadLinkFS); !ok {
			return nil, entryError(name, fmt.Errorf("the source has symbolic links but is no fs.ReadLinkFS: %w", fs.ErrInvalid))
		}
		target, err := fs.ReadLink(s.src, name)
		if err != nil {
			return nil, wrapPath(name, err)
		}
		if target == "" || len(target) > maxTarget || strings.IndexByte(target, 0) >= 0 {
			return nil, entryError(name, fmt.Errorf("a symbolic link must hold 1 to %d bytes and no NUL, this one has %d", maxTarget, len(target)))
		}
		ino.target = target
	case kindBlock, kindChar:
		if !known {
			return nil, entryError(name, errors.New("the source does not tell the device's numbers: its FileInfo.Sys must be a *squash.Stat"))
		}
		if st.Major > maxMajor || st.Minor > maxMinor {
			return nil, entryError(name, fmt.Errorf("device %d:%d is beyond %d:%d", st.Major, st.Minor, maxMajor, maxMinor))
		}
		ino.device = encodeDevice(st.Major, st.Minor)
	}
	if linked {
		s.links[key] = ino
	}
	return ino, nil
}

// mtime is a time as SquashFS holds it: unsigned seconds.
func (s *scanner) mtime(name string, t time.Time) uint32 {
	if !s.opts.ModTime.IsZero() {
		t = s.opts.ModTime
	}
	if t.IsZero() { // what embed and fstest.MapFS say for "no time"
		return 0
	}
	sec := t.Unix()
	if sec >= 0 && sec <= math.MaxUint32 {
		return uint32(sec)
	}
	if s.prog.ClampedTimes++; s.prog.ClampedTimes == 1 {
		s.clamped = name
	}
	return uint32(min(max(sec, 0), math.MaxUint32))
}

func checkName(name string) error {
	switch {
	case name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00"):
		return fmt.Errorf("the source lists %q, which is no file name", name)
	case len(name) > maxName:
		return fmt.Errorf("the name has %d bytes, SquashFS allows %d: %w", len(name), maxName, syscall.ENAMETOOLONG)
	case !fs.ValidPath(name):
		return fmt.Errorf("the name %q is not UTF-8, which io/fs cannot open: rename it: %w", name, fs.ErrInvalid)
	}
	return nil
}

// wrapPath names the file unless the source's error does so itself.
func wrapPath(name string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return fmt.Errorf("squash: %w", err)
	}
	return entryError(name, err)
}
