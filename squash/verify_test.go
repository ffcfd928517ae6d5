package squash_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"github.com/ulikunitz/xz"

	"github.com/seed-3ec230fa/diskless/squash"
)

// defects are what Verify finds, each as its text.
func defects(t testing.TB, r io.ReaderAt) []string {
	t.Helper()
	var list []string
	for d, err := range squash.Verify(t.Context(), r, nil) {
		require.NoError(t, err)
		list = append(list, d.Error())
	}
	return list
}

// plain stores everything as it is, so that a test can change it in place.
type plain struct{ squash.Compressor }

type encoder func(dst, src []byte) ([]byte, error)

func (e encoder) Encode(dst, src []byte) ([]byte, error) { return e(dst, src) }

func (plain) NewEncoder(int) (squash.Encoder, error) {
	return encoder(func(dst, src []byte) ([]byte, error) { return append(dst, src...), nil }), nil
}

// image is an image to be damaged.
type image struct {
	t testing.TB
	b []byte
}

func (i *image) u64(at int) int { return int(binary.LittleEndian.Uint64(i.b[at:])) }

func (i *image) put16(at int, v uint16) { binary.LittleEndian.PutUint16(i.b[at:], v) }
func (i *image) put32(at int, v uint32) { binary.LittleEndian.PutUint32(i.b[at:], v) }
func (i *image) put64(at int, v uint64) { binary.LittleEndian.PutUint64(i.b[at:], v) }

// inode is where a file's inode stands.
func (i *image) inode(name string) int {
	i.t.Helper()
	fi, err := open(i.t, i.b).Lstat(name)
	require.NoError(i.t, err)
	ref := i.u64(i.export(int(fi.Sys().(*squash.Stat).Ino)))
	return i.u64(64) + ref>>16 + 2 + ref&0xffff
}

// export is where the place of an inode stands.
func (i *image) export(number int) int { return i.u64(i.u64(88)) + 2 + 8*(number-1) }

// entry is where a directory entry stands.
func (i *image) entry(name string) int {
	i.t.Helper()
	at := bytes.LastIndex(i.b[:i.u64(i.u64(80))], []byte(name)) - 8
	require.Greater(i.t, at, i.u64(72))
	return at
}

// header is where the run stands in which a name is the first.
func (i *image) header(first string) int { return i.entry(first) - 12 }

func damagedTree() fstest.MapFS {
	tree := fstest.MapFS{
		"adir/inner":  {Data: []byte("tail of inner"), Sys: &squash.Stat{Uid: 5}},
		"adir/inner2": {Data: text(4096 + 10)},
		"bdir/deep":   {Data: noise(2, 2*4096)},
		"bdir/zzzz":   {Data: []byte("last"), Sys: &squash.Stat{Ino: 9, Nlink: 2}},
		"cfile":       {Data: []byte("last"), Sys: &squash.Stat{Ino: 9, Nlink: 2}},
		"dhole":       {Data: append(make([]byte, 8192), noise(3, 4096)...)},
		"elink":       {Data: []byte("adir/inner"), Mode: fs.ModeSymlink},
		"fattr":       {Data: []byte("with"), Sys: &squash.Stat{Xattrs: map[string][]byte{"user.comment": []byte("some value")}}},
		"gnode":       {Mode: fs.ModeDevice, Sys: &squash.Stat{Major: 8}},
	}
	for i := range 20 { // names so long that the directory has an index
		for j := range 3 {
			tree[fmt.Sprintf("manynames/%02d%d%s", i, j, strings.Repeat("x", 250))] = &fstest.MapFile{}
		}
	}
	return tree
}

// Each way in which an image can be wrong, readers that accept it or not.
func TestVerifyFindsDamage(t *testing.T) {
	good := buildBytes(t, damagedTree(), &squash.Options{BlockSize: 4096, Compressor: plain{squash.Gzip{}}})
	require.Empty(t, defects(t, bytes.NewReader(good)))
	le := binary.LittleEndian
	for _, tt := range []struct {
		name   string
		damage func(i *image)
		want   string
	}{
		{"bytes used", func(i *image) { i.put64(40, uint64(i.u64(40)+8)) }, "xattr table ends at byte"},
		{"block size and logarithm", func(i *image) { i.put16(22, 13) }, "logarithm 13"},
		{"version", func(i *image) { i.put16(28, 3) }, "version 3.0"},
		{"compressor", func(i *image) { i.put16(20, 9) }, "unknown compressor 9"},
		{"options' header", func(i *image) { i.put16(96, 9) }, "with the header 0x0009"},
		{"fragment count too large", func(i *image) { i.put32(16, le.Uint32(i.b[16:])+1) }, "in the fragment table where"},
		{"fragment count 0", func(i *image) { i.put32(16, 0) }, "fragment 0 of 0"},
		{"ids too few", func(i *image) { i.put16(26, 1) }, "group 1 of 1"},
		{"id count 0", func(i *image) { i.put16(26, 0) }, "no owners"},
		{"export list elsewhere", func(i *image) { i.put64(88, uint64(i.u64(88)-8)) }, "export table"},
		{"owner out of range", func(i *image) { i.put16(i.inode("cfile")+4, 77) }, "owner 77"},
		{"group out of range", func(i *image) { i.put16(i.inode("cfile")+6, 77) }, "group 77"},
		{"fragment out of range", func(i *image) { i.put32(i.inode("adir/inner")+20, 77) }, "fragment 77 of"},
		{"xattrs out of range", func(i *image) { i.put32(i.inode("fattr")+16+36, 77) }, "set 77 of 1"},
		{"type 0", func(i *image) { i.put16(i.inode("gnode"), 0) }, "inode of type 0"},
		{"type 15", func(i *image) { i.put16(i.inode("gnode"), 15) }, "inode of type 15"},
		{"number 0", func(i *image) { i.put32(i.inode("gnode")+12, 0) }, "number 0 of"},
		{"inode count too small", func(i *image) { i.put32(4, le.Uint32(i.b[4:])-1) }, "in the export table where"},
		{"inode count too large", func(i *image) { i.put32(4, le.Uint32(i.b[4:])+1) }, "the tree has"},
		{"number above the count", func(i *image) { i.put32(i.inode("gnode")+12, 5000) }, "number 5000 of"},
		{"number not the entry's", func(i *image) { i.put32(i.inode("gnode")+12, 3) }, "its inode 4 and 3"},
		{"one number for two files", func(i *image) {
			other, gnode := le.Uint32(i.b[i.inode("elink")+12:]), i.inode("gnode")
			i.put16(i.entry("gnode")+2, le.Uint16(i.b[i.entry("gnode")+2:])+uint16(other-le.Uint32(i.b[gnode+12:])))
			i.put32(gnode+12, other)
		}, "is that of another file, too"},
		{"type in the mode", func(i *image) { i.put16(i.inode("cfile")+2, 0o100644) }, "mode 0100644"},
		{"tail past its block", func(i *image) { i.put32(i.inode("adir/inner")+24, 4000) }, "with a tail that ends at 4013"},
		{"tail past any block", func(i *image) { i.put32(i.inode("adir/inner")+24, 5000) }, "with a fragment at 5000"},
		{"a fragment block said to be compressed", func(i *image) {
			at := i.u64(i.u64(80)) + 2 + 8
			i.put32(at, le.Uint32(i.b[at:])&^(1<<24))
		}, "zlib stream that begins with"},
		{"a block said to be compressed", func(i *image) { i.put32(i.inode("bdir/deep")+32, 4096) }, "zlib stream that begins with"},
		{"whole blocks with a tail", func(i *image) { i.put32(i.inode("adir/inner")+28, 0) }, "a file of 0 bytes with a fragment"},
		{"size 2^62", func(i *image) { i.put64(i.inode("dhole")+24, 1<<62) }, "has no room"},
		{"size negative", func(i *image) { i.put64(i.inode("dhole")+24, math.MaxUint64) }, "a file of 18446744073709551615 bytes"},
		{"257 entries in a run", func(i *image) { i.put32(i.header("adir"), 256) }, "257 directory entries"},
		{"name of 300 bytes", func(i *image) { i.put16(i.entry("cfile")+6, 299) }, "name of 300 bytes"},
		{"entry of type 8", func(i *image) { i.put16(i.entry("cfile")+4, 8) }, "directory entry of type 8"},
		{"entry of another type", func(i *image) { i.put16(i.entry("cfile")+4, 3) }, "has type 3"},
		{"name with a slash", func(i *image) { i.b[i.entry("cfile")+9] = '/' }, `name "c/ile"`},
		{"name with NUL", func(i *image) { i.b[i.entry("cfile")+9] = 0 }, `name "c\x00ile"`},
		{"names not sorted", func(i *image) { i.b[i.entry("cfile")+8] = 'z' }, `"dhole" after "zfile"`},
		{"a name twice", func(i *image) { copy(i.b[i.entry("dhole")+8:], "cfile") }, `"cfile" after "cfile"`},
		{"listing 20 longer", func(i *image) { i.put16(i.inode("adir")+24, le.Uint16(i.b[i.inode("adir")+24:])+20) }, "runs over its listing's end"},
		{"listing 10 shorter", func(i *image) { i.put16(i.inode("adir")+24, le.Uint16(i.b[i.inode("adir")+24:])-10) }, "runs over its listing's end"},
		{"listing without the 3", func(i *image) { i.put16(i.inode("adir")+24, le.Uint16(i.b[i.inode("adir")+24:])-3) }, "runs over its listing's end"},
		{"listing of size 1", func(i *image) { i.put16(i.inode("adir")+24, 1) }, "a directory with a size of 1"},
		{"directory loop", func(i *image) {
			root, entry := i.inode("."), i.entry("adir")
			i.put16(entry, uint16(root-i.u64(64)-2))
			i.put16(entry+2, 1-le.Uint16(i.b[i.header("adir")+8:]))
		}, "stands in two places"},
		{"symbolic link of 0 bytes", func(i *image) { i.put32(i.inode("elink")+20, 0) }, "symbolic link of 0 bytes"},
		{"symbolic link with NUL", func(i *image) { i.b[i.inode("elink")+24+4] = 0 }, `a symbolic link to "adir\x00inner"`},
		{"xattr with NUL", func(i *image) { i.b[bytes.LastIndex(i.b, []byte("comment"))+3] = 0 }, `a NUL in its name, "user.com\x00ent"`},
		{"one listing for two directories", func(i *image) { copy(i.b[i.inode("bdir")+24:][:4], i.b[i.inode("adir")+24:]) }, "listings of two directories overlap"},
		{"xattr of type 7", func(i *image) { i.put16(bytes.LastIndex(i.b, []byte("comment"))-4, 7) }, "extended attribute of type 7"},
		{"xattr of 1 GiB", func(i *image) { i.put32(bytes.LastIndex(i.b, []byte("comment"))+7, 1<<30) }, "extended attribute of 1073741824 bytes"},
		{"xattrs with a size that is not theirs", func(i *image) { i.put32(i.u64(56)-16+12, 1<<30) }, "says to have 1073741824 bytes, it has"},
		{"more holes than file", func(i *image) { i.put64(i.inode("dhole")+32, 1<<40) }, "1099511627776 bytes of holes"},
		{"export table", func(i *image) { i.put64(i.export(3), 7) }, "the export table has inode 3 at 0x7"},
		{"links of a file", func(i *image) { i.put32(i.inode("cfile")+16+24, 3) }, "says to have 3 names, it has 2"},
		{"no link of a file", func(i *image) { i.put32(i.inode("elink")+16, 0) }, "says to have 0 names, it has 1"},
		{"links of a directory", func(i *image) { i.put32(i.inode("adir")+20, 9) }, "a directory with 9 links"},
		{"directory above", func(i *image) { i.put32(i.inode("adir")+28, 9) }, "says that inode 9 is above it"},
		{"block larger than a block", func(i *image) { i.put32(i.inode("bdir/deep")+32, 4097|1<<24) }, "block of 4097 stored bytes"},
		{"high bits of a block's word", func(i *image) { i.put32(i.inode("bdir/deep")+32, 4096|1<<24|1<<26) }, "stored bytes"},
		{"block past the data", func(i *image) { i.put32(i.inode("bdir/deep")+16, uint32(i.u64(64)-4096)) }, "not in the data area"},
		{"block before the data", func(i *image) { i.put32(i.inode("bdir/deep")+16, 90) }, "not in the data area"},
		{"overlapping blocks", func(i *image) { i.put32(i.inode("bdir/deep")+16, le.Uint32(i.b[i.inode("bdir/deep")+16:])+8) }, "overlaps the one at"},
		{"block of another length", func(i *image) { i.put32(i.inode("bdir/deep")+36, 4000|1<<24) }, "a block of 4000 bytes where 4096 belong"},
		{"index to another place", func(i *image) { i.put32(i.inode("manynames")+16+24, 50) }, "the directory's index has"},
		{"index with another name", func(i *image) { i.b[i.inode("manynames")+16+24+12] = '9' }, "the directory's index has"},
		{"index to another piece", func(i *image) { i.put32(i.inode("manynames")+16+24+4, 1) }, "the directory's index has"},
		{"a piece that is not full", func(i *image) {
			at, tail := i.u64(72), 0
			require.EqualValues(i.t, 8192|0x8000, le.Uint16(i.b[at:]))
			tail = int(le.Uint16(i.b[at+2+8192:]) &^ 0x8000)
			last := i.b[at+2+8191]
			i.put16(at, 8191|0x8000)
			i.put16(at+2+8191, uint16(tail+1)|0x8000)
			i.b[at+2+8191+2] = last
		}, "a piece of 8191 bytes in the middle of the directory table"},
		{"padding", func(i *image) { i.b[len(i.b)-1] = 1 }, "padding after the image is not zero"},
		{"no padding", func(i *image) { i.b = i.b[:i.u64(40)] }, "not padded to a multiple of 1,024"},
		{"cut short", func(i *image) { i.b = i.b[:len(i.b)/2] }, "copy it again"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			i := &image{t, bytes.Clone(good)}
			tt.damage(i)
			got := defects(t, bytes.NewReader(i.b))
			require.Contains(t, strings.Join(got, "\n"), tt.want)
			require.Less(t, len(got), 100)
		})
	}
	t.Run("symbolic link of 4096 bytes", func(t *testing.T) {
		i := &image{t, buildBytes(t, fstest.MapFS{"a": {Data: []byte(strings.Repeat("y", 4095)), Mode: fs.ModeSymlink}, "b": {}}, &squash.Options{Compressor: plain{squash.Gzip{}}})}
		i.put32(i.inode("a")+20, 4096)
		require.Contains(t, strings.Join(defects(t, bytes.NewReader(i.b)), "\n"), "symbolic link of 4096 bytes")
	})
	t.Run("dots", func(t *testing.T) {
		i := &image{t, buildBytes(t, fstest.MapFS{"ab": {Data: []byte("x")}, "cd": {}}, &squash.Options{Compressor: plain{squash.Gzip{}}})}
		copy(i.b[i.entry("ab")+8:], "..")
		require.Contains(t, strings.Join(defects(t, bytes.NewReader(i.b)), "\n"), `name ".."`)
	})
}

// odd is a compressor that makes streams of its own.
type odd struct {
	squash.Compressor
	options []byte
	encode  encoder
}

func (o odd) Options(int) []byte                     { return o.options }
func (o odd) NewEncoder(int) (squash.Encoder, error) { return o.encode, nil }

type otherOptions struct {
	squash.Compressor
	options []byte
}

func (o otherOptions) Options(int) []byte { return o.options }

// What every program reads in user space, and Linux does not.
func TestVerifyFindsStreamsThatLinuxRefuses(t *testing.T) {
	src := fstest.MapFS{"a": {Data: text(300000)}, "b": {Data: []byte("tail")}}
	window := func(dst, src []byte) ([]byte, error) {
		out := bytes.NewBuffer(dst)
		w, err := zstd.NewWriter(out, zstd.WithWindowSize(8<<20))
		if err != nil {
			return nil, err
		}
		for p := src; len(p) > 0; p = p[len(p)/2+1:] { // a stream of unknown length
			if _, err := w.Write(p[:len(p)/2+1]); err != nil {
				return nil, err
			}
			if err := w.Flush(); err != nil {
				return nil, err
			}
		}
		err = w.Close()
		return out.Bytes(), err
	}
	frames := func(dst, src []byte) ([]byte, error) {
		w, err := zstd.NewWriter(nil, zstd.WithSingleSegment(true))
		if err != nil {
			return nil, err
		}
		return w.EncodeAll(src[len(src)/2:], w.EncodeAll(src[:len(src)/2], dst)), nil
	}
	xzOf := func(c xz.WriterConfig) encoder {
		return func(dst, src []byte) ([]byte, error) {
			out := bytes.NewBuffer(dst)
			w, err := c.NewWriter(out)
			if err != nil {
				return nil, err
			}
			if _, err := w.Write(src); err != nil {
				return nil, err
			}
			err = w.Close()
			return out.Bytes(), err
		}
	}
	le := binary.LittleEndian
	for _, tt := range []struct {
		name string
		c    squash.Compressor
		want string
	}{
		{"zstd window", odd{squash.Zstd{}, nil, window}, "a zstd window of 8388608 bytes"},
		{"two zstd frames", odd{squash.Zstd{}, nil, frames}, "bytes after a zstd frame"},
		{"xz with CRC64", odd{squash.XZ{}, nil, xzOf(xz.WriterConfig{DictCap: 8192, CheckSum: xz.CRC64})}, "checksum of type 4"},
		{"xz dictionary above the options'", odd{squash.XZ{}, le.AppendUint64(nil, 8192), xzOf(xz.WriterConfig{DictCap: 65536, CheckSum: xz.CRC32})}, "an xz dictionary (code 8)"},
		{"xz option", odd{squash.XZ{}, le.AppendUint64(nil, 5<<13), xzOf(xz.WriterConfig{DictCap: 8192, CheckSum: xz.CRC32})}, "an xz dictionary of 40960 bytes"},
		{"lz4 without options", otherOptions{squash.LZ4{}, nil}, "no options of the compressor"},
		{"lz4 of another version", otherOptions{squash.LZ4{}, le.AppendUint64(nil, 2)}, "lz4 of version 2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := buildBytes(t, src, &squash.Options{Compressor: tt.c})
			require.NoError(t, walk(b, math.MaxInt64), "it reads well")
			require.Contains(t, strings.Join(defects(t, bytes.NewReader(b)), "\n"), tt.want)
		})
	}
}

// Nothing is wrong with good images, whoever made them.
func TestVerifyGoodImages(t *testing.T) {
	for _, c := range []squash.Compressor{nil, squash.Gzip{}, squash.LZ4{}, squash.XZ{}, squash.Zstd{Level: 1}} {
		for _, block := range []int{4096, 131072, 1 << 20} {
			b := buildBytes(t, fakeTree(), &squash.Options{Compressor: c, BlockSize: block, FragmentSize: 4096})
			require.Empty(t, defects(t, bytes.NewReader(b)), "%T %d", c, block)
		}
	}
	need(t, "root", "mksquashfs", "gensquashfs")
	root := torture(t, 4096, 1000)
	file := filepath.Join(t.TempDir(), "image")
	for _, args := range [][]string{
		{"-comp", "gzip"},
		{"-comp", "zstd", "-b", "1M", "-Xcompression-level", "3"},
		{"-comp", "gzip", "-b", "4096", "-no-fragments", "-no-exports"},
		{"-comp", "zstd", "-noI", "-noD", "-noF", "-no-xattrs"},
		{"-comp", "lz4", "-Xhc"},
		{"-comp", "xz"},
		{"-comp", "lzo"},
	} {
		run(t, "mksquashfs", append([]string{root, file, "-no-progress", "-quiet", "-noappend"}, args...)...)
		f, err := os.Open(file)
		require.NoError(t, err)
		require.Empty(t, defects(t, f), "%v", args)
		require.NoError(t, f.Close())
	}
	require.NoError(t, os.Remove(file))
	run(t, "gensquashfs", "--pack-dir", root, "--compressor", "zstd", "--keep-time", "--exportable", "--quiet", file)
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	require.Empty(t, defects(t, f))
}

// Files whose words are those of others, too: a small image that stands for
// endless work.
func TestVerifyBoundsOverlappingFiles(t *testing.T) {
	var entries []rawEntry
	var files []byte
	for i := range 40 {
		entries = append(entries, rawEntry{32 * (i + 1), uint32(i + 2), 2, fmt.Sprintf("%03d", i)})
		files = append(files, rawInode(2, uint32(i+2), 96, 0xffffffff, 0, 600*4096)...)
	}
	listing := rawListing(entries...)
	r := rawImage{inodes: slices.Concat(rawDir(1, 0, len(listing)), files, make([]byte, 3000)), dirs: listing, count: 41}
	n := 0
	for _, d := range defects(t, bytes.NewReader(r.bytes())) {
		if strings.Contains(d, "their inodes overlap") {
			n++
			require.Contains(t, d, `"001"`)
		}
	}
	require.Equal(t, 1, n)
}

func TestVerifyEnds(t *testing.T) {
	b := buildBytes(t, damagedTree(), nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(io.ErrClosedPipe)
	for _, err := range squash.Verify(ctx, bytes.NewReader(b), nil) {
		require.ErrorIs(t, err, io.ErrClosedPipe)
	}
	for _, err := range squash.Verify(t.Context(), bytes.NewReader(b), &squash.VerifyOptions{MaxEntries: 3}) {
		require.ErrorContains(t, err, "MaxEntries")
	}
	broken := errors.New("the disk is broken")
	n := 0
	for _, err := range squash.Verify(t.Context(), failsAt{bytes.NewReader(b), 200, broken}, nil) {
		require.ErrorIs(t, err, broken)
		n++
	}
	require.Equal(t, 1, n)
	// Every block is damaged, and the first is enough.
	for i := 96; i < int(binary.LittleEndian.Uint64(b[64:])); i++ {
		b[i] ^= 0xff
	}
	for d := range squash.Verify(t.Context(), bytes.NewReader(b), nil) {
		require.NotNil(t, d)
		break
	}
}

type failsAt struct {
	r   io.ReaderAt
	at  int64
	err error
}

func (f failsAt) ReadAt(p []byte, off int64) (int, error) {
	if off <= f.at && f.at < off+int64(len(p)) {
		return 0, f.err
	}
	return f.r.ReadAt(p, off)
}

func FuzzVerify(f *testing.F) {
	for _, image := range smallImages(f) {
		f.Add(image)
	}
	f.Add(buildBytes(f, damagedTree(), &squash.Options{BlockSize: 4096, Compressor: plain{squash.Gzip{}}}))
	f.Add(buildBytes(f, damagedTree(), &squash.Options{BlockSize: 4096, Compressor: squash.XZ{}}))
	f.Fuzz(func(t *testing.T, image []byte) {
		n := 0
		for _, err := range squash.Verify(t.Context(), bytes.NewReader(image), &squash.VerifyOptions{MaxEntries: 10000}) {
			if n++; err != nil || n == 1000 {
				break
			}
		}
		if n == 0 {
			// What has no defect can be read from end to end.
			if err := walk(image, 1<<20); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func ExampleVerify() {
	var m memory
	src := squash.FromFS(fstest.MapFS{"etc/services": {Data: text(100000)}})
	if err := squash.Build(context.Background(), &m, src, &squash.Options{Compressor: squash.Gzip{}}); err != nil {
		fmt.Println(err)
		return
	}
	m.b[200] ^= 1 // a bit rots
	for defect, err := range squash.Verify(context.Background(), m.reader(), nil) {
		if err != nil {
			fmt.Println("cannot look further:", err)
			return
		}
		fmt.Println(defect.Path, defect.Msg)
	}
	// Output:
	// etc/services a block does not decode
}
