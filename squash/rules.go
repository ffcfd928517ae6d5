package squash

import (
	"bytes"
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"iter"
	"os"
)

// Rules change a tree on its way into an image: the source is only read. They
// work in this order, whatever their own: what Exclude says and Keep does not
// is left out; what is left is changed by Modify; Put is put over it and is
// itself neither left out nor changed.
type Rules struct {
	// Exclude and Keep are patterns, see [Pattern]. What is below a directory
	// that is left out is left out, too. Keep is for exceptions: what matches
	// it stays, with what is below it and, as far as the pattern is anchored,
	// the directories above it.
	Exclude, Keep []Pattern

	// Modify are changes of attributes. One that no file matches is an error
	// that matches [fs.ErrNotExist], for its name may be misspelt.
	Modify []Modify

	// Put are files, directories, links and device nodes that are put over the
	// tree, replacing what has their names: a directory keeps what is below it
	// and takes the new attributes, anything else goes with all that is below
	// it. Regular files must have Open. Directories that are missing above
	// belong to root and have mode 0755; where the source has a symbolic link
	// or a file in their place it is an error, for the link's target is
	// probably meant.
	Put []*Entry
}

// Modify is a change of the files that a pattern matches, not of what is below
// them.
type Modify struct {
	Pattern Pattern
	// Change may change Mode (but the type), ModTime, Target and all of Stat
	// but the identity. A file with several names must be changed under all of
	// them alike; if not it is an error.
	Change func(*Entry) error
	// Where says in errors which rule this is, such as "rules:12"; "" is the
	// pattern.
	Where string
}

// Apply returns a source with the rules applied. Where the source's content
// comes once, as in a tar stream, and a file with several names is left out
// under its first, its content waits in a temporary file.
func (r *Rules) Apply(src Source) Source {
	if len(r.Exclude)+len(r.Keep)+len(r.Modify)+len(r.Put) == 0 {
		return src
	}
	return SourceFunc(func(ctx context.Context) iter.Seq2[*Entry, error] {
		return func(yield func(*Entry, error) bool) {
			a, err := r.start()
			if err != nil {
				yield(nil, err)
				return
			}
			defer a.end()
			for e, err := range src.Entries(ctx) {
				if err == nil {
					e, err = a.entry(e)
				}
				if err != nil {
					yield(nil, err)
					return
				}
				if e != nil && !yield(e, nil) {
					return
				}
			}
			for i, m := range r.Modify {
				if !a.matched[i] {
					yield(nil, fmt.Errorf("squash: %s: no file matches %q: %w", m.where(), m.Pattern, fs.ErrNotExist))
					return
				}
			}
			for _, e := range r.Put {
				c := *e
				if !yield(&c, nil) {
					return
				}
			}
		}
	})
}

func (m *Modify) where() string {
	if m.Where == "" {
		return "a rule"
	}
	return m.Where
}

// applier is one run of rules.
type applier struct {
	*Rules
	put     map[string]*Entry
	above   map[string]string // directories above what is put, to one of these
	matched []bool
	links   map[linkKey]*linkedFile
}

// linkedFile is a file with several names, as its first one has it.
type linkedFile struct {
	name  string
	shown bool
	attrs uint64
	spool *os.File // content that was left out with the first name
}

func (r *Rules) start() (*applier, error) {
	a := &applier{Rules: r, put: make(map[string]*Entry), above: make(map[string]string), matched: make([]bool, len(r.Modify)), links: make(map[linkKey]*linkedFile)}
	for _, list := range [][]Pattern{r.Exclude, r.Keep} {
		for _, p := range list {
			if err := p.Check(); err != nil {
				return nil, fmt.Errorf("squash: the pattern %q: %w", p, err)
			}
		}
	}
	for _, m := range r.Modify {
		if err := m.Pattern.Check(); err != nil {
			return nil, fmt.Errorf("squash: %s: the pattern %q: %w", m.where(), m.Pattern, err)
		}
	}
	for _, e := range r.Put {
		if kind := kindOf(e.Mode); kind == kindFile && e.Open == nil && e.Size > 0 {
			return nil, entryError(e.Path, fmt.Errorf("a file to put has no Open: %w", fs.ErrInvalid))
		}
		if a.put[e.Path] != nil {
			return nil, entryError(e.Path, fmt.Errorf("two files are put here: %w", fs.ErrExist))
		}
		a.put[e.Path] = e
	}
	for _, e := range r.Put {
		for p, _ := split(e.Path); p != "."; p, _ = split(p) {
			if over := a.put[p]; over != nil && !over.Mode.IsDir() {
				return nil, entryError(e.Path, fmt.Errorf("it is put below %s, which is put as no directory: %w", p, fs.ErrInvalid))
			}
			a.above[p] = e.Path
		}
	}
	return a, nil
}

func (a *applier) end() {
	for _, l := range a.links {
		if l.spool != nil {
			_ = l.spool.Close()
		}
	}
}

// entry returns an entry as the rules leave it, nil if they leave it out.
func (a *applier) entry(e *Entry) (*Entry, error) {
	out := a.excluded(e)
	if !out {
		if below, ok := a.above[e.Path]; ok && !e.Mode.IsDir() {
			where := "a file"
			if e.Mode&fs.ModeSymlink != 0 {
				where = "a symbolic link to " + e.Target
			}
			return nil, entryError(below, fmt.Errorf("it is put below %s, where the source has %s: name the directory itself, or exclude %s: %w", e.Path, where, e.Path, fs.ErrExist))
		}
		out = a.covered(e.Path)
	}
	if !out {
		c := *e // the source's own may be used again
		e = &c
		for i, m := range a.Modify {
			if !m.Pattern.Match(e.Path) {
				continue
			}
			a.matched[i] = true
			if err := m.Change(e); err != nil {
				return nil, entryError(e.Path, fmt.Errorf("%s: %w", m.where(), err))
			}
		}
	}
	if e.Nlink > 1 && !e.Mode.IsDir() {
		return a.link(e, out)
	}
	if out {
		return nil, nil
	}
	return e, nil
}

// covered says whether something is put over a name.
func (a *applier) covered(name string) bool {
	if a.put[name] != nil {
		return true
	}
	for p, _ := split(name); p != "."; p, _ = split(p) {
		if e := a.put[p]; e != nil && !e.Mode.IsDir() {
			return true
		}
	}
	return false
}

// excluded says whether patterns leave a name out.
func (a *applier) excluded(e *Entry) bool {
	if e.Path == "." || !anyCovers(a.Exclude, e.Path) || anyCovers(a.Keep, e.Path) {
		return false
	}
	for _, k := range a.Keep {
		if e.Mode.IsDir() && k.leadsBelow(e.Path) {
			return false
		}
	}
	return true
}

func anyCovers(list []Pattern, name string) bool {
	for _, p := range list {
		if p.Covers(name) {
			return true
		}
	}
	return false
}

// link handles a file with several names, each of which may be left out.
func (a *applier) link(e *Entry, out bool) (*Entry, error) {
	key := linkKey{e.Dev, e.Ino, kindOf(e.Mode)}
	l := a.links[key]
	if l == nil {
		l = &linkedFile{name: e.Path}
		a.links[key] = l
	}
	if out {
		if e.Content == nil || e.Open != nil || l.shown {
			return nil, nil
		}
		// Its other names come without content.
		var err error
		if l.spool, err = spool(e.Content); err != nil {
			return nil, wrapPath(e.Path, err)
		}
		return nil, nil
	}
	h := fnv.New64a() // of all that rules may change; a map prints in order
	fmt.Fprint(h, e.Mode, e.Uid, e.Gid, e.ModTime.UnixNano(), e.Target, e.Major, e.Minor, e.Xattrs)
	attrs := h.Sum64()
	if l.shown && attrs != l.attrs {
		return nil, entryError(e.Path, fmt.Errorf("the rules change it, but not %s, which is the same file: let them match both names: %w", l.name, fs.ErrInvalid))
	}
	if !l.shown && l.spool != nil {
		c := *e
		c.Content = l.spool
		e = &c
	}
	if !l.shown {
		l.shown, l.name, l.attrs = true, e.Path, attrs
	}
	return e, nil
}

// spool copies content to a file without a name.
func spool(r io.Reader) (*os.File, error) {
	f, err := os.CreateTemp("", "squash")
	if err != nil {
		return nil, err
	}
	_ = os.Remove(f.Name()) // where that is possible for an open file
	if _, err = io.Copy(f, r); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// NewFile returns an entry for a regular file with some content, for
// [Rules.Put]. It belongs to root. The content must not be changed afterwards.
func NewFile(path string, mode fs.FileMode, content []byte) *Entry {
	return &Entry{Path: path, Mode: mode &^ fs.ModeType, Size: int64(len(content)),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }}
}
