package squash

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/bits"
	"runtime"
)

// VerifyOptions says how [Verify] works. A nil *VerifyOptions and the zero
// value are the defaults.
type VerifyOptions struct {
	// Workers is how many blocks are decoded at once; 0 means GOMAXPROCS.
	Workers int
	// MaxEntries is how many names are looked at, each file of which takes
	// some 60 bytes of memory, as each block does; 0 means 10,000,000, -1 no
	// limit.
	MaxEntries int
}

// Defect is something in an image that is not as it should be. It is an error
// for those who want one.
type Defect struct {
	// Path is the file concerned, "" for the image as a whole.
	Path string
	// Offset is where in the image, in bytes from its start; for what is
	// compressed, of the piece in which it lies.
	Offset int64
	// Msg says what is wrong.
	Msg string
	// Err is the cause, or nil.
	Err error
}

// Error says where and what.
func (d *Defect) Error() string {
	s := fmt.Sprintf("at byte %d: %s", d.Offset, d.Msg)
	if d.Path != "" {
		s = fmt.Sprintf("%q: %s", d.Path, s)
	}
	if d.Err != nil {
		s += ": " + d.Err.Error()
	}
	return s
}

// Unwrap returns Err.
func (d *Defect) Unwrap() error { return d.Err }

// Verify reads the whole of the image that begins at offset 0 of r and yields
// what is wrong with it, each defect once: what Linux, some reader or this
// package would refuse or read as something else, among it much that no
// reader notices (counts of links and inodes, the export table, sizes that
// say nothing) and much that Linux accepts until somebody reads the file
// (windows of zstd streams, checksums of xz streams, the ends of lz4 blocks).
// Files of such images can be read with this package. Every block of every file
// is decoded, once.
//
// SquashFS has no checksums of its own, and of its compressions only gzip and
// xz have some: content that was changed and still decodes is not found. Keep
// a digest of the image for that.
//
// The iteration ends with the first error that is not the image's: a read of r
// that failed, ctx's cause, too many entries, a compression that is not known
// here ([errors.ErrUnsupported]). After some defects, such as a
// superblock that makes no sense, there is nothing more to look at. ReadAt of
// r must be safe for concurrent use.
func Verify(ctx context.Context, r io.ReaderAt, opts *VerifyOptions) iter.Seq2[*Defect, error] {
	var o VerifyOptions
	if opts != nil {
		o = *opts
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.MaxEntries == 0 {
		o.MaxEntries = 10_000_000
	}
	return func(yield func(*Defect, error) bool) {
		v := &verifier{ctx: ctx, o: o, yield: yield, seen: make(map[uint32]uint64), links: make(map[uint32]*linkCount),
			blocks: make(map[int64]storedBlock), frags: make(map[uint32]fragUse), ordinal: make(map[int64]int64)}
		f, err := Open(r)
		if err != nil {
			v.bad("", err)
			return
		}
		v.f = f
		_ = v.head() && v.tables() && v.tree() && v.data()
	}
}

// verifier goes through an image part by part. Its methods return false when
// the iteration is over.
type verifier struct {
	ctx   context.Context
	o     VerifyOptions
	yield func(*Defect, error) bool
	f     *FS

	dictionary int64 // of xz streams
	dataStart  int64
	names      int
	room       int64             // words that the inode table has room for, less those of files seen
	seen       map[uint32]uint64 // the place of each inode, by number
	links      map[uint32]*linkCount
	ordinal    map[int64]int64 // the directory table's pieces
	lists      []span          // listings in the decoded directory table
	blocks     map[int64]storedBlock
	frags      map[uint32]fragUse
}

// linkCount is a file that says to have several names.
type linkCount struct {
	path        string
	says, found uint32
}

// bad yields an error as a defect, if it is the image's.
func (v *verifier) bad(path string, err error) bool {
	if err == nil {
		return true
	}
	var fe *FormatError
	if errors.As(err, &fe) && !errors.Is(err, errors.ErrUnsupported) {
		return v.yield(&Defect{Path: path, Offset: fe.Offset, Msg: fe.Msg, Err: fe.Err}, nil)
	}
	v.yield(nil, err)
	return false
}

// require yields a defect unless something holds.
func (v *verifier) require(holds bool, path string, off int64, format string, args ...any) bool {
	return holds || v.yield(&Defect{Path: path, Offset: off, Msg: fmt.Sprintf(format, args...)}, nil)
}

func (v *verifier) done() bool {
	if err := context.Cause(v.ctx); err != nil {
		v.yield(nil, err)
		return true
	}
	return false
}

// head checks the compressor's options and the image's end.
func (v *verifier) head() bool {
	sb := &v.f.sb
	v.dataStart, v.dictionary = superSize, int64(sb.BlockSize)
	if sb.Flags&flagOptions == 0 {
		return v.require(sb.Compressor != compLZ4, "", 24, "no options of the compressor, without which Linux mounts no lz4 image") && v.padding()
	}
	var b [10]byte
	if err := v.f.readAt(b[:2], superSize, "the compressor's options"); err != nil {
		return v.bad("", err)
	}
	header := binary.LittleEndian.Uint16(b[:])
	size := 8
	if sb.Compressor == compZstd {
		size = 4
	}
	if header != uint16(size)|rawMeta {
		return v.require(false, "", superSize, "options of the compressor with the header %#04x, not %#04x", header, size|rawMeta) && v.padding()
	}
	v.dataStart += 2 + int64(size)
	if err := v.f.readAt(b[2:2+size], superSize+2, "the compressor's options"); err != nil {
		return v.bad("", err)
	}
	first := binary.LittleEndian.Uint32(b[2:])
	switch sb.Compressor {
	case compLZ4:
		if !v.require(first == 1, "", superSize+2, "lz4 of version %d; Linux knows 1", first) {
			return false
		}
	case compXZ:
		v.dictionary = int64(first)
		// 2^n or 2^n + 2^(n+1)
		ones := bits.OnesCount32(first)
		if !v.require(ones == 1 || ones == 2 && first>>bits.TrailingZeros32(first) == 3, "", superSize+2, "an xz dictionary of %d bytes, which Linux refuses", first) {
			return false
		}
	}
	return v.padding()
}

// padding checks what follows the image.
func (v *verifier) padding() bool {
	used := int64(v.f.sb.Used)
	b := make([]byte, (padTo-used%padTo)%padTo)
	n, err := v.f.r.ReadAt(b, used)
	if n < len(b) && err != io.EOF && err != io.ErrUnexpectedEOF {
		return v.bad("", readError(used+int64(n), "the padding", err))
	}
	return v.require(allZero(b[:n]), "", used, "the padding after the image is not zero") &&
		v.require(int64(n) >= (1024-used%1024)%1024, "", used+int64(n), "the image is not padded to a multiple of 1,024 bytes, so that Linux cannot mount it from a block device; write zeros after it")
}
