package squash

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"iter"
	"path"
	"slices"
	"sync"
)

// walker is what the sources that list directories have in common.
type walker interface {
	stat() (fs.FileInfo, error)                             // of the root
	list(dir string, fi fs.FileInfo) ([]fs.DirEntry, error) // its error names the path
	same(dir string, fi fs.FileInfo) error                  // it is still the one that was listed
	entry(name string, fi fs.FileInfo) (*Entry, error)
}

// walk yields the root and all that is below it: a directory's entries, then
// what lies below them. As many goroutines as helpers says list directories
// before it is their turn.
func walk(ctx context.Context, w walker, helpers int) iter.Seq2[*Entry, error] {
	return func(yield func(*Entry, error) bool) {
		fi, err := w.stat()
		if err != nil {
			yield(nil, fmt.Errorf("squash: the source's root: %w", err))
			return
		}
		e, err := w.entry(".", fi)
		if !yield(e, err) || err != nil {
			return
		}
		l := &lister{w: w, helped: helpers > 0}
		l.more.L = &l.mu
		for range helpers {
			l.wg.Go(l.help)
		}
		defer l.close()
		l.walk(ctx, &listed{name: ".", fi: fi, done: make(chan struct{})}, yield)
	}
}

// listed is a directory with its entries.
type listed struct {
	name    string
	fi      fs.FileInfo
	begun   bool          // somebody lists it
	done    chan struct{} // closed when the rest is there
	entries []*Entry
	rest    []fs.DirEntry // of a large one, after the entries
	dirs    []*listed
	cost    int   // of the entries, see maxAhead
	err     error // after all of them
}

// lister lists directories.
type lister struct {
	w      walker
	helped bool
	wg     sync.WaitGroup

	mu     sync.Mutex
	more   sync.Cond // for the helpers
	todo   []*listed // the next one last
	ahead  int       // the cost of what is listed and not walked yet
	closed bool
}

// maxAhead bounds the entries in memory that were made before their turn, each
// counted with its extended attributes by 256 bytes, and maxListed those of one
// directory.
const maxAhead, maxListed = 4096, 1024

func (l *lister) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.more.Broadcast()
	l.wg.Wait()
}

func (l *lister) help() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.closed {
		n := len(l.todo)
		if n == 0 || l.ahead >= maxAhead {
			l.more.Wait()
			continue
		}
		d := l.todo[n-1]
		l.todo = l.todo[:n-1]
		if !d.begun {
			d.begun = true
			l.mu.Unlock()
			l.list(d)
			l.mu.Lock()
		}
	}
}

// list lists a directory, for whoever has set begun.
func (l *lister) list(d *listed) {
	defer close(d.done)
	list, err := l.w.list(d.name, d.fi)
	d.err = err
	for i, de := range list {
		if d.cost >= maxListed {
			d.rest = list[i:]
			break
		}
		e, err := l.entry(d, de)
		if err != nil {
			d.err = err
			break
		}
		d.entries = append(d.entries, e)
		size := 0
		for name, value := range e.Xattrs {
			size += len(name) + len(value)
		}
		d.cost += 1 + size/256
	}
	// Another directory may have been listed, whose names nobody shall see.
	if err := l.w.same(d.name, d.fi); err != nil {
		d.entries, d.rest, d.dirs, d.err = nil, nil, nil, cmp.Or(d.err, wrapPath(d.name, err))
	}
	d.cost++
	l.listed(d.dirs, d.cost)
}

func (l *lister) entry(d *listed, de fs.DirEntry) (*Entry, error) {
	full := path.Join(d.name, de.Name())
	fi, err := de.Info()
	if err != nil {
		return nil, wrapPath(full, err)
	}
	e, err := l.w.entry(full, fi)
	if err != nil {
		return nil, wrapPath(full, err)
	}
	if fi.IsDir() {
		d.dirs = append(d.dirs, &listed{name: full, fi: fi, done: make(chan struct{})})
	}
	return e, nil
}

// listed has the helpers go on to some directories, now that there is so much
// more ahead, or less.
func (l *lister) listed(dirs []*listed, cost int) {
	if !l.helped {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ahead += cost
	for _, below := range slices.Backward(dirs) {
		l.todo = append(l.todo, below)
	}
	l.more.Broadcast()
}

// get waits for a directory's entries, or lists them.
func (l *lister) get(d *listed) {
	l.mu.Lock()
	begun := d.begun
	d.begun = true
	l.mu.Unlock()
	if begun {
		<-d.done
	} else {
		l.list(d)
	}
}

// walk yields a directory's entries, then what lies below them.
func (l *lister) walk(ctx context.Context, d *listed, yield func(*Entry, error) bool) bool {
	fail := func(err error) bool { yield(nil, err); return false }
	if err := context.Cause(ctx); err != nil {
		return fail(err)
	}
	l.get(d)
	for _, e := range d.entries {
		if !yield(e, nil) {
			return false
		}
	}
	known := len(d.dirs)
	for _, de := range d.rest {
		e, err := l.entry(d, de)
		if err != nil {
			return fail(err)
		}
		if !yield(e, nil) {
			return false
		}
	}
	if d.err != nil {
		return fail(d.err)
	}
	if err := l.w.same(d.name, d.fi); err != nil {
		return fail(wrapPath(d.name, err))
	}
	l.listed(d.dirs[known:], -d.cost)
	d.entries, d.rest = nil, nil
	for i, below := range d.dirs {
		d.dirs[i] = nil
		if !l.walk(ctx, below, yield) {
			return false
		}
	}
	return true
}
