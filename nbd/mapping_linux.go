package nbd

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// canMap: with 32 bits there is no room for images.
const canMap = math.MaxInt > math.MaxInt32

// MapFile maps the first n bytes of f for reading, also those that the file
// does not have yet. Of what is sent from it the system is told beforehand; a
// look at the memory itself brings in a page and nothing around it. It fails with an error that wraps
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
	_ = unix.Madvise(m.data, unix.MADV_RANDOM) // advice
	m.seen.init(n, m.regular && stored(st) < n/2)
	m.refs.Store(1)
	return m, nil
}

// stored returns how many bytes of a file are not holes.
func stored(st fs.FileInfo) int64 {
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		return s.Blocks * 512
	}
	return st.Size()
}

// fetch has the system read what of a segment may not be in memory, with what
// goes with it, and says whether anything may not. A single page is left to the
// page fault, unless there are several to be had.
func (m *Mapping) fetch(s *Segment, several bool) bool {
	around, ahead, fresh := m.seen.want(s.end-int64(len(s.Data)), s.end)
	if fresh && (several || around.end-around.off > 1<<pageShift) {
		m.willNeed(around)
	}
	if ahead.end > 0 {
		m.willNeed(ahead)
	}
	return fresh
}

// willNeed reads without waiting, as far as the system lets it. The memory is held.
func (m *Mapping) willNeed(r byteRange) {
	r.off -= r.off % int64(os.Getpagesize())
	r.end = min(r.end, int64(len(m.data)))
	for piece := range r.hints {
		_ = unix.Madvise(m.data[piece.off:piece.end], unix.MADV_WILLNEED) // advice
	}
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
