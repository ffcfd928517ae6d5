package nbd

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"math/bits"
)

// What was written since the last Sync is in the page cache, which a killed
// server leaves behind and the host's end does not. So that a server which
// comes back on the same host still knows of it, each change of the map is
// written, and not synced, to a third file, live: a page of header, then, at
// the places of the map, the state of each chunk that changed since the overlay
// was opened. Writing over blocks that are stored changes no map and costs
// nothing.
//
//   - live is made, under another name, before the first change since the
//     overlay was opened, and its name is made durable. It gets another name,
//     durably, when the overlay is closed with all in it flushed. So it is there
//     exactly when there may be writes that no Sync protects.
//   - The file that was live is kept, one page of it, and used again: the next
//     opening must be able to write over what is stored, and to trim, on a disk
//     that is full.
//   - A block's bytes go to data before its state goes to live: whatever kill
//     comes between, no block counts as stored that is not.
//   - Its header has the host's boot ID and the generation of the map, which
//     Reset changes. Of another map it says nothing. Of another boot of the
//     host, or damaged, it only tells that writes were lost.
//   - A failed Sync makes it invalid: the kernel may have dropped what live
//     would count as stored.
//
// Whatever is in it, what a Sync protects is in data and map alone.
const (
	overlayLiveName = "live"
	overlayLiveTemp = "live.new"
	overlayLiveOld  = "live.old"
	liveMagic       = "diskless unsaved"
	liveVersion     = 1
	liveMaxBoot     = 64
)

// Lost reports whether the overlay was written to and then neither closed nor
// found again on the same boot of its host, so that writes after the last Sync
// may be gone; in memory it never is. It is so for every opening until something
// is written. A machine that ran on the overlay must not go on with it: what it
// has in its memory does not fit to what is here. It has to boot again.
func (o *Overlay) Lost() bool {
	o.life.RLock()
	defer o.life.RUnlock()
	s, ok := o.store.(*fileStore)
	return ok && s.lost
}

// touch is called before each change, and sees to it that live is there.
func (s *fileStore) touch() error {
	if err := s.failed.Load(); err != nil {
		return *err
	}
	if s.live.Load() != nil {
		return nil
	}
	s.liveMu.Lock()
	defer s.liveMu.Unlock()
	if s.live.Load() != nil {
		return nil
	}
	f, err := s.newLive()
	if err == nil {
		s.live.Store(&f)
	}
	return err
}

func (s *fileStore) newLive() (overlayFile, error) {
	name := overlayLiveOld
	f, err := s.dir.open(name, false)
	if errors.Is(err, fs.ErrNotExist) {
		name = overlayLiveTemp
		f, err = s.dir.open(name, true)
	}
	if err != nil {
		return nil, err
	}
	err = f.truncate(mapPageBytes) // what it had belongs to another opening
	if err == nil {
		_, err = f.WriteAt(s.liveHeader(), 0)
	}
	if err == nil {
		err = f.truncate(s.mapSize())
	}
	if err == nil && name == overlayLiveOld {
		err = f.sync() // the former header may be of a former generation, as if nothing were lost
	}
	if err == nil {
		err = s.dir.rename(name, overlayLiveName)
	}
	if err == nil {
		err = s.dir.sync()
	}
	if err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

// liveHeader: magic, version, length of boot ID, generation, boot ID, zeroes,
// CRC-32C.
func (s *fileStore) liveHeader() []byte {
	h := make([]byte, mapPageBytes)
	copy(h, liveMagic)
	binary.LittleEndian.PutUint32(h[16:], liveVersion)
	binary.LittleEndian.PutUint32(h[20:], uint32(len(s.boot)))
	binary.LittleEndian.PutUint64(h[24:], s.generation)
	copy(h[32:], s.boot)
	binary.LittleEndian.PutUint32(h[mapPageBytes-4:], headerSum(h))
	return h
}

// record notes the state that a chunk gets. Its stripe is held.
func (s *fileStore) record(chunk int64, own, zero uint64) error {
	if s.boot == "" {
		return nil // nobody could tell whether it still counts
	}
	buf := &s.records[chunk%overlayStripe]
	encodeChunk(buf[:], own, zero)
	_, err := (*s.live.Load()).WriteAt(buf[:], mapPageBytes+chunk*mapChunkBytes)
	return err
}

// openLive takes up what a process that was killed has left.
func (s *fileStore) openLive() error {
	f, err := s.dir.open(overlayLiveName, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	boot, generation, ok := s.readLiveHeader(f)
	switch {
	case ok && generation != s.generation:
		return f.close()
	case ok && boot != "" && boot == s.boot && s.applyLive(f):
		s.live.Store(&f)
		return nil
	}
	s.lost = true
	return f.close()
}

func (s *fileStore) readLiveHeader(f overlayFile) (boot string, generation uint64, ok bool) {
	h := make([]byte, mapPageBytes)
	size, err := f.size()
	if err != nil || size != s.mapSize() || readFullAt(f, h, 0) != nil {
		return "", 0, false
	}
	word := func(at int) uint32 { return binary.LittleEndian.Uint32(h[at:]) }
	if string(h[:16]) != liveMagic || word(16) != liveVersion || word(20) > liveMaxBoot || word(mapPageBytes-4) != headerSum(h) {
		return "", 0, false
	}
	return string(h[32 : 32+word(20)]), binary.LittleEndian.Uint64(h[24:]), true
}

// applyLive brings the map up to date, or, when anything in live cannot be,
// leaves it alone and returns false.
func (s *fileStore) applyLive(f overlayFile) bool {
	size, err := s.data.size()
	if err != nil {
		return false
	}
	buf := make([]byte, mapPageBytes)
	for _, apply := range []bool{false, true} {
		for i := range s.blocks {
			if readFullAt(f, buf, int64(1+i)*mapPageBytes) != nil {
				return false
			}
			for c := range int64(mapPageChunks) {
				own, zero, ok := decodeChunk(buf[c*mapChunkBytes:])
				chunk := int64(i)*mapPageChunks + c
				end := (chunk*chunkBlocks + int64(bits.Len64(own&^zero))) * overlayBlock
				switch {
				case own|zero == 0:
				case !ok || own&^chunkMask(chunk, s.baseSize) != 0 || own != zero && min(end, s.baseSize) > size:
					return false
				case apply:
					s.blocks.set(chunk, own, zero)
					s.unsynced.Store(true)
				}
			}
		}
	}
	return true
}

// disown makes live invalid.
func (s *fileStore) disown() {
	if f := s.live.Load(); f != nil {
		_, _ = (*f).WriteAt(make([]byte, mapPageBytes), 0)
	}
}

// settle forgets that writes were lost, durably.
func (s *fileStore) settle() error {
	if !s.lost {
		return nil
	}
	err := s.dir.rename(overlayLiveName, overlayLiveOld)
	if err == nil {
		err = s.dir.sync()
	}
	if err == nil {
		s.lost = false
	}
	return err
}

// closeLive takes live its name when everything is flushed.
func (s *fileStore) closeLive() error {
	f := s.live.Swap(nil)
	if f == nil {
		return nil
	}
	var err error
	if s.failed.Load() == nil {
		if err = s.dir.rename(overlayLiveName, overlayLiveOld); err == nil {
			err = errors.Join((*f).truncate(mapPageBytes), s.dir.sync())
		}
	}
	return errors.Join(err, (*f).close())
}
