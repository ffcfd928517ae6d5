package nbd

import (
	"errors"
	"fmt"
	"math"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// canMap: with 32 bits there is no room for images.
const canMap = math.MaxInt > math.MaxInt32

// MapFile maps the first n bytes of f for reading, also those that the file
// does not have yet. It fails with an error that wraps
// [errors.ErrUnsupported] where that is not possible, as on systems other than
// Linux and with 32-bit addresses; do without, then.
func MapFile(f *os.File, n int64) (*Mapping, error) {
	if !canMap || n <= 0 {
		return nil, unsupported("be mapped")
	}
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("nbd: %w", err)
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("nbd: %w", err)
	}
	m := &Mapping{f: f, regular: st.Mode().IsRegular()}
	var merr error
	err = raw.Control(func(fd uintptr) {
		m.data, merr = unix.Mmap(int(fd), 0, int(n), unix.PROT_READ, unix.MAP_SHARED)
	})
	if err = errors.Join(err, merr); err != nil {
		return nil, fmt.Errorf("nbd: mapping %s: %w: %w", f.Name(), err, errors.ErrUnsupported)
	}
	m.refs.Store(1)
	return m, nil
}

func unmap(data []byte) error { return unix.Munmap(data) }

// revoke puts memory that cannot be read in the place of the file's.
func revoke(data []byte) error {
	_, err := unix.MmapPtr(-1, 0, unsafe.Pointer(unsafe.SliceData(data)), uintptr(len(data)),
		unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED|unix.MAP_NORESERVE)
	return err
}

// fileReaches says whether an open file is at least n bytes long.
func fileReaches(f *os.File, n int64) bool {
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && st.Size >= n
}
