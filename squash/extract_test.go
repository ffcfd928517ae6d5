package squash_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/squash"
)

func entries(list ...*squash.Entry) squash.SourceFunc {
	return func(context.Context) iter.Seq2[*squash.Entry, error] {
		return func(yield func(*squash.Entry, error) bool) {
			for _, e := range list {
				if !yield(e, nil) {
					return
				}
			}
		}
	}
}

func regular(name, content string) *squash.Entry {
	return &squash.Entry{Path: name, Mode: 0o644, Size: int64(len(content)), Stat: me(),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil }}
}

func me() squash.Stat { return squash.Stat{Uid: uint32(os.Getuid()), Gid: uint32(os.Getgid())} }

// Sources that lie get nothing out of the directory, and an error.
func TestExtractHostileSources(t *testing.T) {
	top := t.TempDir()
	outside := filepath.Join(top, "outside")
	require.NoError(t, os.Mkdir(outside, 0o755))
	link := func(name, target string) *squash.Entry {
		return &squash.Entry{Path: name, Mode: fs.ModeSymlink | 0o777, Target: target, Stat: me()}
	}
	folder := func(name string) *squash.Entry {
		return &squash.Entry{Path: name, Mode: fs.ModeDir | 0o755, Stat: me()}
	}
	long := regular("long", "12345")
	long.Size = 3
	short := regular("short", "12345")
	short.Size = 7
	for i, tt := range []struct {
		name string
		src  squash.SourceFunc
		is   error
	}{
		{"up", entries(regular("../outside/x", "x")), nil},
		{"up below", entries(folder("a"), regular("a/../../outside/x", "x")), nil},
		{"absolute", entries(regular(outside+"/x", "x")), nil},
		{"through an absolute link", entries(link("a", outside), regular("a/x", "x")), fs.ErrExist},
		{"through a link", entries(link("a", "../outside"), regular("a/x", "x")), fs.ErrExist},
		{"over a link", entries(link("a", "../outside/x"), regular("a", "x")), fs.ErrExist},
		{"NUL", entries(regular("a\x00b", "x")), nil},
		{"no name", entries(regular("", "x")), nil},
		{"a file below a file", entries(regular("a", "x"), regular("a/b", "x")), fs.ErrExist},
		{"a name of 300 bytes", entries(regular(strings.Repeat("n", 300), "x")), syscall.ENAMETOOLONG},
		{"more than said", entries(long), nil},
		{"less than said", entries(short), io.ErrUnexpectedEOF},
		{"the root replaced", entries(link(".", outside), regular("x", "x")), nil},
		{"swapped meanwhile", func(context.Context) iter.Seq2[*squash.Entry, error] {
			return func(yield func(*squash.Entry, error) bool) {
				dest := filepath.Join(top, "swapped meanwhile")
				if yield(folder("a"), nil) && yield(folder("b"), nil) && yield(regular("b/x", "x"), nil) {
					_ = os.Rename(filepath.Join(dest, "a"), filepath.Join(dest, "c"))
					_ = os.Symlink("../outside", filepath.Join(dest, "a"))
					yield(regular("a/x", "x"), nil)
				}
			}
		}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dest := filepath.Join(top, tt.name)
			_, err := squash.Extract(t.Context(), dest, tt.src, &squash.ExtractOptions{Partial: i%2 == 1})
			var pe *fs.PathError
			require.ErrorAs(t, err, &pe)
			if tt.is != nil {
				require.ErrorIs(t, err, tt.is)
			}
			list, err := os.ReadDir(outside)
			require.NoError(t, err)
			require.Empty(t, list)
		})
	}
}

func TestExtractLimits(t *testing.T) {
	src := entries(regular("a", "12345"), regular("b/c", "12345"))
	_, err := squash.Extract(t.Context(), filepath.Join(t.TempDir(), "d"), src, &squash.ExtractOptions{MaxSize: 9})
	require.ErrorContains(t, err, "MaxSize")
	_, err = squash.Extract(t.Context(), filepath.Join(t.TempDir(), "d"), src, &squash.ExtractOptions{MaxEntries: 3})
	require.ErrorContains(t, err, "MaxEntries")
	done, err := squash.Extract(t.Context(), filepath.Join(t.TempDir(), "d"), src, &squash.ExtractOptions{MaxSize: 10, MaxEntries: 4, Partial: true})
	require.NoError(t, err)
	require.Equal(t, 4, done.Entries)

	// What directories get waits until their files are made.
	value := make([]byte, 65536)
	var folders []*squash.Entry
	for i := range 300 {
		f := &squash.Entry{Path: fmt.Sprint(i), Mode: fs.ModeDir | 0o755, Stat: me()}
		f.Xattrs = map[string][]byte{}
		for k := range 15 {
			f.Xattrs[fmt.Sprintf("user.%d", k)] = value
		}
		folders = append(folders, f)
	}
	_, err = squash.Extract(t.Context(), filepath.Join(t.TempDir(), "d"), entries(folders...), nil)
	require.ErrorIs(t, err, syscall.E2BIG)

	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	e := regular("a", "12345")
	e.Open = func() (io.ReadCloser, error) {
		cancel(cause)
		return io.NopCloser(strings.NewReader("12345")), nil
	}
	_, err = squash.Extract(ctx, filepath.Join(t.TempDir(), "d"), entries(e), nil)
	require.ErrorIs(t, err, cause)
	require.Equal(t, cause, err)
}

func ExampleExtract() {
	var image memory
	if err := squash.Build(context.Background(), &image, squash.FromFS(fstest.MapFS{"etc/motd": {Data: []byte("hello\n")}}), nil); err != nil {
		fmt.Println(err)
		return
	}
	root, err := squash.Open(image.reader())
	if err != nil {
		fmt.Println(err)
		return
	}
	parent, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(parent)
	dir := filepath.Join(parent, "root")
	done, err := squash.Extract(context.Background(), dir, root, &squash.ExtractOptions{Partial: os.Geteuid() != 0, Logger: slog.New(slog.DiscardHandler)})
	fmt.Println(done.Entries, done.Bytes, err)
	b, err := os.ReadFile(filepath.Join(dir, "etc/motd"))
	fmt.Printf("%q %v\n", b, err)
	// Output:
	// 3 6 <nil>
	// "hello\n" <nil>
}
