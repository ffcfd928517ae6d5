package squash

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"sync"
	"time"
)

// FS is an open image. It is an [fs.FS], [fs.ReadDirFS], [fs.ReadFileFS],
// [fs.StatFS] and [fs.ReadLinkFS], and safe for concurrent use, as its files
// are.
//
// Symbolic links are followed inside the image, as for a process whose root it
// is: an absolute target begins at the image's root, and ".." never leaves
// it. Lstat and ReadLink do not follow the last element. More than 40 links in
// one name are [syscall.ELOOP].
//
// Open succeeds on device nodes, FIFOs and sockets, which read as empty files.
// FileInfo.Sys returns a [*Stat].
type FS struct {
	r       io.ReaderAt
	sb      superblock
	dec     decoder
	dev     uint64
	ids     []uint32
	root    *node
	xattrKV int64  // where the pairs begin
	xattrN  uint32 // sets
	metas   cache  // pieces of metadata and pages of lookup lists
	blocks  cache  // data and fragment blocks
	scratch sync.Pool

	mu     sync.Mutex
	claims map[uint32]claim   // directories by number, see claimDir
	dirs   map[string][]*node // from the root to a directory, see walk
}

var (
	_ fs.ReadDirFS  = (*FS)(nil)
	_ fs.ReadFileFS = (*FS)(nil)
	_ fs.StatFS     = (*FS)(nil)
	_ fs.ReadLinkFS = (*FS)(nil)
)

// Cache sizes in bytes: the metadata of a tree of some 30,000 entries; as many
// fragment blocks as make one random read in six cheaper in a root of 400 MB, and
// two dozen blocks of the largest size.
const (
	metaCache  = 2 << 20
	blockCache = 24 << 20
)

// Info describes an image.
type Info struct {
	// Size is the image's length in bytes without the zeros that pad it.
	Size int64
	// BlockSize is the unit of compression in bytes.
	BlockSize int
	// Compressor is "zstd", "gzip", ...
	Compressor string
	// Fragments is the number of blocks that hold tails of files.
	Fragments int
	// Inodes is the number of files, hard links counted once.
	Inodes int
	// ModTime is the time that the superblock carries.
	ModTime time.Time
}

// Info describes the image.
func (f *FS) Info() Info {
	return Info{
		Size:       int64(f.sb.Used),
		BlockSize:  int(f.sb.BlockSize),
		Compressor: compressorName(f.sb.Compressor),
		Fragments:  int(f.sb.Fragments),
		Inodes:     int(f.sb.Inodes),
		ModTime:    time.Unix(int64(f.sb.Time), 0),
	}
}

// Open reads the superblock and the root of the image that begins at offset 0
// of r. ReadAt of r must be safe for concurrent use, and r must stay open and
// the same for as long as the FS is used; the FS itself needs no closing. It
// holds at most about 26 MiB of decoded blocks.
//
// An image that is cut short or makes no sense is a [*FormatError]; a
// compressor that cannot be read matches [errors.ErrUnsupported].
func Open(r io.ReaderAt) (*FS, error) {
	f := &FS{r: r, claims: make(map[uint32]claim)}
	f.metas.max, f.blocks.max = metaCache, blockCache
	var head [superSize]byte
	if err := f.readAt(head[:], 0, "the superblock"); err != nil {
		return nil, err
	}
	f.sb.decode(head[:])
	h := fnv.New64a()
	_, _ = h.Write(head[:])
	f.dev = h.Sum64()
	if err := f.checkSuper(); err != nil {
		return nil, err
	}
	f.blocks.whole = int(f.sb.BlockSize) + slack
	var err error
	if f.dec, err = newDecoder(f.sb.Compressor, int(f.sb.BlockSize)); err != nil {
		return nil, err
	}
	// One look at the end, so that a short copy shows here and not in the
	// middle of a boot.
	var last [1]byte
	if err := f.readAt(last[:], int64(f.sb.Used)-1, fmt.Sprintf("its %d bytes", f.sb.Used)); err != nil {
		return nil, err
	}
	if err := f.readIDs(); err != nil {
		return nil, err
	}
	if f.root, err = f.readInode(f.sb.Root); err != nil {
		return nil, err
	}
	if f.root.kind != kindDir {
		return nil, badFormat(32, "the root is no directory")
	}
	if err := f.openXattrs(); err != nil {
		return nil, err
	}
	return f, f.claimDir(f.root, 0, 0)
}

func (f *FS) checkSuper() error {
	sb := &f.sb
	switch {
	case sb.Magic != superMagic:
		return badFormat(0, "no SquashFS image: it begins with %#08x", sb.Magic)
	case sb.Major != 4 || sb.Minor != 0:
		return badFormat(28, "SquashFS version %d.%d; only 4.0 can be read", sb.Major, sb.Minor)
	case sb.BlockSize < minBlock || sb.BlockSize > maxBlock || sb.BlockSize != 1<<sb.BlockLog:
		return badFormat(12, "block size %d with logarithm %d", sb.BlockSize, sb.BlockLog)
	case sb.Used > 1<<62:
		return badFormat(40, "a size of %d bytes", sb.Used)
	case sb.IDs == 0:
		return badFormat(26, "no owners")
	}
	// The tables stand in this order, so each ends where the next begins.
	order := []struct {
		at    int64
		start uint64
		what  string
	}{
		{64, sb.InodeStart, "inode"}, {72, sb.DirStart, "directory"}, {80, sb.FragStart, "fragment"},
		{88, sb.ExportStart, "export"}, {48, sb.IDStart, "id"}, {56, sb.XattrStart, "xattr"}, {40, sb.Used, "last"},
	}
	low := uint64(superSize)
	for _, t := range order {
		if t.start == none64 && (t.what == "export" || t.what == "xattr" || t.what == "fragment" && sb.Fragments == 0) {
			continue
		}
		if t.start < low || t.start > sb.Used {
			return badFormat(t.at, "the %s table begins at byte %d, which is not between %d and %d", t.what, t.start, low, sb.Used)
		}
		low = t.start
	}
	return nil
}

// dirEnd is where the directory table ends at the latest.
func (f *FS) dirEnd() int64 {
	for _, s := range []uint64{f.sb.FragStart, f.sb.ExportStart} {
		if s != none64 {
			return int64(s)
		}
	}
	return int64(f.sb.IDStart)
}

// readIDs reads the owners, at most 256 KiB.
func (f *FS) readIDs() error {
	n := int(f.sb.IDs)
	f.ids = make([]uint32, 0, n)
	for i := 0; i < n; i += metaSize / 4 {
		piece, err := f.lookup(int64(f.sb.IDStart), int64(i)*4, "the id table")
		if err != nil {
			return err
		}
		for p := piece; len(p) >= 4 && len(f.ids) < n; p = p[4:] {
			f.ids = append(f.ids, binary.LittleEndian.Uint32(p))
		}
		if len(f.ids) < min(n, i+metaSize/4) {
			return badFormat(int64(f.sb.IDStart), "the id table holds %d of %d owners", len(f.ids), n)
		}
	}
	return nil
}

// readAt fills p or fails.
func (f *FS) readAt(p []byte, off int64, what string) error {
	n, err := f.r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return readError(off+int64(n), what, err)
}

// buffer lends a block's worth of memory.
func (f *FS) buffer() *[]byte {
	if b, ok := f.scratch.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, max(int(f.sb.BlockSize), metaSize+2)+slack)
	return &b
}
