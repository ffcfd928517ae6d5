package nbd

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync/atomic"
)

// sectorLen is what the size of a device is padded to: a kernel counts in
// sectors and would lose the tail of an image, as of a squashfs that was not
// padded.
const sectorLen = 512

// File is a [Device] over a regular file or a block device. Its size is that
// of the file when it was opened, rounded up to a multiple of 512 bytes; what
// is beyond the file's end reads as zeroes. It may be used concurrently.
//
// A file that is replaced by rename stays what it was for those who have it
// open. One that is changed in place changes under its readers; one that is
// truncated gives errors.
type File struct {
	f        *os.File
	size     int64 // of the device
	writable bool
	mapped   *Mapping // nil: it cannot be

	// length is that of the file: what a device has beyond it is padding,
	// until it is written to.
	length atomic.Int64
}

// OpenFile opens path for reading.
func OpenFile(path string) (*File, error) { return openFile(path, os.O_RDONLY) }

// OpenFileRW opens path for reading and writing, for an export that is to
// change the file itself. Writing to its last, padded sector makes the file
// as long as the device.
func OpenFileRW(path string) (*File, error) { return openFile(path, os.O_RDWR) }

func openFile(path string, flag int) (*File, error) {
	// Opening a FIFO would wait for its other end.
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("nbd: %w", err)
	}
	mode := st.Mode()
	if !mode.IsRegular() && (mode&fs.ModeDevice == 0 || mode&fs.ModeCharDevice != 0) {
		return nil, fmt.Errorf("nbd: %s is neither a regular file nor a block device: %w", path, fs.ErrInvalid)
	}
	f, err := os.OpenFile(path, flag, 0)
	if err != nil {
		return nil, fmt.Errorf("nbd: %w", err)
	}
	// A block device has its size only at its end.
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("nbd: %w", err)
	}
	return newFile(f, size, flag == os.O_RDWR), nil
}

func newFile(f *os.File, size int64, writable bool) *File {
	d := &File{f: f, size: padded(size), writable: writable}
	d.length.Store(size)
	d.mapped, _ = MapFile(f, d.size) // can be done without
	return d
}

// Size returns the padded size in bytes.
func (d *File) Size() int64 { return d.size }

// Features: one opened with OpenFileRW can be written and flushed, and on Linux
// trimmed and zeroed; on Linux any File knows its holes and is mapped.
func (d *File) Features() Features {
	return Features{
		Write: d.writable, Flush: d.writable,
		Trim: d.writable && fileTrims, Zero: d.writable && fileTrims, FastZero: d.writable && fileTrims,
		Cache: fileExtents, Extents: fileExtents,
		Map: d.mapped != nil, MultiConn: true,
	}
}

// ReadAt reads as [io.ReaderAt] says. A file that has become shorter than it
// was when opened gives [io.ErrUnexpectedEOF].
func (d *File) ReadAt(p []byte, off int64) (int, error) {
	return readPadded(d.f, p, off, d.length.Load())
}

// WriteAt writes as [io.WriterAt] says. Past the end it fails with
// [fs.ErrInvalid], on a File opened for reading with [fs.ErrPermission].
func (d *File) WriteAt(p []byte, off int64) (int, error) {
	if _, err := d.mayChange("write", off, int64(len(p))); err != nil {
		return 0, err
	}
	n, err := d.f.WriteAt(p, off)
	for end := off + int64(n); ; {
		if length := d.length.Load(); end <= length || d.length.CompareAndSwap(length, end) {
			return n, err
		}
	}
}

// mayChange checks a write of whatever kind, and returns how much of it is
// within the file.
func (d *File) mayChange(op string, off, n int64) (int64, error) {
	if !d.writable {
		return 0, fmt.Errorf("nbd: cannot %s: %s is open for reading: %w", op, d.f.Name(), fs.ErrPermission)
	}
	return d.inFile(op, off, n)
}

// inFile checks a range, and returns how much of it is within the file and not
// padding.
func (d *File) inFile(op string, off, n int64) (int64, error) {
	if off < 0 || n < 0 || off > d.size || n > d.size-off {
		return 0, fmt.Errorf("nbd: cannot %s past the end of %s: %w", op, d.f.Name(), fs.ErrInvalid)
	}
	return max(min(n, d.length.Load()-off), 0), nil
}

// Sync returns when all that was written is on stable storage (fdatasync).
func (d *File) Sync() error { return syncData(d.f) }

// Map implements [Mapper].
func (d *File) Map(off, n int64, dst []Segment) ([]Segment, error) {
	if _, err := d.inFile("map", off, n); err != nil {
		return dst, err
	}
	return mapPadded(d.mapped, off, n, d.length.Load(), dst)
}

// Close closes the file.
func (d *File) Close() error {
	if d.mapped != nil {
		return errors.Join(d.mapped.Close(), d.f.Close())
	}
	return d.f.Close()
}

// mapPadded is readPadded for segments.
func mapPadded(m *Mapping, off, n, size int64, dst []Segment) ([]Segment, error) {
	switch {
	case m == nil:
		return dst, errNotMapped
	case off < 0 || n < 0 || n > padded(size)-off:
		return dst, fmt.Errorf("nbd: cannot map %d bytes at %d of %d: %w", n, off, padded(size), fs.ErrInvalid)
	}
	if have := min(n, size-off); have > 0 {
		s, ok := m.Segment(off, have)
		if !ok {
			return dst, errNotMapped
		}
		dst, n = append(dst, s), n-have
	}
	if n > 0 {
		dst = append(dst, Segment{Zeroes: n})
	}
	return dst, nil
}

var errNotMapped = unsupported("be mapped")

// padded rounds up to whole sectors.
func padded(size int64) int64 { return (size + sectorLen - 1) &^ (sectorLen - 1) }

// readPadded reads from r, which has size bytes, and goes on with zeroes up to
// the padded size.
func readPadded(r io.ReaderAt, p []byte, off, size int64) (int, error) {
	end := padded(size)
	switch {
	case off < 0:
		return 0, fmt.Errorf("nbd: a read at %d: %w", off, fs.ErrInvalid)
	case off >= end:
		return 0, io.EOF
	}
	want := int(min(int64(len(p)), end-off))
	short := want < len(p)
	n := 0
	if off < size {
		var err error
		m := int(min(int64(want), size-off))
		n, err = r.ReadAt(p[:m], off)
		if n < m {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return n, err
		}
	}
	clear(p[n:want])
	if short {
		return want, io.EOF
	}
	return want, nil
}
