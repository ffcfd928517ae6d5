package nbd

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
)

// sector is what kernels address a disk in. An image of another length is
// padded with zeroes, or its last bytes could not be reached.
const sector = 512

// fileID says which file this is and in what state.
type fileID struct {
	Dev, Ino     uint64
	Size         int64
	Mtime, Ctime int64 // nanoseconds since 1970
}

func (id fileID) sameFile(other fileID) bool { return id.Dev == other.Dev && id.Ino == other.Ino }

// imageFile is one generation of an image: an open file that is not to change.
type imageFile struct {
	f      *os.File
	file   *File // the same, to be asked for its extents and its segments
	size   int64
	digest string // 64 hexadecimal digits, set before it is shared

	refs   atomic.Int32 // closed at zero
	broken atomic.Bool  // written to since it was digested

	idMu sync.Mutex
	id   fileID // when it was digested
}

// openImageFile opens the file at path with one reference.
func openImageFile(path string) (*imageFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = fmt.Errorf("%s is not a regular file: %w", path, fs.ErrInvalid)
	case info.Size() == 0:
		err = fmt.Errorf("%s is empty: %w", path, fs.ErrInvalid)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	file := &imageFile{f: f, size: info.Size(), id: statID(info)}
	file.file = newFile(f, file.size, false)
	file.refs.Store(1)
	return file, nil
}

func (f *imageFile) retain() *imageFile { f.refs.Add(1); return f }

// tryRetain is retain for one who holds no reference yet: the file may have
// been closed meanwhile.
func (f *imageFile) tryRetain() bool {
	for {
		n := f.refs.Load()
		if n <= 0 {
			return false
		}
		if f.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (f *imageFile) release() {
	if f.refs.Add(-1) == 0 {
		f.file.Close() // opened for reading: nothing can be lost
	}
}

func (f *imageFile) stat() (fileID, error) {
	info, err := f.f.Stat()
	if err != nil {
		return fileID{}, err
	}
	return statID(info), nil
}

func (f *imageFile) seen() fileID {
	f.idMu.Lock()
	defer f.idMu.Unlock()
	return f.id
}

func (f *imageFile) setSeen(id fileID) {
	f.idMu.Lock()
	defer f.idMu.Unlock()
	f.id = id
}

// generation returns the digits that export names carry.
func (f *imageFile) generation() string { return f.digest[:GenerationDigits] }

// paddedSize is the size of the device.
func (f *imageFile) paddedSize() int64 { return (f.size + sector - 1) / sector * sector }

// ReadAt reads the device: the file, then zeroes up to a whole sector. It
// fails once the file is known to have been written to, so that no machine
// goes on with half an old and half a new image.
func (f *imageFile) ReadAt(p []byte, off int64) (int, error) {
	if f.broken.Load() {
		return 0, errImageChanged
	}
	size := f.paddedSize()
	switch {
	case off < 0:
		return 0, fs.ErrInvalid
	case off >= size:
		return 0, io.EOF
	}
	var tail error
	if int64(len(p)) > size-off {
		p, tail = p[:size-off], io.EOF
	}
	have := min(int64(len(p)), max(0, f.size-off))
	if n, err := f.f.ReadAt(p[:have], off); int64(n) < have {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF // the file was cut
		}
		return n, err
	}
	clear(p[have:])
	return len(p), tail
}

var errImageChanged = errors.New("nbd: the image's file was written to in place: publish images by renaming a new file over the old one")

// imageDevice is an open generation, read-only.
type imageDevice struct {
	*imageFile
	closed sync.Once
}

func (d *imageDevice) Size() int64 { return d.paddedSize() }
func (d *imageDevice) Features() Features {
	return Features{Extents: fileExtents, Map: d.file.mapped != nil, MultiConn: true}
}

// Map implements [Mapper].
func (d *imageDevice) Map(off, n int64, dst []Segment) ([]Segment, error) {
	if d.broken.Load() {
		return dst, errImageChanged
	}
	return d.file.Map(off, n, dst)
}

func (d *imageDevice) Close() error {
	d.closed.Do(d.release)
	return nil
}
