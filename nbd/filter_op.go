package nbd

import (
	"errors"
	"io"
	"time"
)

// Op is a kind of request to a [Device], named as the method that does it.
type Op int

const (
	OpRead    Op = iota // ReadAt
	OpWrite             // WriteAt
	OpSync              // Sync
	OpTrim              // Trim
	OpZero              // Zero
	OpCache             // Cache
	OpExtents           // Extents
	numOps
)

var opNames = [numOps]string{"read", "write", "sync", "trim", "zero", "cache", "extents"}

func (op Op) String() string {
	if op < 0 || op >= numOps {
		return "unknown"
	}
	return opNames[op]
}

// opFilter is told of every request to a device. n is its length in bytes.
type opFilter interface {
	// before may hold the request up, or answer it with an error.
	before(op Op, off, n int64) error
	// after gets what the device said, or before.
	after(op Op, n int64, took time.Duration, err error)
	// slow says that before may wait, or has to see each read.
	slow() bool
	closed()
}

// filtered is a device whose requests go through an opFilter. It has the
// abilities of its device and no others.
type filtered struct {
	Pass
	opFilter
}

// Features are the device's. Behind a slow filter nothing is mapped.
func (d *filtered) Features() Features {
	f := d.Pass.Features()
	if d.slow() {
		f.Map, f.Slow = false, true
	}
	return f
}

// Map counts as a read, of the bytes that it maps.
func (d *filtered) Map(off, n int64, dst []Segment) (segs []Segment, err error) {
	if d.slow() {
		return dst, errNotMapped
	}
	start := time.Now()
	segs, err = d.Pass.Map(off, n, dst)
	if errors.Is(err, errors.ErrUnsupported) {
		return segs, err // it will be read
	}
	mapped := n
	if err != nil {
		mapped = 0
	}
	d.after(OpRead, mapped, time.Since(start), err)
	return segs, err
}

func (d *filtered) do(op Op, off, n int64, request func() error) error {
	start := time.Now()
	err := d.before(op, off, n)
	if err == nil {
		err = request()
	}
	d.after(op, n, time.Since(start), err)
	return err
}

func (d *filtered) ReadAt(p []byte, off int64) (n int, err error) {
	start := time.Now()
	if err = d.before(OpRead, off, int64(len(p))); err == nil {
		n, err = d.Pass.ReadAt(p, off)
	}
	failure := err
	if err == io.EOF {
		failure = nil // a read up to the end, or past it, is none
	}
	d.after(OpRead, int64(n), time.Since(start), failure)
	return n, err
}

func (d *filtered) WriteAt(p []byte, off int64) (n int, err error) {
	start := time.Now()
	if err = d.before(OpWrite, off, int64(len(p))); err == nil {
		n, err = d.Pass.WriteAt(p, off)
	}
	d.after(OpWrite, int64(n), time.Since(start), err)
	return n, err
}

func (d *filtered) Sync() error { return d.do(OpSync, 0, 0, d.Pass.Sync) }

func (d *filtered) Trim(off, n int64) error {
	return d.do(OpTrim, off, n, func() error { return d.Pass.Trim(off, n) })
}

func (d *filtered) Zero(off, n int64, flags ZeroFlags) error {
	return d.do(OpZero, off, n, func() error { return d.Pass.Zero(off, n, flags) })
}

func (d *filtered) Cache(off, n int64) error {
	return d.do(OpCache, off, n, func() error { return d.Pass.Cache(off, n) })
}

func (d *filtered) Extents(off, n int64, dst []Extent) (count int, err error) {
	err = d.do(OpExtents, off, n, func() error {
		count, err = d.Pass.Extents(off, n, dst)
		return err
	})
	return count, err
}

func (d *filtered) Close() error {
	d.closed()
	return d.Pass.Close()
}
