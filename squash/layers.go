package squash

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"
	"strings"
)

// Layer is one layer of a container image: a tar archive, as it is or
// compressed with gzip or zstd.
type Layer struct {
	// Name says in errors which layer it is.
	Name string
	// Open opens the archive. It may be called twice: a layer in which a
	// file is replaced by a layer above, but lives on under another name that
	// comes after it, is read again. Reading goes on to the end, so that a
	// reader that checks a digest can fail there.
	Open func() (io.ReadCloser, error)
	// DiffID is the digest of the archive without compression, such as
	// "sha256:" and 64 hexadecimal digits, which is checked when it has been
	// read; empty for no check.
	DiffID string
}

// Layers is the merge of a container image's layers, the base first, by the
// rules of the OCI image specification (layer.md) as a [Source]: a directory
// over a directory replaces the attributes and keeps the children; any other
// pair replaces the whole; ".wh.NAME" removes NAME of lower layers only,
// ".wh..wh..opq" all that lower layers have in its directory; a hard link to a
// file of a lower layer is that file as it was then, whatever happens to the
// name above. Other names of ".wh..wh.", which aufs keeps its books under, are
// left out with all below them, where hard links may lead. Symbolic links of
// lower layers are never followed. Attributes trusted.overlay.* are dropped.
//
// The layers are read from the top down, so that content that is hidden is
// skipped. For all else see [Tar].
func Layers(layers ...Layer) Source { return tarSource{slices.Clone(layers), true} }

const (
	whiteout       = ".wh."
	whiteoutMeta   = ".wh..wh."
	whiteoutOpaque = ".wh..wh..opq"

	everything = math.MaxInt // a view of all layers

	// What layers may claim to hold, so that a hostile image's names take a
	// bounded amount of memory: some 200 bytes each, and the bytes of names and
	// extended attributes.
	maxLayerNames = 10_000_000
	maxLayerBytes = 1 << 30
)

// merger reads layers from the top down and yields what can be seen.
type merger struct {
	ctx       context.Context
	yield     func(*Entry, error) bool
	layers    []Layer
	whiteouts bool

	root   seen
	nodes  int
	wanted map[string][]request // hard links to files of lower layers
	kept   int                  // bytes of the names in these two
	ids    uint64

	// Of the layer that is read.
	globals tarGlobals
	local   map[string]*merged
	missed  map[int]*merged
	bytes   int    // of the names and attributes in local
	clear   string // a directory that nothing in local stands above
}

// merged is a file of a layer that is no directory.
type merged struct {
	is      *merged // the file that a wanted one turned out to be
	entry   *Entry  // attributes and identity; nil: not found yet
	ordinal int     // in its layer
	content bool    // has been yielded
	names   []string
}

func (f *merged) final() *merged {
	for f.is != nil {
		f = f.is
	}
	return f
}

// request is a hard link to a name as layers below view know it.
type request struct {
	view int
	file *merged
}

func (m *merger) run() error {
	for i := len(m.layers) - 1; i >= 0; i-- {
		m.globals = tarGlobals{}
		m.local, m.missed, m.bytes, m.clear = make(map[string]*merged), make(map[int]*merged), 0, "."
		if err := m.scan(i, m.entry); err != nil {
			return err
		}
		if len(m.missed) > 0 {
			if err := m.scan(i, m.again); err != nil {
				return err
			}
		}
	}
	for target, list := range m.wanted {
		for _, r := range list {
			if len(r.file.names) > 0 {
				return entryError(r.file.names[0], fmt.Errorf("a hard link to %.80q, which is not in the archive: %w", target, fs.ErrNotExist))
			}
		}
	}
	return nil
}

// scan calls visit for each entry of a layer.
func (m *merger) scan(layer int, visit func(layer, ordinal int, h *tar.Header, r io.Reader) error) error {
	l := m.layers[layer]
	fail := func(err error) error {
		var pe *fs.PathError
		if errors.Is(err, errStop) || errors.As(err, &pe) && pe.Op == "squash" {
			return err
		}
		return fmt.Errorf("squash: %s: %w", l.Name, err)
	}
	raw, err := l.Open()
	if err != nil {
		return fail(err)
	}
	defer raw.Close()
	plain, err := decompress(raw)
	if err != nil {
		return fail(err)
	}
	defer plain.Close()
	sum, want, err := diffID(l.DiffID)
	if err != nil {
		return fail(err)
	}
	// Another goroutine decompresses and sums, ahead of what is packed.
	a := newAhead(m.ctx, 1, defaultBlock)
	defer a.close()
	stream, err := a.add(func() (io.ReadCloser, error) { return io.NopCloser(io.TeeReader(plain, sum)), nil })
	if err != nil {
		return err
	}
	end := &endReader{r: stream}
	tr := tar.NewReader(end)
	for ordinal := 0; ; ordinal++ {
		if err := context.Cause(m.ctx); err != nil {
			return err
		}
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if m.nodes+len(m.local) > maxLayerNames || m.bytes+m.kept > maxLayerBytes {
			return fail(fmt.Errorf("more than %d names, or %d MiB of names and extended attributes", maxLayerNames, maxLayerBytes>>20))
		}
		if err == io.ErrUnexpectedEOF {
			err = fmt.Errorf("the archive is cut short: %w", err)
		}
		if err != nil {
			return fail(err)
		}
		if err := visit(layer, ordinal, h, tr); err != nil {
			return fail(err)
		}
	}
	if end.last != ([512]byte{}) || end.n < 512 {
		return fail(fmt.Errorf("the archive is cut short, it has no end: %w", io.ErrUnexpectedEOF))
	}
	// What follows the archive's end is read, for checksums stand there.
	if err := drain(stream); err != nil {
		return fail(err)
	}
	if got := sum.Sum(nil); want != nil && !bytes.Equal(got, want) {
		return fail(fmt.Errorf("the archive's digest is %x, not %s: copy the image again", got, l.DiffID))
	}
	return nil
}

func (m *merger) entry(layer, ordinal int, h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return m.globals.set(h.PAXRecords)
	}
	m.globals.apply(h)
	name, err := cleanName(h.Name)
	if err != nil {
		return err
	}
	dir, base := split(name)
	if m.whiteouts && strings.HasPrefix(base, whiteout) {
		return m.whiteout(layer, dir, base)
	}
	e, ok, err := tarEntry(h, name)
	if err != nil || !ok {
		return err
	}
	if m.whiteouts {
		for attr := range e.Xattrs {
			if strings.HasPrefix(attr, "trusted.overlay.") {
				delete(e.Xattrs, attr)
			}
		}
	}
	if err := m.checkParents(dir, name); err != nil {
		return err
	}
	books := m.whiteouts && (strings.HasPrefix(dir, whiteoutMeta) || strings.Contains(dir, "/"+whiteoutMeta))
	if e.Mode.IsDir() && books {
		return nil
	}
	if e.Mode.IsDir() {
		return m.dir(layer, e)
	}
	if name == "." {
		return entryError(name, errors.New("the archive has a file for its root"))
	}
	var f *merged
	if h.Typeflag == tar.TypeLink {
		target, err := cleanName(h.Linkname)
		if err != nil {
			return err
		}
		if f = m.local[target]; f == nil {
			if layer == 0 || target == name {
				return entryError(name, fmt.Errorf("a hard link to %.80q, which is not in the archive before it: %w", h.Linkname, fs.ErrNotExist))
			}
			f = &merged{}
			m.kept += len(target)
			m.wanted[target] = append(m.wanted[target], request{layer, f})
		}
		f = f.final()
	} else {
		m.ids++
		e.Ino, e.Nlink = m.ids, 2 // it may get further names
		f = &merged{entry: e, ordinal: ordinal}
	}
	visible := !books && !m.hidden(name, layer, everything, false)
	f = m.grant(name, layer, f)
	m.local[name] = f
	m.bytes += len(name) + len(e.Target)
	for attr, value := range e.Xattrs {
		m.bytes += len(attr) + len(value)
	}
	if m.clear == name || strings.HasPrefix(m.clear, name+"/") {
		m.clear = "."
	}
	if layer > 0 && !books { // nothing lies below the base
		m.see(name).hide(layer)
		m.above(dir, layer)
	}
	if visible {
		f.names = append(f.names, name)
	}
	if f.entry == nil || len(f.names) == 0 {
		return nil
	}
	if h.Typeflag == tar.TypeLink && !f.content {
		m.missed[f.ordinal] = f
		return nil
	}
	return m.emit(f, r)
}

// emit yields a file under the names that are waiting.
func (m *merger) emit(f *merged, r io.Reader) error {
	for _, name := range f.names {
		e := *f.entry
		e.Path = name
		if !f.content && e.Mode.IsRegular() {
			e.Content = memberReader{r}
		}
		f.content = true
		if !m.yield(&e, nil) {
			return errStop
		}
	}
	f.names = nil
	return nil
}

// again yields the files of a layer that turned out to be needed after they
// had gone by.
func (m *merger) again(_, ordinal int, _ *tar.Header, r io.Reader) error {
	if f := m.missed[ordinal]; f != nil {
		return m.emit(f, r)
	}
	return nil
}

// grant gives the file that a name is in a layer to the hard links of higher
// layers that mean it.
func (m *merger) grant(name string, layer int, f *merged) *merged {
	list := m.wanted[name]
	if len(list) == 0 {
		return f
	}
	rest := list[:0]
	for _, r := range list {
		if r.view <= layer || m.hidden(name, layer, r.view, false) {
			rest = append(rest, r)
			continue
		}
		if r.file = r.file.final(); r.file != f {
			f.names = append(f.names, r.file.names...)
			r.file.names, r.file.is = nil, f
		}
	}
	if len(rest) == 0 {
		delete(m.wanted, name)
	} else {
		m.wanted[name] = rest
	}
	return f
}

func (m *merger) dir(layer int, e *Entry) error {
	delete(m.local, e.Path)
	if m.attrs(e.Path) > layer+1 || m.hidden(e.Path, layer, everything, true) {
		if layer > 0 {
			m.above(e.Path, layer)
		}
		return nil
	}
	if layer > 0 {
		m.above(e.Path, layer)
		m.see(e.Path).attrs = layer + 1
	}
	if !m.yield(e, nil) {
		return errStop
	}
	return nil
}

// checkParents refuses a name below something of the same layer that is no
// directory: whoever unpacks would follow a link there.
func (m *merger) checkParents(dir, name string) error {
	if dir == m.clear {
		return nil
	}
	for d := dir; d != "."; d, _ = split(d) {
		if m.local[d] != nil {
			return entryError(name, fmt.Errorf("the archive has %.80q, which is no directory, above this: %w", d, fs.ErrInvalid))
		}
	}
	m.clear = dir
	return nil
}
