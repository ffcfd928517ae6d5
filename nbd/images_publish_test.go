package nbd

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestImagesPublishAndRevert(t *testing.T) {
	dir := t.TempDir()
	im := &Images{Dir: filepath.Join(dir, "store")}
	defer func() { im.Close() }()
	ctx := t.Context()
	file := func(text string) string {
		path := filepath.Join(dir, "new")
		require.NoError(t, os.WriteFile(path, []byte(strings.Repeat(text, 512)), 0o600))
		return path
	}
	newest := func(want string) {
		t.Helper()
		dev, err := im.OpenNBD(ctx, &Request{Export: "debian"})
		require.NoError(t, err)
		p := make([]byte, 1)
		_, err = dev.ReadAt(p, 0)
		require.NoError(t, err)
		require.Equal(t, want, string(p))
		require.NoError(t, dev.(*imageDevice).Close())
	}
	reopen := func() {
		require.NoError(t, im.Close())
		im = &Images{Dir: im.Dir}
		require.NoError(t, im.Load(ctx))
	}

	a, err := im.Publish(ctx, "debian", file("a"))
	require.NoError(t, err)
	newest("a")
	_, err = im.Revert(ctx, "debian")
	require.ErrorIs(t, err, fs.ErrNotExist, "there is no former one")

	open, err := im.OpenNBD(ctx, &Request{Export: "debian"})
	require.NoError(t, err)
	b, err := im.Publish(ctx, "debian", file("b"))
	require.NoError(t, err)
	require.NotEqual(t, a.Digest, b.Digest)
	newest("b")
	p := make([]byte, 1)
	_, err = open.ReadAt(p, 0)
	require.NoError(t, err)
	require.Equal(t, "a", string(p), "an open connection keeps its own")
	require.NoError(t, open.(*imageDevice).Close())

	same, err := im.Publish(ctx, "debian", file("b"))
	require.NoError(t, err)
	require.Equal(t, b, same)
	require.NoFileExists(t, filepath.Join(dir, "new"))

	for _, want := range []string{"a", "b", "a"} {
		_, err := im.Revert(ctx, "debian")
		require.NoError(t, err)
		newest(want)
		reopen()
		newest(want)
	}

	// A Revert that a crash cut before its rename.
	require.NoError(t, os.WriteFile(im.storePath("debian")+".new", []byte("x"), 0o600))
	_, err = im.Revert(ctx, "debian")
	require.NoError(t, err)
	newest("b")
	_, err = im.Revert(ctx, "debian")
	require.NoError(t, err)
	newest("a")

	_, err = im.Publish(ctx, "no/image", file("c"))
	require.ErrorIs(t, err, fs.ErrInvalid)
	_, err = im.Revert(ctx, "../x")
	require.ErrorIs(t, err, fs.ErrInvalid)
	elsewhere := filepath.Join(dir, "c.raw")
	require.NoError(t, os.Rename(file("c"), elsewhere))
	require.NoError(t, im.Add(ctx, "elsewhere", elsewhere))
	_, err = im.Publish(ctx, "elsewhere", file("d"))
	require.NoError(t, err)
	text, err := os.ReadFile(elsewhere)
	require.NoError(t, err)
	require.EqualValues(t, 'd', text[0])
	_, err = im.Revert(ctx, "elsewhere")
	require.NoError(t, err)
	text, err = os.ReadFile(elsewhere)
	require.NoError(t, err)
	require.EqualValues(t, 'c', text[0])
	_, err = im.Publish(ctx, "debian", filepath.Join(dir, "missing"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	newest("a")
	_, err = im.Revert(ctx, "missing")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = (&Images{}).Publish(ctx, "debian", file("x"))
	require.ErrorIs(t, err, fs.ErrInvalid)
}
