package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math/bits"
	"sync"
	"sync/atomic"
)

// A cache is two files in a directory of its own:
//
//   - data holds unit i of the base at i*unit, is sparse, and means nothing
//     where the map has no bit;
//   - map is one page of header, then one bit per unit, little-endian words.
//
// Sync makes data durable before it writes the bits that were set before it
// began, so that no bit is durable before its unit. A bit that is lost costs a
// fetch. The map is durable before there is a data file, so that a data file
// without a map is never a cache's.
const (
	cacheDataName = "data"
	cacheMapName  = "map"
	cacheTempName = "map.new"

	cachePage      = 4096
	cachePageWords = cachePage / 8

	cacheMagic    = "diskless cache\x00\x00"
	cacheVersion  = 1
	cacheMaxID    = 128
	cacheMaxUnits = 1 << 28 // 32 MiB of map, 64 TiB in units of 256 KiB
)

// cacheHeader is what the map's first page says.
type cacheHeader struct {
	unit, size int64
	id         string
}

func checkUnit(unit int64) error {
	if unit < 64<<10 || unit > 32<<20 || unit&(unit-1) != 0 {
		return fmt.Errorf("a unit of %d bytes is no power of two from 64 KiB to 32 MiB: %w", unit, fs.ErrInvalid)
	}
	return nil
}

func (h cacheHeader) units() int64 { return (h.size-1)/h.unit + 1 - b2i(h.size == 0) }

func b2i(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func (h cacheHeader) check() error {
	if err := checkUnit(h.unit); err != nil {
		return err
	}
	switch {
	case h.size < 0:
		return fmt.Errorf("a size of %d bytes: %w", h.size, fs.ErrInvalid)
	case h.id == "" || len(h.id) > cacheMaxID:
		return fmt.Errorf("the base's id has %d bytes, it needs 1 to %d: %w", len(h.id), cacheMaxID, fs.ErrInvalid)
	case h.units() > cacheMaxUnits:
		return fmt.Errorf("%d bytes are more than %d units of %d: set a larger Unit: %w", h.size, cacheMaxUnits, h.unit, fs.ErrInvalid)
	}
	return nil
}

func (h cacheHeader) mapSize() int64 {
	words := (h.units() + 63) / 64
	return cachePage * (1 + (words+cachePageWords-1)/cachePageWords)
}

// encode: magic, version, unit, size, length of id, id, zeroes, CRC-32C.
func (h cacheHeader) encode() []byte {
	p := make([]byte, cachePage)
	copy(p, cacheMagic)
	binary.LittleEndian.PutUint32(p[16:], cacheVersion)
	binary.LittleEndian.PutUint32(p[20:], uint32(h.unit))
	binary.LittleEndian.PutUint64(p[24:], uint64(h.size))
	binary.LittleEndian.PutUint32(p[32:], uint32(len(h.id)))
	copy(p[36:], h.id)
	binary.LittleEndian.PutUint32(p[cachePage-4:], cacheSum(p))
	return p
}

func cacheSum(p []byte) uint32 {
	return crc32.Checksum(p[:cachePage-4], crc32.MakeTable(crc32.Castagnoli))
}

// decodeCacheHeader reads a page.
func decodeCacheHeader(p []byte) (h cacheHeader, err error) {
	switch {
	case len(p) != cachePage || string(p[:16]) != cacheMagic:
		return h, fmt.Errorf("the map does not begin like a cache's: %w", fs.ErrInvalid)
	case binary.LittleEndian.Uint32(p[cachePage-4:]) != cacheSum(p):
		return h, fmt.Errorf("the map's header is damaged: remove the directory to start anew: %w", fs.ErrInvalid)
	case binary.LittleEndian.Uint32(p[16:]) != cacheVersion:
		return h, fmt.Errorf("the map is version %d, this program knows %d: %w", binary.LittleEndian.Uint32(p[16:]), cacheVersion, fs.ErrInvalid)
	}
	h.unit = int64(binary.LittleEndian.Uint32(p[20:]))
	h.size = int64(binary.LittleEndian.Uint64(p[24:]))
	h.id = string(p[36 : 36+min(binary.LittleEndian.Uint32(p[32:]), cacheMaxID+1)])
	return h, h.check()
}

type cacheStore struct {
	dir           overlayDir
	head          cacheHeader
	data, mapFile overlayFile

	words   []atomic.Uint64 // the map; bits are changed under bitMu
	missing atomic.Int64    // units without a bit
	bitMu   sync.Mutex
	failed  error // of a sync: nothing more is kept

	syncMu  sync.Mutex
	durable []uint64 // what the map file holds
}

func (s *cacheStore) units() int64 { return s.head.units() }

// load opens what is in the directory; found is false when nothing is.
func (s *cacheStore) load() (found bool, err error) {
	s.mapFile, err = s.dir.open(cacheMapName, false)
	if errors.Is(err, fs.ErrNotExist) {
		if s.data, err = s.dir.open(cacheDataName, false); err == nil {
			return false, fmt.Errorf("there is a data file but no map that says which of its units count: remove the directory to start anew: %w", fs.ErrInvalid)
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return false, err
	}
	if err != nil {
		return false, err
	}
	size, err := s.mapFile.size()
	if err != nil {
		return false, err
	}
	page := make([]byte, min(size, cachePage))
	if err := readFullAt(s.mapFile, page, 0); err != nil {
		return false, err
	}
	if s.head, err = decodeCacheHeader(page); err != nil {
		return false, err
	}
	if size != s.head.mapSize() {
		return false, fmt.Errorf("the map is %d bytes long instead of %d: remove the directory to start anew: %w", size, s.head.mapSize(), fs.ErrInvalid)
	}
	raw := make([]byte, size-cachePage)
	if err := readFullAt(s.mapFile, raw, cachePage); err != nil {
		return false, err
	}
	s.setup()
	end := int64(0)
	for i := range s.words {
		word := binary.LittleEndian.Uint64(raw[i*8:])
		if word != 0 {
			end = int64(i)*64 + int64(bits.Len64(word))
		}
		s.durable[i] = word
		s.words[i].Store(word)
		s.missing.Add(-int64(bits.OnesCount64(word)))
	}
	if end > s.units() {
		return false, fmt.Errorf("the map has units past the end: it is damaged: remove the directory to start anew: %w", fs.ErrInvalid)
	}
	return true, s.openData(min(end*s.head.unit, s.head.size))
}

func (s *cacheStore) setup() {
	words := (s.units() + 63) / 64
	s.words, s.durable = make([]atomic.Uint64, words), make([]uint64, words)
	s.missing.Store(s.units())
}

// openData opens the data file, which must reach to end.
func (s *cacheStore) openData(end int64) (err error) {
	s.data, err = s.dir.open(cacheDataName, false)
	if errors.Is(err, fs.ErrNotExist) && end == 0 {
		// Creation ends with this file.
		if s.data, err = s.dir.open(cacheDataName, true); err == nil {
			err = s.dir.sync()
		}
	}
	if err != nil {
		return err
	}
	size, err := s.data.size()
	if err == nil && size < end {
		err = fmt.Errorf("the data file ends at %d, before the last unit of the map at %d: it was cut: remove the directory to start anew: %w", size, end, fs.ErrInvalid)
	}
	return err
}

// create makes an empty cache.
func (s *cacheStore) create(h cacheHeader) error {
	if err := h.check(); err != nil {
		return err
	}
	s.head = h
	s.setup()
	f, err := s.dir.open(cacheTempName, true)
	if err != nil {
		return err
	}
	s.mapFile = f
	if _, err = f.WriteAt(h.encode(), 0); err == nil {
		err = f.truncate(h.mapSize())
	}
	if err == nil {
		err = f.sync()
	}
	if err == nil {
		err = s.dir.rename(cacheTempName, cacheMapName)
	}
	if err == nil {
		err = s.dir.sync()
	}
	if err != nil {
		return err
	}
	return s.openData(0)
}

// fits says whether a device is what the cache was made of.
func (s *cacheStore) fits(dev Device, id string) error {
	if dev.Size() != s.head.size || id != s.head.id {
		return fmt.Errorf("it was made of %q, %d bytes, and cannot be used for %q, %d bytes: give that a directory of its own, or remove this one: %w",
			s.head.id, s.head.size, id, dev.Size(), fs.ErrInvalid)
	}
	return nil
}

func (s *cacheStore) present(u int64) bool { return s.words[u/64].Load()>>(u%64)&1 != 0 }

func (s *cacheStore) read(p []byte, off int64) error {
	if n, err := s.data.ReadAt(p, off); n < len(p) {
		return fmt.Errorf("nbd: cache: reading %d bytes at %d of its data: %w", len(p), off, err)
	}
	return nil
}

// keep stores a unit and then says that it is there.
func (s *cacheStore) keep(u int64, p []byte) error {
	s.bitMu.Lock()
	err := s.failed
	s.bitMu.Unlock()
	if err != nil {
		return err
	}
	if _, err := s.data.WriteAt(p, u*s.head.unit); err != nil {
		return err
	}
	s.bitMu.Lock()
	defer s.bitMu.Unlock()
	if s.failed != nil {
		return s.failed
	}
	s.set(u, true)
	return nil
}

// distrust forgets a unit that cannot be read.
func (s *cacheStore) distrust(u int64) {
	s.bitMu.Lock()
	defer s.bitMu.Unlock()
	s.set(u, false)
}

// set changes a bit; bitMu is held.
func (s *cacheStore) set(u int64, to bool) {
	old := s.words[u/64].Load()
	word := old &^ (1 << (u % 64))
	if to {
		word |= 1 << (u % 64)
	}
	s.words[u/64].Store(word)
	s.missing.Add(int64(bits.OnesCount64(old) - bits.OnesCount64(word)))
}

// sync is described at the top of this file.
func (s *cacheStore) sync() error {
	s.syncMu.Lock()
	defer s.syncMu.Unlock()
	s.bitMu.Lock()
	failed := s.failed
	s.bitMu.Unlock()
	if failed != nil {
		return failed
	}
	now, dirty := make([]uint64, len(s.words)), false
	for i := range now {
		now[i] = s.words[i].Load()
		dirty = dirty || now[i] != s.durable[i]
	}
	if !dirty {
		return nil
	}
	if err := s.data.sync(); err != nil {
		return s.fail(err)
	}
	page := make([]byte, cachePage)
	for first := 0; first < len(now); first += cachePageWords {
		clear(page)
		same := true
		for i := first; i < min(first+cachePageWords, len(now)); i++ {
			same = same && now[i] == s.durable[i]
			binary.LittleEndian.PutUint64(page[(i-first)*8:], now[i])
		}
		if same {
			continue
		}
		if _, err := s.mapFile.WriteAt(page, cachePage+int64(first)*8); err != nil {
			return s.fail(err)
		}
	}
	if err := s.mapFile.sync(); err != nil {
		return s.fail(err)
	}
	s.durable = now
	return nil
}

// fail forgets the units that may not have reached the disk, and keeps no
// more: after a failed sync the kernel may drop what it could not write.
func (s *cacheStore) fail(err error) error {
	s.bitMu.Lock()
	defer s.bitMu.Unlock()
	s.failed = fmt.Errorf("nbd: cache: its disk failed, nothing more is kept until it is opened again: %w", err)
	for i := range s.words {
		old := s.words[i].Load()
		word := old & s.durable[i]
		s.words[i].Store(word)
		s.missing.Add(int64(bits.OnesCount64(old) - bits.OnesCount64(word)))
	}
	return s.failed
}

func (s *cacheStore) close() (err error) {
	if s.mapFile != nil {
		err = s.mapFile.close()
	}
	if s.data != nil {
		err = errors.Join(err, s.data.close())
	}
	return err
}
