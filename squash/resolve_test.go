package squash_test

import (
	"context"
	"encoding/binary"
	"io/fs"
	"iter"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/squash"
)

// ".." at the root is the root, also where an absolute link has led there.
func TestUpAfterAnAbsoluteLink(t *testing.T) {
	f := build(t, squash.FromFS(fstest.MapFS{
		"f":     {Data: []byte("of the root")},
		"a/f":   {Data: []byte("of a")},
		"a/b/f": {Data: []byte("of b")},
		"a/b/l": {Data: []byte("/../f"), Mode: fs.ModeSymlink},
		"a/b/d": {Data: []byte("/"), Mode: fs.ModeSymlink},
		"a/b/u": {Data: []byte("d/../f"), Mode: fs.ModeSymlink},
	}))
	for _, name := range []string{"a/b/l", "a/b/u"} {
		b, err := fs.ReadFile(f, name)
		require.NoError(t, err)
		require.Equal(t, "of the root", string(b), name)
	}
}

// The image's time is the newest in the tree, the root's among them.
func TestImageTime(t *testing.T) {
	for _, sec := range [][2]int64{{5000, 1000}, {1000, 5000}} {
		var m memory
		require.NoError(t, squash.Build(t.Context(), &m, squash.SourceFunc(func(context.Context) iter.Seq2[*squash.Entry, error] {
			return func(yield func(*squash.Entry, error) bool) {
				_ = yield(&squash.Entry{Path: ".", Mode: fs.ModeDir | 0o755, ModTime: time.Unix(sec[0], 0)}, nil) &&
					yield(&squash.Entry{Path: "a", Mode: 0o644, ModTime: time.Unix(sec[1], 0)}, nil)
			}
		}), nil))
		require.Equal(t, uint32(5000), binary.LittleEndian.Uint32(m.b[8:]))
	}
}
