package squash

import (
	"errors"
	"slices"

	"github.com/klauspost/compress/huff0"
)

// The Zstandard encoder. RFC 8878 has the format; numbers of sections are its.
// A frame holds one block of an image in zstd blocks of up to 128 KiB: a
// finder says what is copied from where, and the rest is about writing that in
// few bits. There are no floating-point numbers, so that all machines do the same.

const (
	zstdMagic    = 0xfd2fb528
	zstdBlock    = 128 << 10
	zstdMinMatch = 3 // of the format; finders look for four bytes or more
)

// Kinds of blocks and of literals' sections, modes of tables.
const (
	zstdRaw = iota
	zstdRLE
	zstdCompressed
)

// zstdEncoder writes frames.
type zstdEncoder struct {
	finder     zstdFinder
	split      *zstdSplit // nil: blocks are not split
	parts      zstdParts
	huff       huff0.Scratch
	ll, ml, of zstdCodes
}

func newZstdEncoder(f zstdFinder, split bool) *zstdEncoder {
	e := &zstdEncoder{finder: f}
	e.huff.Reuse = huff0.ReusePolicyNone // to repeat tables gains next to nothing, of codes as well
	if split {
		e.split = newZstdSplit()
	}
	e.ll.init(9, 6, zstdNormLL[:])
	e.ml.init(9, 6, zstdNormML[:])
	e.of.init(8, 5, zstdNormOF[:])
	return e
}

// Encode appends a frame without a checksum, whose window is its content. It
// may stop when the frame is longer than src, which will be stored as it is.
func (e *zstdEncoder) Encode(dst, src []byte) ([]byte, error) {
	start, n := len(dst), len(src)
	dst = slices.Grow(dst, n+n>>10+64)
	dst = append(dst, zstdMagic&0xff, zstdMagic>>8&0xff, zstdMagic>>16&0xff, zstdMagic>>24)
	switch { // frame header (3.1.1.1), single segment
	case n < 256:
		dst = append(dst, 0x20, byte(n))
	case n < 65536+256:
		dst = append(dst, 0x60, byte(n-256), byte((n-256)>>8))
	default:
		dst = append(dst, 0xa0, byte(n), byte(n>>8), byte(n>>16), byte(n>>24))
	}
	e.parts.reps = [3]int{1, 4, 8}
	e.finder.begin(n)
	for from := 0; ; from += zstdBlock {
		to := min(from+zstdBlock, n)
		var err error
		if dst, err = e.block(dst, src, from, to); err != nil || to == n || len(dst)-start >= n {
			return dst, err
		}
	}
}

// block appends src[from:to] as a zstd block, or as several.
func (e *zstdEncoder) block(dst, src []byte, from, to int) ([]byte, error) {
	p := &e.parts
	p.n, p.l = 0, 0
	reps, at, last := p.reps, len(dst), to == len(src)
	e.finder.find(p, src, from, to)
	whole := zstdPiece{p.seqs[:p.n], p.lits[:p.l], src[from:to]}
	zstdSetCodes(whole.seqs)
	if e.split != nil {
		pieces := e.split.pieces(whole)
		ok := true
		for i, piece := range pieces {
			var err error
			if dst, ok, err = e.piece(dst, piece, last && i == len(pieces)-1); err != nil {
				return nil, err
			}
			if !ok { // what follows takes its offsets for known
				break
			}
		}
		if ok {
			return dst, nil
		}
		dst = dst[:at]
	}
	dst, ok, err := e.piece(dst, whole, last)
	if !ok {
		p.reps = reps
	}
	return dst, err
}

// piece appends a zstd block (3.1.1.2), and tells whether it is compressed.
func (e *zstdEncoder) piece(dst []byte, p zstdPiece, last bool) (_ []byte, compressed bool, err error) {
	at, n := len(dst), len(p.src)
	dst = append(dst, 0, 0, 0)
	if len(p.seqs) == 0 || len(p.lits)+len(p.seqs) < n {
		if dst, err = e.literals(dst, p.lits); err != nil {
			return nil, false, err
		}
		if len(dst)-at-3 < n {
			dst = e.sequences(dst, p.seqs)
		}
	}
	size := len(dst) - at - 3
	kind := zstdCompressed
	if size == 0 || size >= n {
		dst = append(dst[:at+3], p.src...)
		kind, size = zstdRaw, n
	}
	h := kind<<1 | size<<3
	if last {
		h |= 1
	}
	dst[at], dst[at+1], dst[at+2] = byte(h), byte(h>>8), byte(h>>16)
	return dst, kind == zstdCompressed, nil
}

// literals appends the literals' section, 3.1.1.3.1.
func (e *zstdEncoder) literals(dst, lits []byte) ([]byte, error) {
	n := len(lits)
	one := n < 1024
	var out []byte
	err := huff0.ErrIncompressible
	switch {
	case n < 32:
	case one:
		out, _, err = huff0.Compress1X(lits, &e.huff)
	default:
		out, _, err = huff0.Compress4X(lits, &e.huff)
	}
	kind := zstdRaw
	switch {
	case errors.Is(err, huff0.ErrUseRLE):
		kind, out = zstdRLE, lits[:1]
	case errors.Is(err, huff0.ErrIncompressible):
		out = lits
	case err != nil:
		return nil, err
	case len(out)+2 >= n:
		out = lits
	default:
		kind = zstdCompressed
	}
	if kind < zstdCompressed {
		switch {
		case n < 32:
			dst = append(dst, byte(kind|n<<3))
		case n < 4096:
			dst = append(dst, byte(kind|1<<2|n<<4), byte(n>>4))
		default:
			dst = append(dst, byte(kind|3<<2|n<<4), byte(n>>4), byte(n>>12))
		}
		return append(dst, out...), nil
	}
	size, width, form := len(out), 10, 1
	switch {
	case one:
		form = 0
	case n >= 1<<14 || size >= 1<<14:
		width, form = 18, 3
	case n >= 1<<10 || size >= 1<<10:
		width, form = 14, 2
	}
	h := uint64(kind) | uint64(form)<<2 | uint64(n)<<4 | uint64(size)<<(4+width)
	for range (4 + 2*width + 7) / 8 {
		dst = append(dst, byte(h))
		h >>= 8
	}
	return append(dst, out...), nil
}

// sequences appends the sequences' section, 3.1.1.3.2.
func (e *zstdEncoder) sequences(dst []byte, seqs []zstdSeq) []byte {
	switch n := len(seqs); {
	case n == 0:
		return append(dst, 0)
	case n < 128:
		dst = append(dst, byte(n))
	case n < 0x7f00:
		dst = append(dst, byte(n>>8)+128, byte(n))
	default:
		dst = append(dst, 255, byte(n-0x7f00), byte((n-0x7f00)>>8))
	}
	clear(e.ll.count[:])
	clear(e.ml.count[:])
	clear(e.of.count[:])
	for i := range seqs {
		s := &seqs[i]
		e.ll.count[s.ll&63]++
		e.ml.count[s.ml&63]++
		e.of.count[s.of&63]++
	}
	at := len(dst)
	dst = append(dst, 0)
	var ll, of, ml byte
	dst, ll = e.ll.choose(dst, len(seqs))
	dst, of = e.of.choose(dst, len(seqs))
	dst, ml = e.ml.choose(dst, len(seqs))
	dst[at] = ll<<6 | of<<4 | ml<<2
	return e.bits(dst, seqs)
}

// bits appends the stream of states and extra bits, the last sequence first,
// for it is read backwards.
func (e *zstdEncoder) bits(dst []byte, seqs []zstdSeq) []byte {
	ll, ml, of := e.ll.table, e.ml.table, e.of.table
	s := &seqs[len(seqs)-1]
	mlState, ofState, llState := ml.first(s.ml), of.first(s.of), ll.first(s.ll)
	w := zstdBits{}
	w = w.add(s.lits, zstdExtraLL[s.ll&63])
	w = w.add(s.match, zstdExtraML[s.ml&63])
	dst = slices.Grow(dst, 32)
	dst, w = w.flush(dst)
	w = w.add(s.offset, s.of)
	dst, w = w.flush(dst)
	for left := len(seqs) - 1; left > 0; {
		const most = 16 // bytes of a sequence, and more
		dst = slices.Grow(dst, 32+256*most)
		for range min(left, 256) {
			left--
			s := &seqs[left]
			ofState, w = w.state(ofState, of, s.of)
			mlState, w = w.state(mlState, ml, s.ml)
			llState, w = w.state(llState, ll, s.ll)
			w = w.add(s.lits, zstdExtraLL[s.ll&63])
			dst, w = w.flush(dst)
			w = w.add(s.match, zstdExtraML[s.ml&63])
			w = w.add(s.offset, s.of)
			dst, w = w.flush(dst)
		}
	}
	dst = slices.Grow(dst, 32)
	w = w.add(mlState, ml.log)
	w = w.add(ofState, of.log)
	w = w.add(llState, ll.log)
	w = w.add(1, 1)
	if dst, w = w.flush(dst); w.n > 0 {
		dst = append(dst, byte(w.acc))
	}
	return dst
}
