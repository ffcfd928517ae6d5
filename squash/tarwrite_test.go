package squash_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/squash"
)

// An image goes through a tar and comes back, and GNU tar unpacks the same.
func TestWriteTar(t *testing.T) {
	need(t, "root", "tar")
	root := torture(t, 131072, 1000)
	var m memory
	require.NoError(t, squash.Build(t.Context(), &m, squash.Dir(root), &squash.Options{OmitSockets: true}))
	image := open(t, m.b)
	want := describe(t, image)

	file := filepath.Join(t.TempDir(), "image.tar")
	f, err := os.Create(file)
	require.NoError(t, err)
	defer f.Close()
	sockets, err := squash.WriteTar(t.Context(), f, image)
	require.NoError(t, err)
	require.Zero(t, sockets)
	_, err = f.Seek(0, io.SeekStart)
	require.NoError(t, err)
	requireSame(t, want, describe(t, build(t, squash.Tar(f))))

	dest := t.TempDir()
	run(t, "tar", "--delay-directory-restore", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", file, "-C", dest)
	requireSame(t, want, describe(t, dirFS(dest)))

	sockets, err = squash.WriteTar(t.Context(), io.Discard, squash.Dir(root))
	require.NoError(t, err)
	require.Equal(t, 2, sockets)
}

func TestWriteTarThatFails(t *testing.T) {
	image := open(t, buildBytes(t, fstest.MapFS{"a": {Data: noise(1, 300000)}}, nil))
	_, err := squash.WriteTar(t.Context(), limitedWriter(200000), image)
	require.ErrorIs(t, err, io.ErrShortWrite)

	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(io.ErrClosedPipe)
	_, err = squash.WriteTar(ctx, io.Discard, image)
	require.ErrorIs(t, err, io.ErrClosedPipe)

	for name, size := range map[string]int64{"more": 2, "less": 10} {
		_, err = squash.WriteTar(t.Context(), io.Discard, wrapSize(image, size))
		require.ErrorContains(t, err, "a", name)
	}
	equal := fstest.MapFS{"a": {Sys: &squash.Stat{Xattrs: map[string][]byte{"user.a=b": nil}}}}
	_, err = squash.WriteTar(t.Context(), io.Discard, squash.FromFS(equal))
	require.Error(t, err, "a name that the format cannot hold")
}

// limitedWriter has room for so many bytes.
func limitedWriter(n int) io.Writer { return &limited{n} }

type limited struct{ n int }

func (l *limited) Write(p []byte) (int, error) {
	if l.n -= len(p); l.n < 0 {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

// wrapSize says another size of each file.
func wrapSize(src squash.Source, size int64) squash.Source {
	return squash.SourceFunc(func(ctx context.Context) iter.Seq2[*squash.Entry, error] {
		return func(yield func(*squash.Entry, error) bool) {
			for e, err := range src.Entries(ctx) {
				if e != nil && e.Mode.IsRegular() {
					e.Size = size
					e.Open = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("four")), nil }
				}
				if !yield(e, err) {
					return
				}
			}
		}
	})
}

func ExampleWriteTar() {
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
	var archive bytes.Buffer // os.Stdout, a pipe
	sockets, err := squash.WriteTar(context.Background(), &archive, root)
	fmt.Println(sockets, err)
	for e, err := range squash.Tar(&archive).Entries(context.Background()) {
		fmt.Println(e.Path, e.Size, err)
	}
	// Output:
	// 0 <nil>
	// . 0 <nil>
	// etc 0 <nil>
	// etc/motd 6 <nil>
}
