package nbd

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// What is mapped is not read ahead by the kernel: on a page fault that brings in
// as much as the disk's read_ahead_kb, up to MiBs for a read of 4 KiB and holes as
// well, or one page after the other. Instead it is told of what a client asks
// for before that is touched, once:
//
//   - of all around it, in units of aroundBytes, in a file that is mostly data.
//     That takes about as long as one more read, and an image is soon in memory;
//   - of nothing else in a sparse file, where that would fill the memory with
//     holes;
//   - and of what follows, when what is before it was asked for too, by whichever
//     connection: of as much as that is, and no more than aheadBytes.
const (
	aroundBytes = 256 << 10
	aheadBytes  = 4 << 20
	// aheadLeast is how long a sequence has to be.
	aheadLeast = 128 << 10
	// hintBytes is the most of one call. It is the system's own default.
	hintBytes = 128 << 10

	pageShift   = 12 // of what is told of; the system's pages may be larger
	aroundShift = 18

	leafWords = 512
	leafUnits = leafWords * 64

	// forgetAfter is how long a readSet remembers at least.
	forgetAfter = time.Second
)

// readSet says which units of a file were touched, or are being read. Its methods
// may be called concurrently. Some may not be in memory any more: who finds that
// out calls forget.
type readSet struct {
	leaves    []atomic.Pointer[readLeaf]
	units     int64
	shift     int // of a unit: pageShift or aroundShift
	forgotten atomic.Int64
}

type readLeaf [leafWords]atomic.Uint64

func (p *readSet) init(size int64, sparse bool) {
	p.shift = aroundShift
	if sparse {
		p.shift = pageShift
	}
	p.units = p.end(size)
	p.leaves = make([]atomic.Pointer[readLeaf], (p.units+leafUnits-1)/leafUnits)
}

// end returns the unit that begins at or after a byte.
func (p *readSet) end(off int64) int64 { return (off + 1<<p.shift - 1) >> p.shift }

// byteRange is a part of a file; as the zero value, none.
type byteRange struct{ off, end int64 }

// hints yields the range in parts that the system may be told of. Of one call it
// takes no more than the longer of the disk's read_ahead_kb and max_sectors_kb, and
// leaves out the rest, which would then be read page by page. Both are often as
// little as hintBytes, as on NFS and FUSE.
func (r byteRange) hints(yield func(byteRange) bool) {
	for ; r.off < r.end; r.off += hintBytes {
		if !yield(byteRange{r.off, min(r.off+hintBytes, r.end)}) {
			return
		}
	}
}

// want takes note of a read of the bytes from off to end. It returns what the
// system had better be told of because of it, when some of that is fresh, and
// what after that.
func (p *readSet) want(off, end int64) (around, ahead byteRange, fresh bool) {
	from, to := off>>p.shift, p.end(end)
	around = byteRange{from << p.shift, to << p.shift}
	fresh = p.add(from, to)
	// A sequence goes on being read ahead before it comes to what is fresh.
	if fresh || off/aroundBytes != end/aroundBytes {
		ahead = p.after(from, to)
	}
	return around, ahead, fresh
}

// after returns what to read ahead, and adds it.
func (p *readSet) after(from, to int64) byteRange {
	most := int64(aheadBytes) >> p.shift
	next := to + p.run(to, min(to+most/2, p.units))
	if next >= p.units || next-to >= most/2 {
		return byteRange{}
	}
	window := to - from + p.runBefore(from, max(0, to-most))
	least := max(aheadLeast>>p.shift, 2*(to-from))
	if window < min(least, most) || next-to >= window/2 {
		return byteRange{}
	}
	end := min(to+window, p.units)
	p.add(next, end)
	return byteRange{next << p.shift, end << p.shift}
}

// forget makes all units fresh. It does nothing when it did so just now.
func (p *readSet) forget() {
	now, last := time.Now().UnixNano(), p.forgotten.Load()
	if now-last < int64(forgetAfter) || !p.forgotten.CompareAndSwap(last, now) {
		return
	}
	for i := range p.leaves {
		p.leaves[i].Store(nil)
	}
}

// word returns the word of a unit, nil when none of its leaf's is in the set.
func (p *readSet) word(unit int64) *atomic.Uint64 {
	leaf := p.leaves[unit/leafUnits].Load()
	if leaf == nil {
		return nil
	}
	return &leaf[unit%leafUnits/64]
}

// add adds units and says whether one of them was not there.
func (p *readSet) add(from, to int64) (fresh bool) {
	for from < to {
		next := min(to, from&^63+64)
		mask := ^uint64(0) >> (64 - (next - from)) << (from & 63)
		w := p.word(from)
		if w == nil {
			p.leaves[from/leafUnits].CompareAndSwap(nil, new(readLeaf)) // or somebody else's
			if w = p.word(from); w == nil {
				return true // it was forgotten
			}
		}
		if w.Load()&mask != mask {
			w.Or(mask)
			fresh = true
		}
		from = next
	}
	return fresh
}

// run counts the units in the set from one on, without a gap, up to end.
func (p *readSet) run(from, end int64) (n int64) {
	for from+n < end {
		w := p.word(from + n)
		if w == nil {
			break
		}
		at := (from + n) & 63
		got := int64(bits.TrailingZeros64(^(w.Load() >> at)))
		n += min(got, 64-at)
		if got < 64-at {
			break
		}
	}
	return min(n, max(end-from, 0))
}

// runBefore counts those before one, back to least.
func (p *readSet) runBefore(end, least int64) (n int64) {
	for end-n > least {
		w := p.word(end - n - 1)
		if w == nil {
			break
		}
		have := (end-n-1)&63 + 1 // in this word
		got := int64(bits.LeadingZeros64(^(w.Load() << (64 - have))))
		n += min(got, have)
		if got < have {
			break
		}
	}
	return min(n, max(end-least, 0))
}
