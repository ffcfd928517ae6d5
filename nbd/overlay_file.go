package nbd

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/bits"
	"sync"
	"sync/atomic"
)

// A stored overlay is two files in a directory of its own, and, while it is
// written to, a third one, which overlay_live.go describes:
//
//   - data holds block i of the base at i*4096, is sparse, and means nothing
//     where the map has no bit;
//   - map is one page of header, then two bits per block: own, it is not the
//     base's any more, and zero, it is zeroes and not in data. A byte holds
//     four blocks, own in its lower half and zero in its upper one.
//
// What makes it safe against power loss:
//
//   - A block's two bits are in one byte, so that a torn write of the map is a
//     mixture of blocks' states before and after. No block ever goes back to
//     the base.
//   - Sync first makes data durable, then writes the states that blocks had
//     before it began, then makes the map durable: no block counts as stored
//     before it is.
//   - What becomes zero has its space given back. Should the map still count it
//     as stored after a crash, it reads as the hole that it is: as zeroes too.
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
	overlayVersion = 2
	overlayMaxID   = 128
)

// overlayDir is the little that a stored overlay needs of its directory.
// Tests put a recorder in its place.
type overlayDir interface {
	// open opens a file for reading and writing; with create it makes an
	// empty one, in the place of any that is there.
	open(name string, create bool) (overlayFile, error)
	rename(from, to string) error
	remove(name string) error
	// sync makes creations, renames and removals durable.
	sync() error
	// boot says which boot of the host this is; "" is not known.
	boot() string
	close() error
}

type overlayFile interface {
	io.ReaderAt
	io.WriterAt
	size() (int64, error)
	truncate(int64) error
	// punch gives the space of a range back, which then reads as zeroes; or
	// it does nothing, where the system cannot.
	punch(off, n int64) error
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
// would be mixed with foreign ones; so is a base of more than 64 TiB.
//
// What was flushed before a crash or a loss of power is there again. On Linux
// everything that was written is, flushed or not, as long as the host has not
// restarted, however the process ended; elsewhere, and when the host has
// restarted, [Overlay.Lost] tells that there may have been more. On Linux an
// overlay that another process has open is refused.
func OpenOverlay(base Device, dir, id string) (*Overlay, error) {
	return disk{}.openOverlay(base, dir, id)
}

func (d disk) openOverlay(base Device, dir, id string) (*Overlay, error) {
	files, err := d.openOverlayDir(dir)
	if err != nil {
		return nil, fmt.Errorf("nbd: overlay %s: %w", dir, err)
	}
	s, err := openFileStore(files, base.Size(), id)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("nbd: overlay %s: %w", dir, err), files.close())
	}
	o := &Overlay{base: base, size: base.Size(), store: s, disk: d}
	o.used.Store(s.count())
	return o, nil
}

type fileStore struct {
	dir      overlayDir
	data     overlayFile
	mapped   fileMap // of data
	baseSize int64
	id       string
	boot     string
	// generation changes with each reset. Maps made before it was introduced
	// have 0.
	generation uint64

	blocks blockMap
	// unsynced is set after each write to data.
	unsynced atomic.Bool
	// failed holds the first error of a sync.
	failed atomic.Pointer[error]

	syncMu  sync.Mutex
	mapFile overlayFile

	live    atomic.Pointer[overlayFile]
	liveMu  sync.Mutex // to make it
	lost    bool       // found at the opening
	records [overlayStripe][mapChunkBytes]byte
}

func openFileStore(d overlayDir, baseSize int64, id string) (*fileStore, error) {
	if err := checkOverlay(baseSize); err != nil {
		return nil, err
	}
	if len(id) > overlayMaxID {
		return nil, fmt.Errorf("the base's id is longer than %d bytes: %w", overlayMaxID, fs.ErrInvalid)
	}
	s := &fileStore{dir: d, baseSize: baseSize, id: id, boot: d.boot(), blocks: newBlockMap(baseSize)}
	s.boot = s.boot[:min(len(s.boot), liveMaxBoot)]
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
		// between the two. Before the first write live makes its name durable,
		// together with its own.
		s.data, err = s.dir.open(overlayDataName, true)
	}
	if err != nil {
		return err
	}
	if size, err := s.data.size(); err != nil {
		return err
	} else if size < s.end() {
		return fmt.Errorf("the data file ends at %d, before the last block of the map at %d: it was cut: %w", size, s.end(), fs.ErrInvalid)
	}
	return s.openLive()
}

// end returns how long data must be at least.
func (s *fileStore) end() int64 { return min((s.blocks.last()+1)*overlayBlock, s.baseSize) }

func (s *fileStore) state(chunk int64) (data, zero uint64) { return s.blocks.state(chunk) }
func (s *fileStore) mark(chunk int64, fresh uint64)        { s.blocks.setData(chunk, fresh) }
func (s *fileStore) count() int64                          { return s.blocks.count() }
func (s *fileStore) clean() bool                           { return s.blocks.clean() }

func (s *fileStore) read(p []byte, off int64) error { return readFullAt(s.data, p, off) }

func (s *fileStore) write(p []byte, off int64) error {
	if err := s.touch(); err != nil {
		return err
	}
	_, err := s.data.WriteAt(p, off)
	s.unsynced.Store(true)
	if err != nil {
		return err
	}
	chunk := off / chunkBytes
	data, zero := s.blocks.state(chunk)
	if fresh := blocksOf(off, len(p)) &^ data; fresh != 0 {
		return s.record(chunk, data|zero|fresh, zero&^fresh)
	}
	return nil
}

// blocksOf returns the bits of the blocks that n bytes at off, inside one chunk,
// touch.
func blocksOf(off int64, n int) uint64 {
	first := off % chunkBytes / overlayBlock
	count := (off%overlayBlock + int64(n) + overlayBlock - 1) / overlayBlock
	return ^uint64(0) >> (chunkBlocks - count) << first
}

func (s *fileStore) zero(chunk int64, blocks uint64) error {
	data, zero := s.blocks.state(chunk)
	if blocks&^zero == 0 {
		return nil
	}
	if err := s.touch(); err != nil {
		return err
	}
	// First, because on a full disk it makes the room that live may need.
	for freed := data & blocks; freed != 0; {
		first := bits.TrailingZeros64(freed)
		run := bits.TrailingZeros64(^(freed >> first))
		// The map says what is there: a failure costs the space, no more.
		_ = s.data.punch(chunk*chunkBytes+int64(first)*overlayBlock, int64(run)*overlayBlock)
		if first+run >= chunkBlocks {
			break
		}
		freed &= ^uint64(0) << (first + run)
	}
	if err := s.record(chunk, data|zero|blocks, zero|blocks); err != nil {
		return err
	}
	s.blocks.setZero(chunk, blocks)
	return nil
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
	for i := range s.blocks {
		if page := s.blocks[i].Load(); page != nil && page.dirty.Swap(false) {
			dirty = append(dirty, dirtyPage{int64(1+i) * mapPageBytes, page.encode()})
		}
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
	s.disown()
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
	s.blocks.clear()
	closeErr := old.close()
	if err != nil {
		return s.fail(err)
	}
	s.failed.Store(nil)
	s.unsynced.Store(false)
	s.mapped.drop() // who has still to send from it reads anew, what is there now
	// Only gives space back: no bit points there any more, and what live says is
	// of another generation.
	return errors.Join(s.data.truncate(0), s.closeLive(), s.settle(), closeErr)
}

func (s *fileStore) close() error {
	s.mapped.drop()
	return errors.Join(s.closeLive(), s.mapFile.close(), s.data.close(), s.dir.close())
}
