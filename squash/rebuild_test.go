package squash_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/squash"
)

// Trees of chance that change by chance, with contents, tails and sizes that
// often occur twice: a rebuild is what a full build is.
func TestRebuildOfRandomChanges(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 7))
		content := func() []byte {
			tail := noise(uint64(r.IntN(3)), []int{0, 1, 50, 50, 51, 700, 4000}[r.IntN(7)])
			return slices.Concat(make([]byte, 4096*max(0, r.IntN(4)-2)), text(4096*max(0, r.IntN(5)-2)+40*r.IntN(3)), tail)
		}
		inode := uint64(0)
		file := func(when int64) *fstest.MapFile {
			inode++
			return &fstest.MapFile{Data: content(), Mode: 0o644, ModTime: time.Unix(when, 0), Sys: &squash.Stat{Ino: inode, Nlink: 2}}
		}
		name := func() string { return fmt.Sprintf("%c/%d/f%03d", 'a'+r.IntN(3), r.IntN(2), r.IntN(200)) }
		before := fstest.MapFS{}
		for range 20 + r.IntN(100) {
			f := file(1000)
			before[name()] = f
			if r.IntN(10) == 0 {
				before[name()] = f
			}
		}
		after := maps.Clone(before)
		for _, n := range slices.Sorted(maps.Keys(before)) {
			switch k := r.IntN(60); {
			case k == 0:
				delete(after, n)
			case k == 1:
				after[n] = file(2000)
			case k < 4: // as cp -p does; of a hard link a file of its own
				f := *before[n]
				f.Sys = nil
				after[name()+"-copy"], after[n] = &f, &f // a new name, where nothing has its size and time
			case k == 4: // touch
				after[n] = &fstest.MapFile{Data: before[n].Data, Mode: 0o600, ModTime: time.Unix(2000, 0)}
			case k == 5:
				after[name()] = file(2000)
			}
		}
		o := squash.Options{Workers: 1, BlockSize: 4096, FragmentSize: []int{0, 0, 1000, -1}[r.IntN(4)], Compressor: []squash.Compressor{squash.Zstd{}, squash.LZ4{}, squash.Gzip{}}[r.IntN(3)]}
		was := buildBytes(t, before, &o)
		full := buildBytes(t, after, &o)
		for _, rule := range []squash.Unchanged{squash.ByContent, squash.BySizeAndTime} {
			o := o
			o.Base, o.Unchanged = open(t, was), rule
			require.True(t, bytes.Equal(full, buildBytes(t, after, &o)), "seed %d, rule %d", seed, rule)
		}
	}
}

// A fragment block is taken over without decoding it: what the compressor gave
// comes out, and nothing but the first blocks is compressed or decoded.
func TestRebuildTakesFragmentsOver(t *testing.T) {
	tree := fstest.MapFS{}
	for i := range 400 {
		tree[fmt.Sprintf("d%02d/f%03d", i/20, i)] = &fstest.MapFile{Data: noise(uint64(i), 3000+i), Mode: 0o644, ModTime: time.Unix(1000, 0)}
	}
	was := buildBytes(t, tree, nil)
	changed := &fstest.MapFile{Data: text(3000), Mode: 0o644, ModTime: time.Unix(2000, 0)}
	tree["d07/f150"] = changed
	var last squash.Progress
	o := &squash.Options{Base: open(t, was), Unchanged: squash.BySizeAndTime, Progress: func(p squash.Progress) { last = p }}
	require.Equal(t, buildBytes(t, tree, nil), buildBytes(t, tree, o))
	require.Greater(t, last.Reused, last.Total-300000, "all but a block or two")
}

// What another program made may share no tails, or by other rules.
func TestRebuildFromAnotherProgramsBase(t *testing.T) {
	need(t, "mksquashfs")
	dir := t.TempDir()
	tail := noise(1, 100)
	for name, b := range map[string][]byte{
		"a1": append(noise(2, 4096), tail...), "a2": noise(3, 4196), "b1": append(noise(4, 8192), tail...), "b2": noise(5, 8292),
		"c1": noise(6, 300), "c2": noise(6, 300),
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), b, 0o644))
	}
	image := filepath.Join(t.TempDir(), "image")
	// Nothing here gets smaller, so that no compressor tells the two apart.
	run(t, "mksquashfs", dir, image, "-noappend", "-quiet", "-no-progress", "-comp", "zstd", "-b", "4096", "-always-use-fragments", "-no-duplicates")
	b, err := os.ReadFile(image)
	require.NoError(t, err)
	o := squash.Options{BlockSize: 4096, Base: open(t, b), Unchanged: squash.BySizeAndTime}
	full := buildBytes(t, dirFS(dir), &squash.Options{BlockSize: 4096})
	var m memory
	var n atomic.Int64
	require.NoError(t, squash.Build(t.Context(), &m, opened(squash.Dir(dir), &n), &o))
	require.Equal(t, full, m.b)
	require.Zero(t, n.Load())
}

// A base whose fragment block goes on where that of the new image ends, once
// with the tail of a file that another one has replaced.
func TestRebuildFromLongerFragments(t *testing.T) {
	when := time.Unix(1000, 0)
	tree := fstest.MapFS{"a": {Data: text(100), ModTime: when}, "b": {Data: noise(1, 100), ModTime: when}, "c": {Data: noise(2, 90), ModTime: when}}
	less := maps.Clone(tree)
	less["c"] = &fstest.MapFile{ModTime: when}
	replaced := squash.SourceFunc(func(context.Context) iter.Seq2[*squash.Entry, error] {
		return func(yield func(*squash.Entry, error) bool) {
			for _, from := range []fstest.MapFS{tree, less} {
				for _, name := range []string{"a", "b", "c"} {
					data := from[name].Data
					if !yield(&squash.Entry{Path: name, Size: int64(len(data)), ModTime: when, Content: bytes.NewReader(data)}, nil) {
						return
					}
				}
			}
		}
	})
	for _, comp := range []squash.Compressor{squash.Zstd{}, squash.Gzip{}, squash.LZ4{}, squash.XZ{}} {
		o := squash.Options{Compressor: comp, Unchanged: squash.BySizeAndTime}
		full := buildBytes(t, less, &o)
		var m memory
		require.NoError(t, squash.Build(t.Context(), &m, replaced, &o))
		for _, was := range [][]byte{buildBytes(t, tree, &o), m.b} {
			o := o
			o.Base = open(t, was)
			require.Equal(t, full, buildBytes(t, less, &o), "%T", comp)
		}
	}
}

// Tails that lie in a base where they would in the new image, or twice, and yet
// are packed otherwise.
func TestRebuildPacksAnew(t *testing.T) {
	file := func(data []byte, inode uint64) *fstest.MapFile {
		return &fstest.MapFile{Data: data, ModTime: time.Unix(1000, 0), Sys: &squash.Stat{Ino: inode, Nlink: 2}}
	}
	tail := noise(1, 100)
	short, long := append(noise(2, 4096), tail...), append(noise(3, 8192), tail...)
	for name, tt := range map[string]struct{ before, after fstest.MapFS }{
		"the first of two is gone": {
			fstest.MapFS{"a": file(tail, 1), "b": file(noise(4, 70), 2), "c": file(tail, 3)},
			fstest.MapFS{"b": file(noise(4, 70), 2), "c": file(tail, 3)},
		},
		"of two blocks a half each": {
			fstest.MapFS{"a": file(noise(4, 2000), 1), "b": file(noise(5, 1500), 2), "c": file(noise(6, 2000), 3), "d": file(noise(7, 1500), 4)},
			fstest.MapFS{"a": file(noise(4, 2000), 1), "d": file(noise(7, 1500), 4)},
		},
		// Of different sizes and one each, they were not compared.
		"links are files": {
			fstest.MapFS{"a": file(short, 1), "b": file(short, 1), "c": file(long, 2), "d": file(long, 2)},
			fstest.MapFS{"a": file(short, 1), "b": file(short, 3), "c": file(long, 2), "d": file(long, 4)},
		},
	} {
		o := squash.Options{BlockSize: 4096, Unchanged: squash.BySizeAndTime}
		full := buildBytes(t, tt.after, &o)
		o.Base = open(t, buildBytes(t, tt.before, &o))
		require.Equal(t, full, buildBytes(t, tt.after, &o), name)
	}
}

// A base that lies about the size of a file, which is what the tree has.
func TestRebuildFromALie(t *testing.T) {
	file := func(n int) fstest.MapFS { return fstest.MapFS{"a": {Data: text(n), ModTime: time.Unix(1000, 0)}} }
	o := squash.Options{FragmentSize: -1, Unchanged: squash.BySizeAndTime, Compressor: plainTables{squash.Zstd{}, nil}}
	was := buildBytes(t, file(5000), &o)
	at := bytes.LastIndex(was, binary.LittleEndian.AppendUint32(nil, 5000))
	require.Positive(t, at)
	for _, n := range []uint32{4999, 5001} {
		binary.LittleEndian.PutUint32(was[at:], n)
		o.Base = open(t, was)
		var bad *squash.FormatError
		require.ErrorAs(t, squash.Build(t.Context(), &memory{}, squash.FromFS(file(int(n))), &o), &bad)
		require.Contains(t, bad.Msg, "5000 bytes where")
	}
}

// A base that lies about what a block takes, by more than a signed number of 32
// bits holds.
func TestRebuildFromAnEndlessBlock(t *testing.T) {
	when := time.Unix(1000, 0)
	tree := fstest.MapFS{"a": {Data: text(1 << 18), ModTime: when}, "b": {Data: text(5000), ModTime: when}}
	o := squash.Options{FragmentSize: -1, Unchanged: squash.BySizeAndTime, Compressor: plainTables{squash.Zstd{}, nil}}
	was := buildBytes(t, tree, &o)
	at := bytes.LastIndex(was, binary.LittleEndian.AppendUint32(nil, 5000))
	require.Positive(t, at)
	binary.LittleEndian.PutUint32(was[at+4:], 0xf0000000)
	o.Base = open(t, was)
	require.ErrorIs(t, squash.Build(t.Context(), &memory{}, squash.FromFS(tree), &o), fs.ErrInvalid)
}

type brokenReader struct {
	io.ReaderAt
	broken atomic.Bool
}

func (r *brokenReader) ReadAt(p []byte, off int64) (int, error) {
	if r.broken.Load() && len(p) > 20000 {
		return 0, fs.ErrClosed
	}
	return r.ReaderAt.ReadAt(p, off)
}

type brokenWriter struct{ memory }

func (w *brokenWriter) WriteAt(p []byte, off int64) (int, error) {
	if len(p) > 20000 {
		return 0, syscall.ENOSPC
	}
	return w.memory.WriteAt(p, off)
}

// What is copied from the base fails to be read, or to be written.
func TestRebuildFails(t *testing.T) {
	tree := fstest.MapFS{}
	for i := range 100 {
		tree[fmt.Sprint(i)] = &fstest.MapFile{Data: noise(uint64(i), 30000), ModTime: time.Unix(1000, 0)}
	}
	was := buildBytes(t, tree, nil)
	o := squash.Options{Base: open(t, was), Unchanged: squash.BySizeAndTime}
	require.ErrorIs(t, squash.Build(t.Context(), &brokenWriter{}, squash.FromFS(tree), &o), syscall.ENOSPC)
	r := &brokenReader{ReaderAt: bytes.NewReader(was)}
	var err error
	o.Base, err = squash.Open(r)
	require.NoError(t, err)
	r.broken.Store(true)
	err = squash.Build(t.Context(), &memory{}, squash.FromFS(tree), &o)
	require.ErrorIs(t, err, fs.ErrClosed)
	require.ErrorContains(t, err, "Options.Base")
}

// The image has no room for more while blocks wait that are taken over unread.
func TestRebuildEndsInTheMiddle(t *testing.T) {
	tree := fstest.MapFS{}
	for i := range 40 { // of one size, so that what is stored is hashed
		tree[fmt.Sprint(i)] = &fstest.MapFile{Data: noise(uint64(i), 1<<18), ModTime: time.Unix(1000, 0)}
	}
	o := squash.Options{Unchanged: squash.BySizeAndTime}
	o.Base = open(t, buildBytes(t, tree, &o))
	require.ErrorIs(t, squash.Build(t.Context(), &fullWriter{left: 4 << 20}, squash.FromFS(tree), &o), syscall.ENOSPC)
}

// fullWriter has room for so many bytes.
type fullWriter struct {
	memory
	left int
}

func (w *fullWriter) WriteAt(p []byte, off int64) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return 0, syscall.ENOSPC
	}
	return w.memory.WriteAt(p, off)
}
