package nbd

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
)

// Segment is a part of what a [Mapper] reads as.
type Segment struct {
	// Data is its bytes, for system calls only: it may be mapped memory,
	// where a look at a file that was cut would be a fault of the program,
	// while a system call only fails (EFAULT). nil is Zeroes.
	Data []byte
	// Zeroes is how many zero bytes the segment is when it has no Data.
	Zeroes int64

	m   *Mapping // held, when Data is in it
	end int64    // of Data, in the file
}

// Len returns the length in bytes.
func (s *Segment) Len() int64 {
	if s.Data == nil {
		return s.Zeroes
	}
	return int64(len(s.Data))
}

// Release says that Data will not be looked at any more. It must be called
// once for every segment that a Map has returned.
func (s *Segment) Release() {
	if s.m != nil {
		_ = s.m.release()
	}
	*s = Segment{}
}

func releaseSegments(segs []Segment) {
	for i := range segs {
		segs[i].Release()
	}
}

// Mapping is a file in memory, of which a [Mapper] makes its segments. Its
// methods may be called concurrently.
type Mapping struct {
	f       *os.File
	regular bool
	data    []byte
	seen    readSet

	// refs counts the segments that are out, and one for being open; with
	// mappingClosed, there will be no more. The memory goes with the last, so
	// that nothing else is ever found at its place.
	refs atomic.Int64

	// mu is held shared while f is used, so that it is not closed meanwhile.
	mu sync.RWMutex
}

const (
	mappingClosed = 1 << 60
	mappingGone   = 1<<61 | mappingClosed
)

// Segment returns the n bytes at off, held until [Segment.Release]. It is
// false when that is not within what was mapped, and after Close.
func (m *Mapping) Segment(off, n int64) (Segment, bool) {
	if off < 0 || n <= 0 || off > int64(len(m.data)) || n > int64(len(m.data))-off || !m.hold() {
		return Segment{}, false
	}
	return Segment{Data: m.data[off : off+n : off+n], m: m, end: off + n}, true
}

func (m *Mapping) hold() bool {
	if m.refs.Add(1) < mappingClosed {
		return true
	}
	_ = m.release()
	return false
}

func (m *Mapping) release() error {
	if m.refs.Add(-1) == mappingClosed && m.refs.CompareAndSwap(mappingClosed, mappingGone) {
		return unmap(m.data)
	}
	return nil
}

// reaches says whether the file is open and still at least n bytes long.
func (m *Mapping) reaches(n int64) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.refs.Load() < mappingClosed && (!m.regular || fileReaches(m.f, n))
}

// Close takes the file out of memory at once: who still holds a segment gets
// EFAULT for it from the kernel, and has to read anew. The file itself stays
// open; close it afterwards.
func (m *Mapping) Close() error {
	m.mu.Lock()
	refs := m.refs.Or(mappingClosed)
	m.mu.Unlock()
	if refs >= mappingClosed {
		return nil
	}
	var err error
	if refs > 1 {
		err = revoke(m.data)
	}
	return errors.Join(err, m.release())
}
