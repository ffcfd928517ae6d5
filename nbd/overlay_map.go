package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math/rand/v2"
)

// newMap puts an empty map in the place of the one that is there, at once.
func (s *fileStore) newMap() (overlayFile, error) {
	former := s.generation
	s.generation = rand.Uint64()
	f, err := s.dir.open(overlayTempName, true)
	if err != nil {
		s.generation = former
		return nil, err
	}
	_, err = f.WriteAt(s.header(), 0)
	if err == nil {
		err = f.truncate(s.mapSize())
	}
	if err == nil {
		err = f.sync()
	}
	if err == nil {
		err = s.dir.rename(overlayTempName, overlayMapName)
	}
	if err != nil {
		s.generation = former
		return nil, errors.Join(err, f.close())
	}
	return f, s.dir.sync()
}

func (s *fileStore) mapSize() int64 { return int64(1+len(s.blocks)) * mapPageBytes }

// header: magic, version, block size, base size, length of id, id, zeroes, at
// 168 the generation, zeroes, CRC-32C.
func (s *fileStore) header() []byte {
	h := make([]byte, mapPageBytes)
	copy(h, overlayMagic)
	binary.LittleEndian.PutUint32(h[16:], overlayVersion)
	binary.LittleEndian.PutUint32(h[20:], overlayBlock)
	binary.LittleEndian.PutUint64(h[24:], uint64(s.baseSize))
	binary.LittleEndian.PutUint32(h[32:], uint32(len(s.id)))
	copy(h[36:], s.id)
	binary.LittleEndian.PutUint64(h[168:], s.generation)
	binary.LittleEndian.PutUint32(h[mapPageBytes-4:], headerSum(h))
	return h
}

func headerSum(h []byte) uint32 {
	return crc32.Checksum(h[:mapPageBytes-4], crc32.MakeTable(crc32.Castagnoli))
}

func (s *fileStore) checkHeader(h []byte) error {
	word := func(at int) uint32 { return binary.LittleEndian.Uint32(h[at:]) }
	switch {
	case string(h[:16]) != overlayMagic:
		return fmt.Errorf("the map does not begin like an overlay's: %w", fs.ErrInvalid)
	case word(mapPageBytes-4) != headerSum(h):
		return fmt.Errorf("the map's header is damaged: %w", fs.ErrInvalid)
	case word(16) != overlayVersion || word(20) != overlayBlock:
		return fmt.Errorf("the map is version %d with blocks of %d bytes, this program knows version %d with %d: use the program that made it: %w",
			word(16), word(20), overlayVersion, overlayBlock, fs.ErrInvalid)
	}
	id := string(h[36:min(36+int(min(word(32), overlayMaxID)), mapPageBytes)])
	if size := binary.LittleEndian.Uint64(h[24:]); size != uint64(s.baseSize) || id != s.id {
		return fmt.Errorf("it was made over the base %q of %d bytes and cannot be used over %q of %d: give it its own base, or reset it: %w",
			id, size, s.id, s.baseSize, fs.ErrInvalid)
	}
	return nil
}

// load reads the map.
func (s *fileStore) load() error {
	want := s.mapSize()
	size, err := s.mapFile.size()
	if err != nil {
		return err
	}
	if size < mapPageBytes {
		return fmt.Errorf("the map is %d bytes long, too short for its header: %w", size, fs.ErrInvalid)
	}
	buf := make([]byte, mapPageBytes)
	if err := readFullAt(s.mapFile, buf, 0); err != nil {
		return err
	}
	if err := s.checkHeader(buf); err != nil {
		return err
	}
	s.generation = binary.LittleEndian.Uint64(buf[168:])
	if size != want {
		return fmt.Errorf("the map is %d bytes long instead of %d: it was cut or extended: %w", size, want, fs.ErrInvalid)
	}
	for i := range s.blocks {
		if err := readFullAt(s.mapFile, buf, int64(1+i)*mapPageBytes); err != nil {
			return err
		}
		for c := range int64(mapPageChunks) {
			own, zero, ok := decodeChunk(buf[c*mapChunkBytes:])
			chunk := int64(i)*mapPageChunks + c
			if !ok || own&^chunkMask(chunk, s.baseSize) != 0 {
				return fmt.Errorf("the map has blocks past the end of the base, or of no known state: it is damaged: %w", fs.ErrInvalid)
			}
			if own != 0 {
				page := s.blocks.page(chunk)
				page.own[c].Store(own)
				page.zero[c].Store(zero)
			}
		}
	}
	return nil
}

// chunkMask has a bit for each block of a chunk that a device of size bytes has.
func chunkMask(chunk, size int64) uint64 {
	blocks := (size+overlayBlock-1)/overlayBlock - chunk*chunkBlocks
	switch {
	case blocks >= chunkBlocks:
		return ^uint64(0)
	case blocks <= 0:
		return 0
	default:
		return 1<<blocks - 1
	}
}
