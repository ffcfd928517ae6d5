package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/seed-3ec230fa/diskless/nbd"
)

// overlays gives each client address a writable device of its own over base.
// A client that comes back finds what it wrote, so they stay open.
type overlays struct {
	base    *nbd.File
	dir, id string // dir "" is memory
	quota   int64

	mu   sync.Mutex
	open map[string]*nbd.Overlay
}

// OpenNBD implements nbd.Handler.
func (o *overlays) OpenNBD(ctx context.Context, r *nbd.Request) (nbd.Device, error) {
	if r.Purpose == nbd.PurposeInfo {
		return nbd.NewOverlay(o.base), nil // looks the same, and nothing is made
	}
	client := "local" // by a Unix socket
	if r.Client.IsValid() {
		client = strings.ReplaceAll(r.Client.Addr().Unmap().String(), ":", "-")
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if d := o.open[client]; d != nil {
		return nbd.Share(d).OpenNBD(ctx, r)
	}
	d := nbd.NewOverlay(o.base)
	if o.dir != "" {
		var err error
		if d, err = nbd.OpenOverlay(o.base, filepath.Join(o.dir, client), o.id); err != nil {
			return nil, err
		}
	}
	d.Quota = o.quota
	if o.open == nil {
		o.open = map[string]*nbd.Overlay{}
	}
	o.open[client] = d
	return nbd.Share(d).OpenNBD(ctx, r)
}

// Close closes all overlays, after the server has ended.
func (o *overlays) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	var errs []error
	for _, d := range o.open {
		errs = append(errs, d.Close())
	}
	return errors.Join(errs...)
}

// store makes the directory of overlays, and an id by which they know the file
// that they were made over.
func store(dir, path string) (abs, id string, err error) {
	st, err := os.Stat(path)
	if err != nil {
		return "", "", err
	}
	id = st.Mode().Type().String() // of a block device its size is compared
	if st.Mode().IsRegular() {
		id = fmt.Sprintf("%d bytes of %d", st.Size(), st.ModTime().UnixNano())
	}
	abs, err = filepath.Abs(dir)
	if err != nil {
		return "", "", err
	}
	return abs, id, os.MkdirAll(abs, 0o700)
}
