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

const (
	// overlayBlock is the unit of copy-on-write: a page of the page cache, so
	// that a guest's usual write needs no merge with the base.
	overlayBlock = 4096
	// A chunk is what one word of the map covers. It is also the unit of
	// locking, so that a run of blocks inside it is one read or one write.
	chunkBlocks   = 64
	chunkBytes    = chunkBlocks * overlayBlock
	overlayStripe = 64

	// maxOverlay bounds what a base, which may be another machine's, can make an
	// overlay take for its map: 8 MiB.
	maxOverlay = int64(64 << 40)
)

// Overlay is a copy-on-write [Device] over a read-only base that many
// overlays may share: writes go to the overlay's own store, reads come from
// there where something was written and from the base elsewhere. The base is
// never written to. Blocks are 4 KiB; writes of any offset and length merge
// with what is there.
//
// All methods may be called concurrently. What one WriteAt has written every
// later ReadAt sees, through whichever connection, so Features announces
// MultiConn.
type Overlay struct {
	// Quota limits the bytes stored in the overlay; a write that needs more
	// fails with [syscall.ENOSPC] and changes nothing in the block that did
	// not fit. 0 or less is no limit beyond the base's size. Set it before
	// the first use.
	Quota int64

	base  Device
	disk  disk
	layer *layer // Roots' own: what is the base, when that is a frozen overlay
	size  int64
	store overlayStore
	used  atomic.Int64 // blocks stored

	// life is held shared by every operation and exclusively by Reset and
	// Close, so that neither pulls the store from under a reader.
	life  sync.RWMutex
	ended error // why it cannot be used; nil: it can
	// writes is held shared by what changes the overlay, and exclusively by
	// Commit, which others may read beside.
	writes sync.RWMutex

	// stripes guard the chunks: shared to read blocks that are in the store,
	// exclusive to write. Two halves of one block written at the same time
	// would otherwise each merge with the base and lose the other.
	stripes [overlayStripe]sync.RWMutex
}

// overlayStore holds the written blocks. The caller holds the chunk's stripe.
type overlayStore interface {
	// state returns which blocks of a chunk are stored, and which are zeroes
	// without being stored; bit i is block i. The others are the base's.
	state(chunk int64) (data, zero uint64)
	// read fills p from off; all blocks touched are stored.
	read(p []byte, off int64) error
	// segments appends what read would read, which lies inside one chunk, if
	// that can be mapped.
	segments(off, n int64, dst []Segment) ([]Segment, error)
	// write stores p at off, inside one chunk. A block that is not stored is
	// written whole and counts as stored only by mark.
	write(p []byte, off int64) error
	mark(chunk int64, fresh uint64)
	// zero makes blocks zeroes and gives their space back.
	zero(chunk int64, blocks uint64) error
	// clean reports whether all blocks are the base's.
	clean() bool
	sync() error
	reset() error
	close() error
}

// NewOverlay returns an overlay that lives in memory, and is gone with the
// process. It takes memory for what is written only, a block at a time. Sync
// has nothing to do. Over a base of more than 64 TiB everything fails, with an
// error that wraps [fs.ErrInvalid].
func NewOverlay(base Device) *Overlay {
	o := &Overlay{base: base, size: base.Size()}
	if o.ended = checkOverlay(o.size); o.ended != nil {
		o.store = newMemStore(0)
		o.ended = fmt.Errorf("nbd: overlay: %w", o.ended)
	} else {
		o.store = newMemStore(o.size)
	}
	return o
}

func checkOverlay(size int64) error {
	if size < 0 || size > maxOverlay {
		return fmt.Errorf("a base of %d bytes, it may have up to %d: %w", size, maxOverlay, fs.ErrInvalid)
	}
	return nil
}

// Size returns the base's size in bytes.
func (o *Overlay) Size() int64 { return o.size }

// Features announces all that a disk can do, and several connections. Blocks
// of the base's MinBlock are asked for where it has one, and it is mapped, or slow, as the base is.
func (o *Overlay) Features() Features {
	base := FeaturesOf(o.base)
	f := overlayFeatures(base.MinBlock)
	f.Map, f.Slow = base.Map, base.Slow
	return f
}

func overlayFeatures(minBlock int) Features {
	return Features{
		Write: true, Flush: true, Trim: true, Zero: true, FastZero: true, Extents: true,
		Map: canMap, MultiConn: true, MinBlock: minBlock,
	}
}

// Usage returns how many bytes the overlay stores, in whole blocks.
func (o *Overlay) Usage() int64 { return o.used.Load() * overlayBlock }

// ReadAt implements [io.ReaderAt]. It does not allocate.
func (o *Overlay) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("nbd: overlay: read at offset %d: %w", off, fs.ErrInvalid)
	}
	if off >= o.size {
		return 0, io.EOF
	}
	var tail error
	if int64(len(p)) > o.size-off {
		p, tail = p[:o.size-off], io.EOF
	}
	o.life.RLock()
	defer o.life.RUnlock()
	if o.ended != nil {
		return 0, o.ended
	}
	for n := 0; n < len(p); {
		part := chunkPart(p[n:], off+int64(n))
		if err := o.readChunk(part, off+int64(n)); err != nil {
			return n, err
		}
		n += len(part)
	}
	return len(p), tail
}

var errOverlayClosed = fmt.Errorf("nbd: overlay: %w", fs.ErrClosed)

// chunkPart returns the start of p that lies in the chunk of off.
func chunkPart(p []byte, off int64) []byte {
	if room := chunkBytes - off%chunkBytes; int64(len(p)) > room {
		return p[:room]
	}
	return p
}

// readChunk reads p, which lies inside one chunk: first what is stored, under
// the lock, then the rest from the base without it. What was not there when
// the map was read may come from the base: a write that has not returned yet
// may or may not be seen.
func (o *Overlay) readChunk(p []byte, off int64) error {
	chunk := off / chunkBytes
	lock := &o.stripes[chunk%overlayStripe]
	lock.RLock()
	data, zero := o.store.state(chunk)
	var err error
	if data != 0 {
		err = o.eachRun(p, off, data, fromStore)
	}
	lock.RUnlock()
	if err == nil && zero != 0 {
		err = o.eachRun(p, off, zero, fromNowhere)
	}
	if own := data | zero; err == nil && own != ^uint64(0) {
		err = o.eachRun(p, off, ^own, fromBase)
	}
	return err
}

type blockSource int

const (
	fromStore blockSource = iota
	fromBase
	fromNowhere
)

// eachRun reads the runs of blocks whose bit in word is set.
func (o *Overlay) eachRun(p []byte, off int64, word uint64, from blockSource) error {
	for n := 0; n < len(p); {
		pos := off + int64(n)
		w := word >> (pos % chunkBytes / overlayBlock)
		run := bits.TrailingZeros64(w)
		if w&1 != 0 {
			run = bits.TrailingZeros64(^w)
		}
		length := min(int64(len(p)-n), int64(run)*overlayBlock-pos%overlayBlock)
		part, err := p[n:n+int(length)], error(nil)
		switch {
		case w&1 == 0:
		case from == fromStore:
			err = o.store.read(part, pos)
		case from == fromBase:
			err = readFullAt(o.base, part, pos)
		default:
			clear(part)
		}
		if err != nil {
			return err
		}
		n += int(length)
	}
	return nil
}

// readFullAt fills p or says why not: a base that ends early is an error, not
// an end.
func readFullAt(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("nbd: overlay: reading %d bytes at %d of the base: %w", len(p), off, err)
}

// Sync implements [Syncer]: when it returns, every write that returned before
// Sync was called is on stable storage and is found again by [OpenOverlay].
// After a Sync of a stored overlay has failed, nobody knows what reached the
// disk: every further WriteAt and Sync fails until the overlay is opened
// again.
func (o *Overlay) Sync() error {
	o.life.RLock()
	defer o.life.RUnlock()
	if o.ended != nil {
		return o.ended
	}
	return o.store.sync()
}

// Reset throws away everything that was written, durably and at once: after a
// crash at any moment the overlay holds either everything it held or nothing.
// It waits for operations in flight.
func (o *Overlay) Reset() error {
	o.life.Lock()
	defer o.life.Unlock()
	if o.ended != nil {
		return o.ended
	}
	if err := o.store.reset(); err != nil {
		return err
	}
	o.used.Store(0)
	return nil
}

// Close syncs the overlay and gives its files or its memory back; the base
// stays open. It waits for operations in flight.
func (o *Overlay) Close() error {
	o.life.Lock()
	defer o.life.Unlock()
	if o.ended != nil {
		return nil
	}
	o.ended = errOverlayClosed
	return errors.Join(o.store.sync(), o.store.close())
}
