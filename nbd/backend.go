package nbd

import (
	"fmt"

	"github.com/pojntfx/go-nbd/pkg/backend"
)

// FromBackend returns a writable [Device] over a backend written for
// github.com/pojntfx/go-nbd. Its size is taken once, now, and not padded. All
// connections that get the Device share b, which must be safe for concurrent
// use.
func FromBackend(b backend.Backend) (Device, error) {
	size, err := b.Size()
	if err != nil {
		return nil, fmt.Errorf("nbd: the backend's size: %w", err)
	}
	if size < 0 {
		return nil, fmt.Errorf("nbd: the backend's size is %d", size)
	}
	return &backendDevice{Backend: b, size: size}, nil
}

type backendDevice struct {
	backend.Backend
	size int64
}

func (d *backendDevice) Size() int64 { return d.size }
func (d *backendDevice) Features() Features {
	return Features{Write: true, Flush: true, Slow: true, MultiConn: true}
}
