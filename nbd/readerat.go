package nbd

import (
	"bytes"
	"io"
	"os"
	"strings"
)

// NewReaderAt returns a read-only [Device] over the first size bytes of r,
// padded with zeroes to a multiple of 512 bytes. It is safe for concurrent use
// as far as r.ReadAt is. It is no [io.Closer]: r belongs to the caller. Unless r
// is memory or a file it is taken to be slow (see [Features]).
func NewReaderAt(r io.ReaderAt, size int64) Device {
	d := &readerAt{r: r, size: max(size, 0), slow: true}
	switch r.(type) {
	case *os.File, *bytes.Reader, *strings.Reader:
		d.slow = false
	}
	return d
}

type readerAt struct {
	r    io.ReaderAt
	size int64
	slow bool
}

func (d *readerAt) Size() int64        { return padded(d.size) }
func (d *readerAt) Features() Features { return Features{Slow: d.slow, MultiConn: true} }

func (d *readerAt) ReadAt(p []byte, off int64) (int, error) {
	return readPadded(d.r, p, off, d.size)
}
