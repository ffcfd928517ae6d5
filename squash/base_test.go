package squash_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/squash"
)

// baseTree is a tree with files of every kind of layout: whole blocks, tails,
// holes, duplicates, what does not compress.
func baseTree() fstest.MapFS {
	t0 := time.Unix(1000, 0)
	m := fstest.MapFS{}
	for i := range 60 {
		m[fmt.Sprintf("d%d/small%02d", i%4, i)] = &fstest.MapFile{Data: append(text(100*i), byte(i)), ModTime: t0}
		m[fmt.Sprintf("d%d/noise%02d", i%4, i)] = &fstest.MapFile{Data: noise(uint64(i), 200*i), ModTime: t0}
	}
	for i := range 12 {
		m[fmt.Sprintf("big/text%02d", i)] = &fstest.MapFile{Data: append(text(10000*i), byte(i)), ModTime: t0}
		m[fmt.Sprintf("big/noise%02d", i)] = &fstest.MapFile{Data: noise(uint64(100+i), 8192*i), ModTime: t0}
		m[fmt.Sprintf("big/same%02d", i)] = &fstest.MapFile{Data: text(50000 + i/6), ModTime: t0}
		m[fmt.Sprintf("big/hole%02d", i)] = &fstest.MapFile{Data: append(make([]byte, 20000), text(5000*i)...), ModTime: t0}
	}
	m["linked1"] = &fstest.MapFile{Data: text(30000), ModTime: t0, Sys: &squash.Stat{Ino: 4, Nlink: 2}}
	m["linked2"] = &fstest.MapFile{Data: text(30000), ModTime: t0, Sys: &squash.Stat{Ino: 4, Nlink: 2}}
	m["link"] = &fstest.MapFile{Data: []byte("big"), Mode: fs.ModeSymlink, ModTime: t0}
	return m
}

// opened counts what is opened of a source.
func opened(src squash.Source, n *atomic.Int64) squash.Source {
	return squash.SourceFunc(func(ctx context.Context) iter.Seq2[*squash.Entry, error] {
		return func(yield func(*squash.Entry, error) bool) {
			for e, err := range src.Entries(ctx) {
				if e != nil && e.Open != nil {
					open := e.Open
					e.Open = func() (io.ReadCloser, error) { n.Add(1); return open() }
				}
				if !yield(e, err) {
					return
				}
			}
		}
	})
}

// With a base or without, the image is the same, and most of it is taken over.
func TestBase(t *testing.T) {
	before, after := baseTree(), baseTree()
	t1 := time.Unix(2000, 0)
	change := func(name string, b []byte) { after[name] = &fstest.MapFile{Data: b, ModTime: t1} }
	change("d1/small13", []byte("shorter"))
	change("d2/noise30", noise(99, 6100))
	changed := bytes.Clone(before["big/text07"].Data)
	changed[5000]++
	change("big/text07", changed)
	change("big/hole03", make([]byte, 40000))
	change("big/new", text(70000))
	change("new/dir/file", text(10))
	delete(after, "big/noise05")
	after["d3/small03"] = &fstest.MapFile{Mode: fs.ModeDir, ModTime: t1}
	after["big/moved"] = after["big/text11"]
	delete(after, "big/text11")
	var archive bytes.Buffer
	_, err := squash.WriteTar(t.Context(), &archive, squash.FromFS(after))
	require.NoError(t, err)

	for _, o := range []squash.Options{
		{}, {BlockSize: 4096, FragmentSize: -1}, {BlockSize: 8192, FragmentSize: 3000},
		{Compressor: squash.Gzip{}, BlockSize: 8192}, {Compressor: squash.LZ4{}, BlockSize: 8192},
	} {
		for name, src := range map[string]func() squash.Source{
			"file system": func() squash.Source { return squash.FromFS(after) },
			"stream":      func() squash.Source { return squash.Tar(bytes.NewReader(archive.Bytes())) },
		} {
			t.Run(fmt.Sprintf("%T %d %d %s", o.Compressor, o.BlockSize, o.FragmentSize, name), func(t *testing.T) {
				o := o
				was := buildBytes(t, before, &o)
				var full memory
				require.NoError(t, squash.Build(t.Context(), &full, src(), &o))
				for rule, workers := range map[squash.Unchanged]int{squash.ByContent: 3, squash.BySizeAndTime: 1} {
					var last squash.Progress
					o.Base, o.Unchanged, o.Workers = open(t, was), rule, workers
					o.Progress = func(p squash.Progress) { last = p }
					var m memory
					var n atomic.Int64
					require.NoError(t, squash.Build(t.Context(), &m, opened(src(), &n), &o))
					require.True(t, bytes.Equal(full.b, m.b), "the image differs")
					if o.BlockSize != 0 { // else most is in one fragment block
						require.Greater(t, last.Reused, last.Read/2, "%+v", last)
					}
					if name == "file system" && rule == squash.BySizeAndTime {
						require.EqualValues(t, 7, n.Load(), "what is changed, new or moved is read")
					}
				}
				// Nothing has changed at all.
				o.Base, o.Unchanged, o.Progress = open(t, was), squash.BySizeAndTime, nil
				var n atomic.Int64
				var m memory
				require.NoError(t, squash.Build(t.Context(), &m, opened(squash.FromFS(before), &n), &o))
				require.True(t, bytes.Equal(was, m.b))
				require.Zero(t, n.Load())
			})
		}
	}
}

// A file that was changed and has its size and its time still.
func TestBaseSameSizeAndTime(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	t0 := time.Unix(1000, 0)
	put := func(content string) {
		require.NoError(t, os.WriteFile(file, []byte(content), 0o644))
		require.NoError(t, os.Chtimes(file, t0, t0))
	}
	put("old content")
	fi, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, t0, fi.ModTime())
	var began time.Time
	for e, err := range squash.Dir(dir).Entries(t.Context()) {
		require.NoError(t, err)
		began = e.ChangeTime // as the file system's clock has it
	}
	if began.IsZero() {
		t.Skip("the system has no change times")
	}
	began = began.Add(1)
	was := open(t, buildBytes(t, dirFS(dir), nil))
	for !newer(t, dir, began) { // until that clock has moved
		put("new content")
	}
	for _, tt := range []struct {
		o    squash.Options
		want string
	}{
		{squash.Options{Base: was}, "new content"},
		{squash.Options{Base: was, Unchanged: squash.BySizeAndTime}, "old content"}, // as documented
		{squash.Options{Base: was, Unchanged: squash.BySizeAndTime, BaseTime: began}, "new content"},
		{squash.Options{Base: was, Unchanged: squash.BySizeAndTime, ModTime: t0}, "new content"},
	} {
		got := open(t, buildBytes(t, dirFS(dir), &tt.o))
		require.Equal(t, tt.want, string(readAll(t, got, "file")))
	}
	// A source that does not tell when is read, too.
	src := fstest.MapFS{"file": {Data: []byte("new content"), Mode: 0o644, ModTime: t0}}
	got := open(t, buildBytes(t, src, &squash.Options{Base: was, Unchanged: squash.BySizeAndTime, BaseTime: began}))
	require.Equal(t, "new content", string(readAll(t, got, "file")))
}

func newer(t *testing.T, dir string, than time.Time) bool {
	t.Helper()
	for e, err := range squash.Dir(dir).Entries(t.Context()) {
		require.NoError(t, err)
		if e.Path == "file" {
			return e.ChangeTime.After(than)
		}
	}
	return false
}

// A superblock says that data is not compressed, or how.
func TestBaseOfAnotherProgram(t *testing.T) {
	src := baseTree()
	for _, flag := range []byte{0x02, 0x08} {
		b := buildBytes(t, src, nil)
		b[24] |= flag
		err := squash.Build(t.Context(), &memory{}, squash.FromFS(src), &squash.Options{Base: open(t, b)})
		require.ErrorContains(t, err, "not compressed")
	}
	b := buildBytes(t, src, nil)
	b[25] |= 0x04
	err := squash.Build(t.Context(), &memory{}, squash.FromFS(src), &squash.Options{Base: open(t, b)})
	require.ErrorContains(t, err, "other options")
}

// A base that was made in another way is an error or does no harm.
func TestBaseOfAnotherKind(t *testing.T) {
	src := baseTree()
	full := buildBytes(t, src, nil)
	for name, o := range map[string]*squash.Options{
		"block size": {BlockSize: 4096}, "compressor": {Compressor: squash.LZ4{}}, "level": {Compressor: squash.Zstd{Level: 4}},
	} {
		for _, rule := range []squash.Unchanged{squash.ByContent, squash.BySizeAndTime} {
			err := squash.Build(t.Context(), &memory{}, squash.FromFS(src), &squash.Options{Base: open(t, buildBytes(t, src, o)), Unchanged: rule})
			require.ErrorIs(t, err, fs.ErrInvalid, name)
			require.ErrorContains(t, err, "build without it")
		}
	}
	err := squash.Build(t.Context(), &memory{}, squash.FromFS(src), &squash.Options{Compressor: squash.Gzip{Level: 6}, Base: open(t, buildBytes(t, src, &squash.Options{Compressor: squash.Gzip{Level: 5}}))})
	require.ErrorContains(t, err, "other options")

	for _, rule := range []squash.Unchanged{squash.ByContent, squash.BySizeAndTime} {
		was := open(t, buildBytes(t, src, &squash.Options{FragmentSize: 7000}))
		require.Equal(t, full, buildBytes(t, src, &squash.Options{Base: was, Unchanged: rule}), "tails packed otherwise")
		other := maps.Clone(src)
		for name := range other { // the same names, other kinds
			if other[name].Mode.IsRegular() && other[name].Sys == nil && len(name)%2 == 0 {
				other[name] = &fstest.MapFile{Data: []byte("x"), Mode: fs.ModeSymlink}
			}
		}
		was = open(t, buildBytes(t, other, nil))
		require.Equal(t, full, buildBytes(t, src, &squash.Options{Base: was, Unchanged: rule}))
	}
}

// Another level shows behind what is the same at all levels.
func TestBaseOfAnotherLevel(t *testing.T) {
	var lines []byte
	for i := range 6000 {
		lines = fmt.Appendf(lines, "%d word %x line %d\n", i%17, i*i, i*7919%1000)
	}
	when := time.Unix(1000, 0)
	for name, first := range map[string][]byte{"hole": make([]byte, 1<<18), "noise": noise(1, 1<<18)} {
		src := fstest.MapFS{"a": {Data: first, ModTime: when}, "b": {Data: lines, ModTime: when}}
		was := buildBytes(t, src, &squash.Options{BlockSize: 4096, Compressor: squash.Zstd{Level: 1}})
		for _, rule := range []squash.Unchanged{squash.ByContent, squash.BySizeAndTime} {
			o := squash.Options{BlockSize: 4096, Compressor: squash.Zstd{Level: 4}, Base: open(t, was), Unchanged: rule}
			require.ErrorIs(t, squash.Build(t.Context(), &memory{}, squash.FromFS(src), &o), fs.ErrInvalid, "%s %d", name, rule)
		}
	}
}

// What is damaged is not taken over where it is compared.
func TestDamagedBase(t *testing.T) {
	src := baseTree()
	o := squash.Options{BlockSize: 4096, Compressor: squash.Gzip{}}
	was := buildBytes(t, src, &o)
	for i := 110; i < len(was); i += 1 + len(was)/20 {
		bad := bytes.Clone(was)
		bad[i] ^= 0xff
		f, err := squash.Open(bytes.NewReader(bad))
		if err != nil {
			continue
		}
		o.Base = f
		var m memory
		if err := squash.Build(t.Context(), &m, squash.FromFS(src), &o); err == nil {
			require.True(t, bytes.Equal(was, m.b), "byte %d", i)
		}
	}
}

func ExampleOptions_base() {
	tree := fstest.MapFS{"usr/large": {Data: text(1 << 20), ModTime: time.Unix(1000, 0)}, "etc/motd": {Data: []byte("monday\n"), ModTime: time.Unix(1000, 0)}}
	var first memory
	if err := squash.Build(context.Background(), &first, squash.FromFS(tree), nil); err != nil {
		fmt.Println(err)
		return
	}
	base, err := squash.Open(first.reader())
	if err != nil {
		fmt.Println(err)
		return
	}
	tree["etc/motd"] = &fstest.MapFile{Data: []byte("tuesday\n"), ModTime: time.Unix(2000, 0)}
	var next memory
	err = squash.Build(context.Background(), &next, squash.FromFS(tree), &squash.Options{
		Base: base, Unchanged: squash.BySizeAndTime,
		Progress: func(p squash.Progress) {
			if p.Done {
				fmt.Println(p.Reused, "of", p.Total, "bytes taken over")
			}
		},
	})
	fmt.Println(err)
	// Output:
	// 1048576 of 1048584 bytes taken over
	// <nil>
}
