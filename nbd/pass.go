package nbd

import (
	"errors"
	"fmt"
	"io"
)

// Pass is a [Device] that passes every call on to another one, and has just its
// features. It is what a filter embeds, to override what it is about:
//
//	type late struct{ nbd.Pass }
//
//	func (d late) Features() nbd.Features {
//		f := d.Pass.Features()
//		f.Map, f.Slow = false, true // each read is to come here
//		return f
//	}
//
//	func (d late) ReadAt(p []byte, off int64) (int, error) {
//		time.Sleep(time.Millisecond)
//		return d.Pass.ReadAt(p, off)
//	}
//
// It has the methods of all abilities. Those that the Device has not fail with
// [errors.ErrUnsupported] and are not in Features, and no caller uses what is
// not in Features. A filter that changes what is written overrides WriteAt,
// Trim and Zero, or clears their bits in Features; one that changes or watches
// what is read, ReadAt, Map and Extents.
type Pass struct{ Device Device }

func unsupported(op string) error {
	return fmt.Errorf("nbd: the device cannot %s: %w", op, errors.ErrUnsupported)
}

// Size returns the Device's.
func (d Pass) Size() int64 { return d.Device.Size() }

// Features returns what [FeaturesOf] says of the Device.
func (d Pass) Features() Features { return FeaturesOf(d.Device) }

// ReadAt reads from the Device.
func (d Pass) ReadAt(p []byte, off int64) (int, error) { return d.Device.ReadAt(p, off) }

// WriteAt writes to the Device.
func (d Pass) WriteAt(p []byte, off int64) (int, error) {
	if w, ok := d.Device.(io.WriterAt); ok {
		return w.WriteAt(p, off)
	}
	return 0, unsupported("write")
}

// Sync syncs the Device.
func (d Pass) Sync() error {
	if s, ok := d.Device.(Syncer); ok {
		return s.Sync()
	}
	return unsupported("flush")
}

// Trim trims the Device.
func (d Pass) Trim(off, n int64) error {
	if t, ok := d.Device.(Trimmer); ok {
		return t.Trim(off, n)
	}
	return unsupported("trim")
}

// Zero zeroes a range of the Device.
func (d Pass) Zero(off, n int64, flags ZeroFlags) error {
	if z, ok := d.Device.(Zeroer); ok {
		return z.Zero(off, n, flags)
	}
	return unsupported("zero")
}

// Cache tells the Device what will be read.
func (d Pass) Cache(off, n int64) error {
	if c, ok := d.Device.(Cacher); ok {
		return c.Cache(off, n)
	}
	return unsupported("cache")
}

// Extents asks the Device.
func (d Pass) Extents(off, n int64, dst []Extent) (int, error) {
	if e, ok := d.Device.(Extenter); ok {
		return e.Extents(off, n, dst)
	}
	return 0, unsupported("tell its extents")
}

// Map asks the Device.
func (d Pass) Map(off, n int64, dst []Segment) ([]Segment, error) {
	if m, ok := d.Device.(Mapper); ok {
		return m.Map(off, n, dst)
	}
	return dst, unsupported("be mapped")
}

// Close closes the Device, if it is an [io.Closer].
func (d Pass) Close() error {
	if c, ok := d.Device.(io.Closer); ok {
		return c.Close()
	}
	return nil
}
