package nbd

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
)

// Exports is a [Handler] that finds other handlers by the export's name, and a
// [Lister] of its names. A client may put one slash before a name: several
// initramfs scripts do. The name "" is the default export, which a client gets
// that names none. The handler sees the name as the client sent it.
//
// A map must not be changed while it is served.
type Exports map[string]Handler

// OpenNBD asks the handler under the export's name.
func (e Exports) OpenNBD(ctx context.Context, r *Request) (Device, error) {
	h, ok := e[r.Export]
	if !ok {
		h, ok = e[strings.TrimPrefix(r.Export, "/")]
	}
	if !ok || h == nil {
		return nil, fs.ErrNotExist
	}
	return h.OpenNBD(ctx, r)
}

// ListNBD returns the names in order.
func (e Exports) ListNBD(context.Context, *Request) ([]ExportInfo, error) {
	var list []ExportInfo
	for _, name := range slices.Sorted(maps.Keys(e)) {
		list = append(list, ExportInfo{Name: name})
	}
	return list, nil
}

// First is a [Handler] that asks one handler after the other until one has the
// export: one that returns [fs.ErrNotExist], or nil and no error, leaves it to
// the next, any other error is final. It lists what those that are a [Lister]
// list, each name once; one that refuses to, with [fs.ErrPermission], is passed
// over when another one lists something.
func First(handlers ...Handler) Handler { return first(handlers) }

type first []Handler

func (f first) OpenNBD(ctx context.Context, r *Request) (Device, error) {
	missing := fs.ErrNotExist // the first that says what is missing says it best
	for _, h := range f {
		dev, err := h.OpenNBD(ctx, r)
		switch {
		case err == nil && dev != nil:
			return dev, nil
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return nil, err
		case err != nil && missing == fs.ErrNotExist:
			missing = err
		}
	}
	return nil, missing
}

func (f first) ListNBD(ctx context.Context, r *Request) ([]ExportInfo, error) {
	var list []ExportInfo
	var refused error
	seen := make(map[string]bool)
	for _, h := range f {
		l, ok := h.(Lister)
		if !ok {
			continue
		}
		exports, err := l.ListNBD(ctx, r)
		switch {
		case errors.Is(err, fs.ErrPermission): // also of a wrapper around what is no Lister
			if refused == nil {
				refused = err
			}
			continue
		case err != nil:
			return nil, err
		}
		for _, e := range exports {
			if !seen[e.Name] {
				seen[e.Name] = true
				list = append(list, e)
			}
		}
	}
	if len(list) == 0 {
		return nil, refused
	}
	return list, nil
}

// FileServer is a [Handler] that opens the file at path, read-only: a
// connection keeps the file that it began with, one that is opened after the
// file was replaced by rename gets the new one. Connections to the same file
// share what it takes to have it open.
func FileServer(path string) Handler { return &fileServer{path: path} }

type fileServer struct {
	path string

	mu   sync.Mutex
	last *servedFile // nil: nobody has it open
}

// servedFile is closed with its last connection. fileServer.mu guards users.
type servedFile struct {
	*File
	info  fs.FileInfo
	users int
}

func (s *fileServer) OpenNBD(context.Context, *Request) (Device, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.last
	// Before it is opened: what changes meanwhile is seen by the next one.
	info, err := os.Stat(s.path)
	if f == nil || err != nil || !f.is(info) {
		opened, err := OpenFile(s.path)
		if err != nil {
			return nil, err
		}
		f = &servedFile{File: opened, info: info}
		s.last = f
	}
	f.users++
	return &heldDevice{Pass: Pass{f.File}, release: func() error { return s.release(f) }}, nil
}

// is reports whether info is that of the open file, as it was then.
func (f *servedFile) is(info fs.FileInfo) bool {
	return f.info != nil && os.SameFile(f.info, info) && f.info.Size() == info.Size() && f.info.ModTime().Equal(info.ModTime())
}

func (s *fileServer) release(f *servedFile) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.users--; f.users > 0 {
		return nil
	}
	if s.last == f {
		s.last = nil
	}
	return f.Close()
}

// heldDevice is one connection's hold on a device that others may have too.
type heldDevice struct {
	Pass
	once    sync.Once
	release func() error
}

func (d *heldDevice) Close() (err error) {
	d.once.Do(func() { err = d.release() })
	return err
}

// Share is a [Handler] that gives every connection the same device. The device
// is never closed by a server, it belongs to the caller.
func Share(dev Device) Handler {
	dev = shared{Pass{dev}}
	return HandlerFunc(func(context.Context, *Request) (Device, error) { return dev, nil })
}

type shared struct{ Pass }

func (shared) Close() error { return nil }
