package squash

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	xattr  uint32 // index of the set, none32 for none
	size   int64
	target string

	// Where a regular file's data went.
	start    int64
	sparse   int64
	words    []uint32
	frag     uint32
	fragOff  uint32
	open     func() (io.ReadCloser, error) // nil once the data has been read
	was      *taken                        // where the base has it, nil if it is to be read
	twin     bool                          // another file may have the same content
	compared bool                          // was its tail, in the base
	hash     hashes                        // of the blocks written, if twin

	dir *dirData

	ref     uint64 // place in the inode table
	written bool
}

// dirData is what only directories have.
type dirData struct {
	entries []entry
	sub     map[string]*inode // the directories among them
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

// tree collects the names and attributes of a source in memory.
type tree struct {
	ctx    context.Context
	opts   *Options
	refuse func(Stat) error
	report *report

	root   *inode
	links  map[linkKey]*inode
	xattrs xattrWriter
	names  int   // links made
	bytes  int64 // of these names and of links' targets
	size   int64 // of the regular files
	inodes uint32
	newest uint32
	// Of the entry added last, whose parent the next one mostly shares.
	lastPath string
	lastDir  *inode
}

func newTree(ctx context.Context, o *Options, refuse func(Stat) error, r *report) *tree {
	root := &inode{kind: kindDir, perm: 0o755, xattr: none32, frag: none32, dir: &dirData{}}
	return &tree{ctx: ctx, opts: o, refuse: refuse, report: r, root: root, links: make(map[linkKey]*inode)}
}

func entryError(name string, err error) error {
	return &fs.PathError{Op: "squash", Path: name, Err: err}
}

// checkName tells names that a directory can hold.
func checkName(name string) error {
	switch {
	case name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00"):
		return fmt.Errorf("the source lists %.80q, which is no file name", name)
	case len(name) > maxName:
		return fmt.Errorf("the name has %d bytes, SquashFS allows %d: %w", len(name), maxName, syscall.ENAMETOOLONG)
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

// split cuts a path before its last element.
func split(p string) (dir, name string) {
	if i := strings.LastIndexByte(p, '/'); i >= 0 {
		return p[:i], p[i+1:]
	}
	return ".", p
}

// parent returns the directory at a path, making what is missing of it.
func (t *tree) parent(dir string) (*inode, error) {
	if t.lastDir != nil && t.lastPath == dir {
		return t.lastDir, nil
	}
	d := t.root
	for rest, more := dir, dir != "."; more; {
		var name string
		name, rest, more = strings.Cut(rest, "/")
		below := d.dir.sub[name]
		if below == nil {
			if err := checkName(name); err != nil {
				return nil, err
			}
			below = &inode{kind: kindDir, perm: 0o755, xattr: none32, frag: none32, dir: &dirData{}}
			below.mtime = t.mtime(time.Time{})
			if err := t.link(d, name, below); err != nil {
				return nil, err
			}
		}
		d = below
	}
	t.lastPath, t.lastDir = dir, d
	return d, nil
}

// link gives a file a name in a directory.
func (t *tree) link(d *inode, name string, ino *inode) error {
	if t.names++; t.opts.MaxEntries >= 0 && t.names > t.opts.MaxEntries {
		return fmt.Errorf("the tree has more names than Options.MaxEntries allows (%d)", t.opts.MaxEntries)
	}
	if err := t.hold(len(name)); err != nil {
		return err
	}
	name = strings.Clone(name) // not the whole path
	d.dir.entries = append(d.dir.entries, entry{name, ino})
	if ino.kind == kindDir {
		if d.dir.sub == nil {
			d.dir.sub = make(map[string]*inode)
		}
		d.dir.sub[name] = ino
	}
	t.report.note(func(p *Progress) { p.Entries++ })
	return nil
}

// hold counts bytes of names and targets, which stay in memory.
func (t *tree) hold(n int) error {
	if t.bytes += int64(n); t.opts.MaxNames >= 0 && t.bytes > t.opts.MaxNames {
		return fmt.Errorf("the tree's names and links have more bytes than Options.MaxNames allows (%d)", t.opts.MaxNames)
	}
	return nil
}

// add takes an entry in. fresh says that its file is new, so that a regular
// file's content is to be read.
func (t *tree) add(e *Entry) (ino *inode, fresh bool, err error) {
	kind := kindOf(e.Mode)
	if kind == 0 {
		return nil, false, entryError(e.Path, fmt.Errorf("SquashFS has no files of type %v; leave it out of the source", e.Mode.Type()))
	}
	if kind == kindSocket && t.opts.OmitSockets {
		t.report.note(func(p *Progress) { p.OmittedSockets++ })
		return nil, false, nil
	}
	if t.refuse != nil && e.Ino != 0 {
		if err := t.refuse(e.Stat); err != nil {
			return nil, false, entryError(e.Path, err)
		}
	}
	if e.Path == "." {
		if kind != kindDir {
			return nil, false, entryError(".", fmt.Errorf("the source's root is no directory: %w", syscall.ENOTDIR))
		}
		return t.root, false, t.fill(t.root, e)
	}
	if len(e.Path) > maxPath {
		return nil, false, entryError(e.Path[:100]+"...", fmt.Errorf("a path of %d bytes: %w", len(e.Path), syscall.ENAMETOOLONG))
	}
	dir, name := split(e.Path)
	if err := checkName(name); err != nil {
		return nil, false, entryError(e.Path, err)
	}
	d, err := t.parent(dir)
	if err != nil {
		return nil, false, entryError(e.Path, err)
	}
	old := d.dir.sub[name]
	if old != nil && kind == kindDir {
		return old, false, t.fill(old, e)
	}
	key := linkKey{e.Dev, e.Ino, kind}
	linked := e.Nlink > 1 && kind != kindDir
	if linked {
		ino = t.links[key]
	}
	if ino == nil {
		ino, fresh = &inode{kind: kind, xattr: none32, frag: none32}, true
		if err := t.fill(ino, e); err != nil {
			return nil, false, err
		}
		if linked {
			t.links[key] = ino
		}
	}
	if old != nil { // it goes with all that is below it
		delete(d.dir.sub, name)
		t.lastDir = nil
	}
	if kind == kindDir {
		ino.dir = &dirData{}
	}
	if err := t.link(d, name, ino); err != nil {
		return nil, false, entryError(e.Path, err)
	}
	return ino, fresh, nil
}

// fill sets an inode's attributes.
func (t *tree) fill(ino *inode, e *Entry) error {
	ino.perm, ino.uid, ino.gid = unixPerm(e.Mode), e.Uid, e.Gid
	ino.mtime = t.mtime(e.ModTime)
	if t.opts.ModTime.IsZero() && !e.ModTime.IsZero() && int64(ino.mtime) != e.ModTime.Unix() {
		if t.opts.Strict {
			return entryError(e.Path, fmt.Errorf("its time %v does not fit (1970 to 2106-02-07): touch it, or build without Strict: %w", e.ModTime, errors.ErrUnsupported))
		}
		t.report.clamp(e.Path)
	}
	switch ino.kind {
	case kindFile:
		if e.Size < 0 {
			return entryError(e.Path, fmt.Errorf("the source gives a size of %d bytes", e.Size))
		}
		if t.opts.MaxFileSize >= 0 && e.Size > t.opts.MaxFileSize {
			return entryError(e.Path, fmt.Errorf("its %d bytes are more than Options.MaxFileSize allows (%d)", e.Size, t.opts.MaxFileSize))
		}
		if t.opts.MaxSize >= 0 && e.Size > t.opts.MaxSize-t.size {
			return entryError(e.Path, fmt.Errorf("with its %d bytes the files have more than Options.MaxSize allows (%d)", e.Size, t.opts.MaxSize))
		}
		t.size += e.Size
		ino.size = e.Size
	case kindSymlink:
		if e.Target == "" || len(e.Target) > maxTarget || strings.IndexByte(e.Target, 0) >= 0 {
			return entryError(e.Path, fmt.Errorf("a symbolic link must hold 1 to %d bytes and no NUL, this one has %d", maxTarget, len(e.Target)))
		}
		if err := t.hold(len(e.Target)); err != nil {
			return entryError(e.Path, err)
		}
		ino.target = e.Target
	case kindBlock, kindChar:
		if e.Major > maxMajor || e.Minor > maxMinor {
			return entryError(e.Path, fmt.Errorf("device %d:%d is beyond %d:%d", e.Major, e.Minor, maxMajor, maxMinor))
		}
		ino.device = encodeDevice(e.Major, e.Minor)
	}
	if len(e.Xattrs) == 0 || t.opts.OmitXattrs {
		ino.xattr = none32
		return nil
	}
	set, dropped, err := t.xattrs.add(e.Xattrs)
	if err != nil {
		return entryError(e.Path, err)
	}
	ino.xattr = set
	for _, name := range dropped {
		t.report.dropXattr(e.Path, name)
	}
	if len(dropped) > 0 && t.opts.Strict {
		return entryError(e.Path, fmt.Errorf("SquashFS cannot hold the extended attribute %s: remove it, or build without Strict: %w", dropped[0], errors.ErrUnsupported))
	}
	return nil
}

// mtime is a time as SquashFS holds it, or the nearest one: unsigned seconds.
func (t *tree) mtime(when time.Time) uint32 {
	if !t.opts.ModTime.IsZero() {
		when = t.opts.ModTime
	}
	if when.IsZero() { // what embed and fstest.MapFS say for "no time"
		return 0
	}
	return uint32(min(max(when.Unix(), 0), math.MaxUint32))
}

// finish sorts and numbers the tree, each directory's entries before what
// lies below them, so that the entries of a directory have consecutive
// numbers. What came twice is settled here: the last one stays.
func (t *tree) finish() error {
	t.links, t.lastDir = nil, nil
	t.root.number = 1
	t.inodes = 1
	t.newest = t.root.mtime
	if err := t.number(".", t.root); err != nil {
		return err
	}
	t.root.dir.parent = t.inodes + 1 // as mksquashfs has it: nobody's number
	return context.Cause(t.ctx)
}

func (t *tree) number(name string, d *inode) error {
	d.nlink = 2
	list := d.dir.entries
	// Readers search listings by unsigned bytes, which is how Go orders strings.
	slices.SortStableFunc(list, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	kept := list[:0]
	for i, e := range list {
		if i+1 == len(list) || list[i+1].name != e.name {
			kept = append(kept, e)
		}
	}
	clear(list[len(kept):])
	d.dir.entries, d.dir.sub = kept, nil
	for _, e := range kept {
		if e.ino.number == 0 {
			if t.inodes == math.MaxUint32-1 {
				return entryError(path.Join(name, e.name), errors.New("more files than SquashFS can number"))
			}
			t.inodes++
			e.ino.number = t.inodes
			t.newest = max(t.newest, e.ino.mtime)
		}
		if e.ino.kind == kindDir {
			e.ino.dir.parent = d.number
			d.nlink++
		} else {
			e.ino.nlink++
		}
	}
	for _, e := range kept {
		if e.ino.kind == kindDir {
			if err := t.number(path.Join(name, e.name), e.ino); err != nil {
				return err
			}
		}
	}
	return nil
}
