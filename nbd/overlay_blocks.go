package nbd

import (
	"math/bits"
	"sync/atomic"
)

// blockMap says of each block of an overlay where its bytes are: in the base,
// in the store, or nowhere, because it is all zeroes.
//
// Words are 64 blocks, a chunk. Those who change a word hold its stripe; a
// flush reads beside them, and so the order in which the two words of a chunk
// change matters: whatever it catches is a state that the blocks had.
type blockMap []atomic.Pointer[mapPage]

const (
	mapPageBytes  = 4096
	mapChunkBytes = 16
	mapPageChunks = mapPageBytes / mapChunkBytes
	mapPageSpan   = mapPageChunks * chunkBytes
)

// mapPage is a page of the map. One without a bit is nil, so that an overlay's
// cost does not depend on the size of the image.
type mapPage struct {
	own   [mapPageChunks]atomic.Uint64 // not the base's any more
	zero  [mapPageChunks]atomic.Uint64 // of those, the ones that are not stored
	dirty atomic.Bool
}

func newBlockMap(size int64) blockMap {
	return make(blockMap, (size+mapPageSpan-1)/mapPageSpan)
}

// state returns which blocks of a chunk are in the store, and which are zero.
func (m blockMap) state(chunk int64) (data, zero uint64) {
	page := m[chunk/mapPageChunks].Load()
	if page == nil {
		return 0, 0
	}
	return page.state(chunk % mapPageChunks)
}

func (p *mapPage) state(i int64) (data, zero uint64) {
	own := p.own[i].Load() // first: a block is zero before it is its own
	zero = p.zero[i].Load() & own
	return own &^ zero, zero
}

func (m blockMap) page(chunk int64) *mapPage {
	slot := &m[chunk/mapPageChunks]
	page := slot.Load()
	if page == nil {
		// Another stripe may be here too; one of the two pages wins.
		slot.CompareAndSwap(nil, new(mapPage))
		page = slot.Load()
	}
	return page
}

// setData notes blocks that have been stored.
func (m blockMap) setData(chunk int64, blocks uint64) {
	page, i := m.page(chunk), chunk%mapPageChunks
	page.zero[i].Store(page.zero[i].Load() &^ blocks)
	page.own[i].Store(page.own[i].Load() | blocks)
	page.dirty.Store(true) // after the words: a flush looks at them the other way round
}

// setZero notes blocks that are zero.
func (m blockMap) setZero(chunk int64, blocks uint64) {
	page, i := m.page(chunk), chunk%mapPageChunks
	page.zero[i].Store(page.zero[i].Load() | blocks)
	page.own[i].Store(page.own[i].Load() | blocks)
	page.dirty.Store(true)
}

// set notes the state of a chunk. Nobody else may use the map.
func (m blockMap) set(chunk int64, own, zero uint64) {
	page, i := m.page(chunk), chunk%mapPageChunks
	page.zero[i].Store(zero)
	page.own[i].Store(own)
	page.dirty.Store(true)
}

// clear makes all blocks the base's. Nobody else may use the map.
func (m blockMap) clear() {
	for i := range m {
		m[i].Store(nil)
	}
}

// count returns how many blocks are in the store.
func (m blockMap) count() (n int64) {
	for i := range m {
		if page := m[i].Load(); page != nil {
			for c := range int64(mapPageChunks) {
				data, _ := page.state(c)
				n += int64(bits.OnesCount64(data))
			}
		}
	}
	return n
}

// clean reports whether all blocks are the base's.
func (m blockMap) clean() bool {
	for i := range m {
		if page := m[i].Load(); page != nil {
			for c := range page.own {
				if page.own[c].Load() != 0 {
					return false
				}
			}
		}
	}
	return true
}

// last returns the number of the last block in the store, -1 when there is none.
func (m blockMap) last() int64 {
	for i := len(m) - 1; i >= 0; i-- {
		page := m[i].Load()
		if page == nil {
			continue
		}
		for c := int64(mapPageChunks) - 1; c >= 0; c-- {
			if data, _ := page.state(c); data != 0 {
				return (int64(i)*mapPageChunks+c)*chunkBlocks + int64(bits.Len64(data)) - 1
			}
		}
	}
	return -1
}

// encode makes the page's form on disk: 16 bytes a chunk, four blocks a byte.
// The two bits of a block are in one byte, so that a torn write of the map
// leaves each block in the state before or after it.
func (p *mapPage) encode() []byte {
	out := make([]byte, mapPageBytes)
	for c := range int64(mapPageChunks) {
		data, zero := p.state(c)
		encodeChunk(out[c*mapChunkBytes:], data|zero, zero)
	}
	return out
}

func encodeChunk(out []byte, own, zero uint64) {
	for j := range out[:mapChunkBytes] {
		out[j] = byte(own>>(4*j)&15 | zero>>(4*j)&15<<4)
	}
}

// decodeChunk is encodeChunk's inverse. A block that is zero and not its own is
// no state that encode makes.
func decodeChunk(in []byte) (own, zero uint64, ok bool) {
	for j, b := range in[:mapChunkBytes] {
		own |= uint64(b&15) << (4 * j)
		zero |= uint64(b>>4) << (4 * j)
	}
	return own, zero, zero&^own == 0
}
