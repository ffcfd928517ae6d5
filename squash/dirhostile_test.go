package squash_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/squash"
)

// A tree on disk that somebody changes while it is read, after it was listed:
// an error, or the file as it was listed; never another file.
func TestDirThatChangesMeanwhile(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(file string) error
		text   string
	}{
		{"grown", func(file string) error { return os.WriteFile(file, text(10001), 0o644) }, "more than the 10000 bytes"},
		{"shrunk", func(file string) error { return os.Truncate(file, 5000) }, "ended after 5000 bytes"},
		{"emptied", func(file string) error { return os.Truncate(file, 0) }, "ended after 0 bytes"},
		{"removed", os.Remove, "no such file"},
		{"replaced", func(file string) error {
			if err := os.WriteFile(file+".new", text(10000), 0o644); err != nil {
				return err
			}
			return os.Rename(file+".new", file)
		}, "another file stands here"},
		{"a link", func(file string) error {
			if err := os.Remove(file); err != nil {
				return err
			}
			return os.Symlink("/etc/passwd", file)
		}, "too many levels of symbolic links"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "f")
			require.NoError(t, os.WriteFile(file, text(10000), 0o644))
			src := squash.SourceFunc(func(ctx context.Context) iter.Seq2[*squash.Entry, error] {
				return func(yield func(*squash.Entry, error) bool) {
					for e, err := range squash.Dir(dir).Entries(ctx) {
						if e != nil && e.Open != nil {
							open := e.Open
							e.Open = func() (io.ReadCloser, error) {
								if err := tt.change(file); err != nil {
									return nil, err
								}
								return open()
							}
						}
						if !yield(e, err) {
							return
						}
					}
				}
			})
			var pe *fs.PathError
			err := squash.Build(t.Context(), &memory{}, src, &squash.Options{BlockSize: 4096})
			require.ErrorAs(t, err, &pe)
			require.ErrorContains(t, err, tt.text)
		})
	}
}

// A directory that another one, or a link to it, replaces after it was listed,
// before what it holds is listed or meanwhile.
func TestDirectoriesThatAreReplaced(t *testing.T) {
	outside := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(outside, "secret"), nil, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(outside, "f"), nil, 0o600))
	for _, at := range []string{"d", "d/e"} {
		for _, put := range []func(name string) error{
			func(name string) error { return os.Symlink(outside, name) },
			func(name string) error { return os.Mkdir(name, 0o755) },
		} {
			dir := t.TempDir()
			require.NoError(t, os.MkdirAll(filepath.Join(dir, "d", "e"), 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "d", "f"), nil, 0o600))
			var last error
			for e, err := range squash.Dir(dir).Entries(t.Context()) {
				if last = err; err != nil {
					break
				}
				require.NotEqual(t, "d/secret", e.Path)
				if e.Path == at {
					require.NoError(t, os.Rename(filepath.Join(dir, "d"), filepath.Join(dir, "was")))
					require.NoError(t, put(filepath.Join(dir, "d")))
				}
			}
			require.Error(t, last)
			if !errors.Is(last, fs.ErrNotExist) { // as what is listed ahead can be in the middle
				require.ErrorContains(t, last, "another directory stands here")
			}
		}
	}
}
