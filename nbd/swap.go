package nbd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"
)

// Swap is a [Handler] that gives each client an empty, writable device of its
// own, for memory that does not fit: whatever name an export has, put it under
// one with [Exports]. The device is a sparse file without a name, takes the
// space that is written and not trimmed, and is gone with the process.
//
// All connections of a client to one export name share its device, and it
// stays for the time Keep after the last one has closed, since a kernel that
// reconnects wants back what it has put there. A client that boots within that
// time finds its own old bytes. Sync has nothing to keep; it returns at once.
//
// The fields must not change while it serves. Close it after its servers.
type Swap struct {
	// Size is that of each device in bytes, rounded up to a multiple of 512.
	// It must be more than 0.
	Size int64
	// Dir is the directory of the files; "" is os.TempDir(). Where that is in
	// memory, set it.
	Dir string
	// Key says which client a request is of; nil goes by its IP address. A
	// client whose key is "" is refused with [fs.ErrPermission]: nobody knows
	// whose memory it would see.
	Key func(*Request) string
	// Keep is how long a device stays after its last connection; 0 is two
	// minutes, a negative value not at all.
	Keep time.Duration
	// MaxDevices is how many devices there may be; 0 is 1024, a negative
	// value no limit. One that is too many is refused with [syscall.EBUSY].
	MaxDevices int

	mu     sync.Mutex
	closed bool
	byKey  map[swapKey]*swapFile
}

type swapKey struct{ client, export string }

// swapFile is a client's device. Swap.mu guards all but file.
type swapFile struct {
	file   *File
	users  int
	expiry *time.Timer // runs while there are no users
}

// OpenNBD gives the client its device. A look makes none that stays.
func (s *Swap) OpenNBD(_ context.Context, r *Request) (Device, error) {
	if s.Size <= 0 {
		return nil, fmt.Errorf("nbd: swap of %d bytes: set Size: %w", s.Size, fs.ErrInvalid)
	}
	key := swapKey{clientKey(r), r.Export}
	if s.Key != nil {
		key.client = s.Key(r)
	}
	if key.client == "" {
		return nil, fmt.Errorf("nbd: swap: the client cannot be told from others: %w", fs.ErrPermission)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("nbd: swap: %w", fs.ErrClosed)
	}
	f := s.byKey[key]
	if r.Purpose == PurposeInfo && f == nil {
		file, err := newSwapFile(s.Dir, s.Size)
		if err != nil {
			return nil, err
		}
		return &swapDevice{heldDevice{Pass: Pass{file}, release: file.Close}}, nil
	}
	if f == nil {
		if len(s.byKey) >= limit(s.MaxDevices, 1024, int(^uint(0)>>1)) {
			return nil, fmt.Errorf("nbd: swap: there are %d devices, the most that MaxDevices allows: %w", len(s.byKey), syscall.EBUSY)
		}
		file, err := newSwapFile(s.Dir, s.Size)
		if err != nil {
			return nil, err
		}
		f = &swapFile{file: file}
		if s.byKey == nil {
			s.byKey = make(map[swapKey]*swapFile)
		}
		s.byKey[key] = f
	}
	f.users++
	if f.expiry != nil {
		f.expiry.Stop()
		f.expiry = nil
	}
	return &swapDevice{heldDevice{Pass: Pass{f.file}, release: func() error { return s.release(key, f) }}}, nil
}

// release takes a user off f and lets it go, now or later.
func (s *Swap) release(key swapKey, f *swapFile) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.users--
	if f.users > 0 {
		return nil
	}
	keep := limit(s.Keep, 2*time.Minute, 0)
	if s.closed || keep == 0 {
		return s.drop(key, f)
	}
	var t *time.Timer
	t = time.AfterFunc(keep, func() { // ends by itself, or with Close
		s.mu.Lock()
		defer s.mu.Unlock()
		if f.expiry == t {
			_ = s.drop(key, f)
		}
	})
	f.expiry = t
	return nil
}

// drop gives f's space back; s.mu is held.
func (s *Swap) drop(key swapKey, f *swapFile) error {
	if s.byKey[key] == f {
		delete(s.byKey, key)
	}
	return f.file.Close()
}

// Close gives the space of all devices back, that of those still open when
// they are closed, and refuses new ones.
func (s *Swap) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	var err error
	for key, f := range s.byKey {
		if f.users == 0 {
			f.expiry.Stop()
			f.expiry = nil
			err = errors.Join(err, s.drop(key, f))
		}
	}
	return err
}

// newSwapFile makes a file of zeroes that has no name and is nobody else's.
func newSwapFile(dir string, size int64) (*File, error) {
	tmp, err := os.CreateTemp(dir, "nbd-swap-*") // mode 0600
	if err != nil {
		return nil, fmt.Errorf("nbd: swap: %w", err)
	}
	defer tmp.Close()
	defer os.Remove(tmp.Name())
	if err := tmp.Truncate(padded(size)); err != nil {
		return nil, fmt.Errorf("nbd: swap: %w", err)
	}
	return OpenFileRW(tmp.Name())
}

// swapDevice is one connection's device.
type swapDevice struct{ heldDevice }

// Sync returns at once: what is lost with the server is lost anyway.
func (d *swapDevice) Sync() error { return nil }
