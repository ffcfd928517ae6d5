package nbd

import "io"

// NewReaderAt returns a read-only [Device] over the first size bytes of r,
// padded with zeroes to a multiple of 512 bytes. It is safe for concurrent use
// as far as r.ReadAt is. It is no [io.Closer]: r belongs to the caller.
func NewReaderAt(r io.ReaderAt, size int64) Device {
	return &readerAt{r: r, size: max(size, 0)}
}

type readerAt struct {
	r    io.ReaderAt
	size int64
}

func (d *readerAt) Size() int64        { return padded(d.size) }
func (d *readerAt) Features() Features { return Features{MultiConn: true} }

func (d *readerAt) ReadAt(p []byte, off int64) (int, error) {
	return readPadded(d.r, p, off, d.size)
}
