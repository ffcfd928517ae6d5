package nbd

import (
	"errors"
	"fmt"
	"io"
	"syscall"

	"golang.org/x/sys/unix"
)

// What a File can do beside reading and writing, where the system lets it.
const (
	fileTrims   = true
	fileExtents = true
)

// Trim gives the range's space back and makes it zero, where the file system
// or the block device can; else it does nothing.
func (d *File) Trim(off, n int64) error {
	n, err := d.mayChange("trim", off, n)
	if err != nil || n == 0 {
		return err
	}
	if err := d.fallocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n); !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}

// Zero makes the range zero, by a hole or by allocating it anew, and by
// writing zeroes where neither can be had.
func (d *File) Zero(off, n int64, flags ZeroFlags) error {
	n, err := d.mayChange("zero", off, n)
	if err != nil || n == 0 {
		return err // what is beyond the file's end is zero already
	}
	modes := []uint32{unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_ZERO_RANGE}
	if flags&ZeroNoHole != 0 {
		modes = modes[1:]
	}
	for _, mode := range modes {
		if err := d.fallocate(mode, off, n); !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	if flags&ZeroFast != 0 {
		return unsupported("zero fast")
	}
	return d.writeZeroes(off, n)
}

// fallocate's error is errors.ErrUnsupported where that is what it means.
func (d *File) fallocate(mode uint32, off, n int64) error {
	raw, err := d.f.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	err = raw.Control(func(fd uintptr) {
		for {
			if ferr = unix.Fallocate(int(fd), mode, off, n); ferr != unix.EINTR {
				return
			}
		}
	})
	switch {
	case err != nil:
		return err
	case ferr == unix.EOPNOTSUPP, ferr == unix.ENOSYS, ferr == unix.ENODEV,
		ferr == unix.EINVAL: // a block device, where the range is not of its blocks
		return fmt.Errorf("fallocate %s: %w: %w", d.f.Name(), ferr, errors.ErrUnsupported)
	case ferr != nil:
		return fmt.Errorf("fallocate %s: %w", d.f.Name(), ferr)
	}
	return nil
}

// Cache has the system read ahead.
func (d *File) Cache(off, n int64) error {
	n, err := d.inFile("cache", off, n)
	if err != nil || n == 0 {
		return err
	}
	raw, err := d.f.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) {
		_ = unix.Fadvise(int(fd), off, n, unix.FADV_WILLNEED) // advice
	})
}

// Extents asks the file system for holes.
func (d *File) Extents(off, n int64, dst []Extent) (int, error) {
	inFile, err := d.inFile("look at", off, n)
	if err != nil {
		return 0, err
	}
	hole := Extent{Hole: true, Zero: true}
	m := 0
	add := func(e Extent, length int64) {
		e.Length = length
		dst[m] = e
		m++
	}
	end := off + inFile
	for off < end && m < len(dst) {
		data, err := d.f.Seek(off, unix.SEEK_DATA)
		switch {
		case errors.Is(err, syscall.ENXIO): // none from here on
			if size, err := d.f.Seek(0, io.SeekEnd); err != nil || size < end {
				add(Extent{}, end-off) // it was cut: reading will tell
			} else {
				add(hole, end-off)
			}
			off = end
			continue
		case err != nil: // it does not know, or fails when it is read
			add(Extent{}, end-off)
			off = end
			continue
		case data > off:
			data = min(data, end)
			add(hole, data-off)
			off = data
			continue
		}
		next, err := d.f.Seek(off, unix.SEEK_HOLE)
		if err != nil || next <= off {
			next = end
		}
		next = min(next, end)
		add(Extent{}, next-off)
		off = next
	}
	if padding := n - inFile; off == end && padding > 0 && m < len(dst) {
		add(hole, padding)
	}
	return m, nil
}

// writeZeroes is the slow way.
func (d *File) writeZeroes(off, n int64) error {
	var zeroes [64 << 10]byte
	for n > 0 {
		m, err := d.f.WriteAt(zeroes[:min(n, int64(len(zeroes)))], off)
		if err != nil {
			return err
		}
		if m == 0 {
			return io.ErrShortWrite
		}
		off, n = off+int64(m), n-int64(m)
	}
	return nil
}
