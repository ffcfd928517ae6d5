package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/bits"
	"sync"
	"sync/atomic"
)

// A stored overlay is two files in a directory of its own:
//
//   - data holds block i of the base at i*4096, is sparse, and means nothing
//     where the map has no bit;
//   - map is one page of header, then one bit per block, little-endian words.
//
// What makes it safe against power loss:
//
//   - A bit only ever goes from 0 to 1 in a map, so that a torn write of the
//     map is a mixture of two valid maps.
//   - Sync first makes data durable, then writes the bits that were set
//     before it began, then makes the map durable: no bit is durable before
//     its block is.
//   - Reset puts a new, empty map in the old one's place (durable, renamed,
//     directory durable) before it touches data.
//   - Creation makes the map durable before there is a data file, so that a
//     data file without a map is always an accident, and is refused instead
//     of overwritten.
const (
	overlayDataName = "data"
	overlayMapName  = "map"
	overlayTempName = "map.new"

	overlayMagic   = "diskless overlay"
	overlayVersion = 1
	overlayMaxID   = 128

	mapPageBytes = 4096
	mapPageWords = mapPageBytes / 8
)

// overlayDir is the little that a stored overlay needs of its directory.
// Tests put a recorder in its place.
type overlayDir interface {
	// open opens a file for reading and writing; with create it makes an
	// empty one, in the place of any that is there.
	open(name string, create bool) (overlayFile, error)
	rename(from, to string) error
	// sync makes creations and renames durable.
	sync() error
	close() error
}

type overlayFile interface {
	io.ReaderAt
	io.WriterAt
	size() (int64, error)
	truncate(int64) error
	// sync makes the contents durable, and as much about the file as is
	// needed to read them.
	sync() error
	close() error
}

// OpenOverlay opens the overlay stored in the directory dir, or makes an empty
// one there. The directory belongs to the overlay alone; its parent must
// exist. id says which base this is, best a digest of its content (at most
// 128 bytes): an overlay made over another base, or over one of another size,
// is refused with an error that wraps [fs.ErrInvalid], because its blocks
// would be mixed with foreign ones.
//
// What was flushed before a crash or a loss of power is there again. On Linux
// an overlay that another process has open is refused.
func OpenOverlay(base Device, dir, id string) (*Overlay, error) {
	d, err := openOverlayDir(dir)
	if err != nil {
		return nil, fmt.Errorf("nbd: overlay %s: %w", dir, err)
	}
	s, err := openFileStore(d, base.Size(), id)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("nbd: overlay %s: %w", dir, err), d.close())
	}
	o := &Overlay{base: base, size: base.Size(), store: s}
	o.used.Store(s.count())
	return o, nil
}

// mapPage is a page of the map in memory.
type mapPage struct {
	words [mapPageWords]atomic.Uint64
	dirty atomic.Bool
}

type fileStore struct {
	dir      overlayDir
	data     overlayFile
	baseSize int64
	id       string

	// pages is the map; a page without a bit is nil, so that an overlay's
	// cost does not depend on the size of the image.
	pages []atomic.Pointer[mapPage]
	// unsynced is set after each write to data.
	unsynced atomic.Bool
	// failed holds the first error of a sync.
	failed atomic.Pointer[error]

	syncMu  sync.Mutex
	mapFile overlayFile
}

func openFileStore(d overlayDir, baseSize int64, id string) (*fileStore, error) {
	if len(id) > overlayMaxID {
		return nil, fmt.Errorf("the base's id is longer than %d bytes: %w", overlayMaxID, fs.ErrInvalid)
	}
	blocks := (baseSize + overlayBlock - 1) / overlayBlock
	s := &fileStore{dir: d, baseSize: baseSize, id: id}
	s.pages = make([]atomic.Pointer[mapPage], (blocks+mapPageWords*64-1)/(mapPageWords*64))
	if err := s.open(); err != nil {
		if s.mapFile != nil {
			err = errors.Join(err, s.mapFile.close())
		}
		if s.data != nil {
			err = errors.Join(err, s.data.close())
		}
		return nil, err
	}
	return s, nil
}

func (s *fileStore) open() (err error) {
	s.mapFile, err = s.dir.open(overlayMapName, false)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.data, err = s.dir.open(overlayDataName, false)
		if err == nil {
			return fmt.Errorf("there is a data file but no map that says which of its blocks count: restore the map, or remove the directory to start anew: %w", fs.ErrInvalid)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if s.mapFile, err = s.newMap(); err != nil {
			return err
		}
	case err != nil:
		return err
	default:
		if err := s.load(); err != nil {
			return err
		}
	}
	s.data, err = s.dir.open(overlayDataName, false)
	if errors.Is(err, fs.ErrNotExist) && s.end() == 0 {
		// Creation ends with this file, so it is missing after a crash
		// between the two.
		if s.data, err = s.dir.open(overlayDataName, true); err == nil {
			err = s.dir.sync()
		}
	}
	if err != nil {
		return err
	}
	if size, err := s.data.size(); err != nil {
		return err
	} else if size < s.end() {
		return fmt.Errorf("the data file ends at %d, before the last block of the map at %d: it was cut: %w", size, s.end(), fs.ErrInvalid)
	}
	return nil
}

// last returns the number of the last block present, -1 when there is none.
func (s *fileStore) last() int64 {
	for i := len(s.pages) - 1; i >= 0; i-- {
		page := s.pages[i].Load()
		if page == nil {
			continue
		}
		for w := mapPageWords - 1; w >= 0; w-- {
			if word := page.words[w].Load(); word != 0 {
				return (int64(i)*mapPageWords+int64(w))*64 + int64(bits.Len64(word)) - 1
			}
		}
	}
	return -1
}

// end returns how long data must be at least.
func (s *fileStore) end() int64 { return min((s.last()+1)*overlayBlock, s.baseSize) }

func (s *fileStore) count() (n int64) {
	for i := range s.pages {
		if page := s.pages[i].Load(); page != nil {
			for w := range page.words {
				n += int64(bits.OnesCount64(page.words[w].Load()))
			}
		}
	}
	return n
}

func (s *fileStore) present(chunk int64) uint64 {
	if page := s.pages[chunk/mapPageWords].Load(); page != nil {
		return page.words[chunk%mapPageWords].Load()
	}
	return 0
}

func (s *fileStore) mark(chunk int64, word uint64) {
	slot := &s.pages[chunk/mapPageWords]
	page := slot.Load()
	if page == nil {
		// Another stripe may be here too; one of the two pages wins.
		slot.CompareAndSwap(nil, new(mapPage))
		page = slot.Load()
	}
	page.words[chunk%mapPageWords].Store(word)
	page.dirty.Store(true) // after the word: sync looks at them the other way round
}

func (s *fileStore) read(p []byte, off int64) error { return readFullAt(s.data, p, off) }

func (s *fileStore) write(p []byte, off int64) error {
	if err := s.failed.Load(); err != nil {
		return *err
	}
	_, err := s.data.WriteAt(p, off)
	s.unsynced.Store(true)
	return err
}

// sync is described at the top of this file.
func (s *fileStore) sync() error {
	s.syncMu.Lock()
	defer s.syncMu.Unlock()
	if err := s.failed.Load(); err != nil {
		return *err
	}
	type dirtyPage struct {
		off  int64
		data []byte
	}
	var dirty []dirtyPage
	for i := range s.pages {
		page := s.pages[i].Load()
		if page == nil || !page.dirty.Swap(false) {
			continue
		}
		data := make([]byte, mapPageBytes)
		for w := range mapPageWords {
			binary.LittleEndian.PutUint64(data[w*8:], page.words[w].Load())
		}
		dirty = append(dirty, dirtyPage{int64(1+i) * mapPageBytes, data})
	}
	if s.unsynced.Swap(false) || len(dirty) > 0 {
		if err := s.data.sync(); err != nil {
			return s.fail(err)
		}
	}
	for _, d := range dirty {
		if _, err := s.mapFile.WriteAt(d.data, d.off); err != nil {
			return s.fail(err)
		}
	}
	if len(dirty) > 0 {
		if err := s.mapFile.sync(); err != nil {
			return s.fail(err)
		}
	}
	return nil
}

// fail stops all further writes: after a failed sync the kernel may have
// dropped pages that were never written, and the next sync would say "all is
// well".
func (s *fileStore) fail(err error) error {
	err = fmt.Errorf("nbd: overlay: a flush failed, nothing more is written until it is opened again: %w", err)
	s.failed.Store(&err)
	return err
}

func (s *fileStore) reset() error {
	s.syncMu.Lock()
	defer s.syncMu.Unlock()
	f, err := s.newMap()
	if f == nil {
		return err
	}
	// The new map has the name now, whatever else went wrong.
	old := s.mapFile
	s.mapFile = f
	for i := range s.pages {
		s.pages[i].Store(nil)
	}
	closeErr := old.close()
	if err != nil {
		return s.fail(err)
	}
	s.failed.Store(nil)
	s.unsynced.Store(false)
	// Only gives space back: no bit points there any more.
	return errors.Join(s.data.truncate(0), closeErr)
}

func (s *fileStore) close() error {
	return errors.Join(s.mapFile.close(), s.data.close(), s.dir.close())
}
