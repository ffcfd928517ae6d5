package squash_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
	"github.com/ulikunitz/xz"

	"github.com/seed-3ec230fa/diskless/squash"
)

// walk visits everything in an image and returns the first error. It reads at
// most budget bytes of files: holes make large files of small images.
func walk(image []byte, budget int64) error {
	f, err := squash.Open(bytes.NewReader(image))
	if err != nil {
		return err
	}
	var first error
	note := func(err error) {
		if first == nil {
			first = err
		}
	}
	names := 0
	err = fs.WalkDir(f, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			note(err)
			return nil
		}
		if names++; names > 100000 {
			return errors.New("a walk without end")
		}
		fi, err := d.Info()
		if err != nil {
			note(err)
			return nil
		}
		_ = fi.Sys()
		if d.Type()&fs.ModeSymlink != 0 {
			if _, err := f.ReadLink(name); err != nil && fs.ValidPath(name) {
				note(err)
			}
			_, _ = f.Stat(name) // may dangle
		}
		if d.Type().IsRegular() && budget > 0 && fs.ValidPath(name) {
			file, err := f.Open(name)
			if err != nil {
				note(err)
				return nil
			}
			n, err := io.Copy(io.Discard, io.LimitReader(file, budget))
			budget -= n
			note(err)
			var tail [100]byte
			if _, err := file.(io.ReaderAt).ReadAt(tail[:], max(0, fi.Size()-50)); err != io.EOF && fi.Size() < 1<<30 {
				note(err)
			}
		}
		return nil
	})
	note(err)
	return first
}

func smallImages(t testing.TB) [][]byte {
	t.Helper()
	src := fstest.MapFS{
		"a":     {Data: text(9000), Mode: 0o644},
		"b":     {Data: noise(1, 5000), Mode: 0o600},
		"c":     {Data: make([]byte, 8192)},
		"d/e":   {Data: []byte("tail")},
		"d/f/g": {Data: []byte("deep"), Sys: &squash.Stat{Ino: 3, Nlink: 2}},
		"d/h":   {Data: []byte("deep"), Sys: &squash.Stat{Ino: 3, Nlink: 2}},
		"l":     {Data: []byte("d/f"), Mode: fs.ModeSymlink},
		"loop":  {Data: []byte("loop"), Mode: fs.ModeSymlink},
		"n":     {Mode: fs.ModeDevice, Sys: &squash.Stat{Uid: 5, Major: 8}},
	}
	many := fstest.MapFS{}
	for i := range 700 {
		many["directory-with-an-index/"+string(noiseName(i))] = &fstest.MapFile{}
	}
	return [][]byte{
		buildBytes(t, src, &squash.Options{BlockSize: 4096}),
		buildBytes(t, src, nil),
		buildBytes(t, many, nil),
		buildBytes(t, fstest.MapFS{}, nil),
	}
}

func noiseName(i int) []byte {
	b := noise(uint64(i), 16)
	for j := range b {
		b[j] = 'a' + b[j]%26
	}
	return b
}

func TestCutImages(t *testing.T) {
	for _, image := range smallImages(t) {
		require.NoError(t, walk(image, math.MaxInt64))
		used := int(binary.LittleEndian.Uint64(image[40:]))
		for n := 0; n < used; n += 1 + used/300 {
			err := walk(image[:n], math.MaxInt64)
			var fe *squash.FormatError
			require.ErrorAs(t, err, &fe, "cut to %d of %d bytes", n, used)
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
			require.ErrorContains(t, err, "copy it again")
		}
	}
}

// Every byte of an image turned over: an error or a readable image, in little
// time and without a panic.
func TestFlippedImages(t *testing.T) {
	for _, image := range smallImages(t)[:1] {
		used := int(binary.LittleEndian.Uint64(image[40:]))
		for i := range used {
			bad := bytes.Clone(image)
			bad[i] ^= []byte{0x01, 0x80, 0xff}[i%3]
			_ = walk(bad, 1<<16)
		}
	}
}

// rawImage assembles an image of uncompressed tables by hand, to say in it
// what no writer says.
type rawImage struct {
	super  map[int]uint64 // offset of a field to its value
	inodes []byte
	dirs   []byte
	root   int // offset of the root's inode
	count  uint32
}

func (r rawImage) bytes() []byte {
	le := binary.LittleEndian
	meta := func(out, p []byte) []byte {
		if len(p) == 0 {
			return out
		}
		return append(le.AppendUint16(out, uint16(len(p))|0x8000), p...)
	}
	b := make([]byte, 96)
	inodes := len(b)
	b = meta(b, r.inodes)
	dirs := len(b)
	b = meta(b, r.dirs)
	ids := len(b)
	b = meta(b, le.AppendUint32(nil, 0))
	list := len(b)
	b = le.AppendUint64(b, uint64(ids))
	le.PutUint32(b[0:], 0x73717368)
	le.PutUint32(b[4:], r.count)
	le.PutUint32(b[12:], 4096)
	le.PutUint16(b[20:], 1)
	le.PutUint16(b[22:], 12)
	le.PutUint16(b[26:], 1)
	le.PutUint16(b[28:], 4)
	le.PutUint64(b[32:], uint64(r.root))
	le.PutUint64(b[40:], uint64(len(b)))
	le.PutUint64(b[48:], uint64(list))
	le.PutUint64(b[56:], math.MaxUint64)
	le.PutUint64(b[64:], uint64(inodes))
	le.PutUint64(b[72:], uint64(dirs))
	le.PutUint64(b[80:], math.MaxUint64)
	le.PutUint64(b[88:], math.MaxUint64)
	for at, v := range r.super {
		le.PutUint64(b[at:], v)
	}
	return b
}

func rawInode(typ uint16, number uint32, body ...uint32) []byte {
	le := binary.LittleEndian
	b := le.AppendUint16(nil, typ)
	b = le.AppendUint16(b, 0o755)
	b = le.AppendUint32(b, 0)
	b = le.AppendUint32(b, 0)
	b = le.AppendUint32(b, number)
	for _, w := range body {
		b = le.AppendUint32(b, w)
	}
	return b
}

func rawDir(number uint32, listing int, size int) []byte {
	return rawInode(1, number, 0, 2, uint32(size+3)|uint32(listing)<<16, 0)
}

type rawEntry struct {
	inode  int
	number uint32
	typ    uint16
	name   string
}

func rawListing(entries ...rawEntry) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, uint32(len(entries)-1))
	b = le.AppendUint32(b, 0)
	b = le.AppendUint32(b, 0)
	for _, e := range entries {
		b = le.AppendUint16(b, uint16(e.inode))
		b = le.AppendUint16(b, uint16(e.number))
		b = le.AppendUint16(b, e.typ)
		b = le.AppendUint16(b, uint16(len(e.name)-1))
		b = append(b, e.name...)
	}
	return b
}

func TestLyingImages(t *testing.T) {
	one := func(e rawEntry, child []byte) rawImage {
		l := rawListing(e)
		return rawImage{inodes: append(rawDir(1, 0, len(l)), child...), dirs: l, count: 2}
	}
	file := rawEntry{32, 2, 2, "f"}
	good := rawInode(2, 2, 0, 0xffffffff, 0, 0)
	require.NoError(t, walk(one(file, good).bytes(), 1<<20))

	chain := func() rawImage { // a directory in which there are two names for one directory, and so on
		var r rawImage
		const depth = 20
		for i := range depth {
			l := rawListing(rawEntry{32 * (i + 1), uint32(i + 2), 1, "a"}, rawEntry{32 * (i + 1), uint32(i + 2), 1, "b"})
			r.inodes = append(r.inodes, rawDir(uint32(i+1), len(r.dirs), len(l))...)
			r.dirs = append(r.dirs, l...)
		}
		r.inodes = append(r.inodes, rawDir(depth+1, 0, 0)...)
		r.count = depth + 1
		return r
	}
	loop := rawListing(rawEntry{0, 1, 1, "again"})
	sorted := rawListing(rawEntry{32, 2, 2, "b"}, rawEntry{32, 2, 2, "a"})
	for _, tt := range []struct {
		name string
		r    rawImage
		text string
	}{
		{"loop", rawImage{inodes: rawDir(1, 0, len(loop)), dirs: loop, count: 1}, "two places"},
		{"two names for a directory, twenty deep", chain(), "two places"},
		{"slash", one(rawEntry{32, 2, 2, "a/b"}, good), `name "a/b"`},
		{"dots", one(rawEntry{32, 2, 2, ".."}, good), `name ".."`},
		{"NUL", one(rawEntry{32, 2, 2, "a\x00"}, good), "name"},
		{"unsorted", rawImage{inodes: append(rawDir(1, 0, len(sorted)), good...), dirs: sorted, count: 2}, `"a" after "b"`},
		{"other type", one(rawEntry{32, 2, 3, "f"}, good), "type 3"},
		{"other number", one(rawEntry{32, 1, 2, "f"}, good), "number 1"},
		{"number too large", one(rawEntry{32, 3, 2, "f"}, rawInode(2, 3, 0, 0xffffffff, 0, 0)), "number 3 of 2"},
		{"number 0", one(rawEntry{32, 0, 2, "f"}, rawInode(2, 0, 0, 0xffffffff, 0, 0)), "number 0"},
		{"type 15", one(file, rawInode(15, 2, 0, 0, 0, 0)), "type 15"},
		{"inode cut", one(file, good[:20]), "runs over"},
		{"entry beyond the table", one(rawEntry{9000, 2, 2, "f"}, good), "byte 9000"},
		{"fragment of none", one(file, rawInode(2, 2, 0, 0, 0, 5)), "fragment 0 of 0"},
		{"size without room", one(file, rawInode(9, 2, 0, 0, 0, 1<<28, 0, 0, 1, 0xffffffff, 0, 0xffffffff)), "no room"},
		{"negative size", one(file, rawInode(9, 2, 0, 0, 0xffffffff, 0xffffffff, 0, 0, 1, 0xffffffff, 0, 0xffffffff)), "bytes"},
		{"block past the end", one(file, rawInode(2, 2, 5000, 0xffffffff, 0, 100, 100)), "begins at byte 5000"},
		{"block too large", one(file, rawInode(2, 2, 96, 0xffffffff, 0, 100, 5000)), "5000 stored"},
		{"raw block of another size", one(file, rawInode(2, 2, 96, 0xffffffff, 0, 100, 50|1<<24)), "50 bytes where 100"},
		{"block that does not decode", one(file, rawInode(2, 2, 96, 0xffffffff, 0, 100, 50)), "does not decode"},
		{"words missing", one(file, rawInode(2, 2, 96, 0xffffffff, 0, 100)), "runs over"},
		{"long symbolic link", one(rawEntry{32, 2, 3, "f"}, rawInode(3, 2, 1, 5000)), "link of 5000"},
		{"listing too long", rawImage{inodes: rawDir(1, 0, 5000), dirs: loop, count: 1}, ""},
		{"root is a file", rawImage{inodes: good, count: 2}, "root is no directory"},
		{"root outside", rawImage{inodes: rawDir(1, 0, 0), count: 1, root: 5000}, "metadata piece of 32"},
		{"root far outside", rawImage{inodes: rawDir(1, 0, 0), count: 1, super: map[int]uint64{32: 1 << 60}}, "table"},
		{"tables out of order", rawImage{inodes: rawDir(1, 0, 0), count: 1, super: map[int]uint64{64: 131}}, "is not between"},
		{"size of the universe", rawImage{inodes: rawDir(1, 0, 0), count: 1, super: map[int]uint64{40: 1 << 63}}, "a size of"},
		{"longer than the file", rawImage{inodes: rawDir(1, 0, 0), count: 1, super: map[int]uint64{40: 1 << 40}}, "copy it again"},
		{"block size", rawImage{inodes: rawDir(1, 0, 0), count: 1, super: map[int]uint64{12: 1 << 31}}, "block size"},
		{"version", rawImage{inodes: rawDir(1, 0, 0), count: 1, super: map[int]uint64{28: 3}}, "version 3.0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := walk(tt.r.bytes(), 1<<20)
			var fe *squash.FormatError
			require.ErrorAs(t, err, &fe)
			require.ErrorContains(t, err, tt.text)
		})
	}
}

// A file may claim any size that its words can stand for; only what is read
// takes memory.
func TestLargeHoles(t *testing.T) {
	const size int64 = 4<<30 + 4097
	src := fstest.MapFS{"f": {Sys: nil}}
	image := buildBytes(t, holes{src, size}, &squash.Options{BlockSize: 1 << 20})
	require.Less(t, len(image), 100000)
	f, err := open(t, image).Open("f")
	require.NoError(t, err)
	defer f.Close()
	var b [3]byte
	n, err := f.(io.ReaderAt).ReadAt(b[:], size-2)
	require.Equal(t, 2, n)
	require.ErrorIs(t, err, io.EOF)
	at, err := f.(io.Seeker).Seek(-1, io.SeekEnd)
	require.NoError(t, err)
	require.Equal(t, size-1, at)
	// Linux agrees, on the blocks that it takes, too.
	linux, err := os.Open(filepath.Join(mount(t, imageFile(t, image)), "f"))
	require.NoError(t, err)
	defer linux.Close()
	fi, err := linux.Stat()
	require.NoError(t, err)
	require.Equal(t, size, fi.Size())
	require.Less(t, fi.Sys().(*syscall.Stat_t).Blocks, int64(100))
	n, err = linux.ReadAt(b[:], size-2)
	require.Equal(t, 2, n)
	require.ErrorIs(t, err, io.EOF)
}

// Each block of an xz stream says how large its dictionary is, which is memory.
func TestXzDictionaries(t *testing.T) {
	blocks := odd{Compressor: squash.XZ{}, encode: func(dst, src []byte) ([]byte, error) {
		var out bytes.Buffer
		w, err := xz.WriterConfig{DictCap: 4096, CheckSum: xz.CRC32}.NewWriter(&out)
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(src); err != nil {
			return nil, err
		}
		if err := w.Close(); err != nil || len(src) < 4096 {
			return append(dst, out.Bytes()...), err
		}
		le, one := binary.LittleEndian, out.Bytes()
		index := len(one) - 12 - 4*int(le.Uint32(one[len(one)-8:])+1)
		again := bytes.Clone(one[12:index])
		again[4] = 29 // 96 MiB
		head := 4 * (int(again[0]) + 1)
		le.PutUint32(again[head-4:], crc32.ChecksumIEEE(again[:head-4]))
		dst = append(append(dst, one[:index]...), again...)
		return append(dst, one[index:]...), nil
	}}
	image := buildBytes(t, fstest.MapFS{"a": {Data: text(8192)}}, &squash.Options{Compressor: blocks, BlockSize: 4096, FragmentSize: -1})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := open(t, image).ReadFile("a")
	runtime.ReadMemStats(&after)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(16<<20))
}

// holes makes every file of a tree size zeros long.
type holes struct {
	fs.FS
	size int64
}

func (h holes) Open(name string) (fs.File, error) {
	f, err := h.FS.Open(name)
	if err != nil || name == "." {
		return f, err
	}
	return &hole{File: f, left: h.size}, nil
}

func (h holes) ReadDir(name string) ([]fs.DirEntry, error) {
	list, err := fs.ReadDir(h.FS, name)
	for i, e := range list {
		list[i] = holeEntry{e, h.size}
	}
	return list, err
}

type holeEntry struct {
	fs.DirEntry
	size int64
}

type holeInfo struct {
	fs.FileInfo
	size int64
}

func (e holeEntry) Info() (fs.FileInfo, error) {
	fi, err := e.DirEntry.Info()
	return holeInfo{fi, e.size}, err
}

func (i holeInfo) Size() int64 { return i.size }

type hole struct {
	fs.File
	left int64
}

func (h *hole) Read(p []byte) (int, error) {
	if h.left == 0 {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), h.left))
	clear(p[:n])
	h.left -= int64(n)
	return n, nil
}

func FuzzOpen(f *testing.F) {
	for _, image := range smallImages(f) {
		f.Add(image)
		f.Add(image[:len(image)/2])
		for _, at := range []int{4, 12, 26, 33, 41, 64, 72, 80, 88, 200, 300} {
			bad := bytes.Clone(image)
			bad[at] ^= 0x55
			f.Add(bad)
		}
	}
	l := rawListing(rawEntry{32, 2, 2, "f"})
	f.Add(rawImage{inodes: append(rawDir(1, 0, len(l)), rawInode(9, 2, 96, 0, 100, 0, 0, 0, 1, 0xffffffff, 0, 0xffffffff, 50|1<<24)...), dirs: l, count: 2}.bytes())
	f.Fuzz(func(t *testing.T, image []byte) {
		_ = walk(image, 1<<20)
	})
}
