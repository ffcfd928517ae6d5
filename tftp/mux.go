package tftp

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"strings"
	"sync"
)

// Mux chooses a handler by the directory that a name begins with; the longest
// one that is registered wins. The handler sees the name without it, as with
// [net/http.StripPrefix]; [Request].Raw stays. The zero value has no handlers
// and may be used concurrently.
type Mux struct {
	mu       sync.RWMutex
	handlers map[string]Handler
}

// Handle registers a handler for a directory, slash-separated; "" or "/" is the
// root, for all that no other one takes. A second registration replaces the
// first; nil takes it away.
func (m *Mux) Handle(dir string, h Handler) {
	dir = strings.TrimPrefix(path.Clean("/"+dir), "/")
	m.mu.Lock()
	defer m.mu.Unlock()
	if h == nil {
		delete(m.handlers, dir)
		return
	}
	if m.handlers == nil {
		m.handlers = make(map[string]Handler)
	}
	m.handlers[dir] = h
}

// match finds the handler, and the name that it gets.
func (m *Mux) match(name string) (h Handler, rest string) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for dir, rest := name, "."; ; {
		if h := m.handlers[dir]; h != nil {
			return h, rest
		}
		if dir == "" {
			return nil, ""
		}
		i := strings.LastIndexByte(dir, '/')
		dir = dir[:max(i, 0)]
		rest = name[i+1:]
		if i < 0 {
			rest = name
		}
	}
}

func (m *Mux) ask(r *Request) (Handler, *Request, error) {
	h, rest := m.match(r.Name)
	if h == nil {
		return nil, nil, notExist(r.Name)
	}
	q := *r
	q.Name = rest
	return h, &q, nil
}

// OpenTFTP asks the handler of the name's directory.
func (m *Mux) OpenTFTP(ctx context.Context, r *Request) (File, error) {
	h, q, err := m.ask(r)
	if err != nil {
		return nil, err
	}
	return h.OpenTFTP(ctx, q)
}

// CreateTFTP asks the handler of the name's directory, when it takes uploads.
func (m *Mux) CreateTFTP(ctx context.Context, r *Request) (Upload, error) {
	h, q, err := m.ask(r)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoUploads
	}
	return create(ctx, h, q)
}
