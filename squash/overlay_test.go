package squash_test

import (
	"context"
	"fmt"
	"io/fs"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/squash"
)

func ExampleOverlay() {
	tree := fstest.MapFS{
		"etc":          {Mode: fs.ModeDir | 0o755},
		"etc/hostname": {Mode: 0o644, Data: []byte("master\n")},
		"etc/fstab":    {Mode: 0o644, Data: []byte("/dev/sda1 / ext4 defaults 0 1\n")},
	}
	over := fstest.MapFS{
		"etc/fstab":   {Mode: 0o644, Data: []byte("# the root comes over the network\n")},
		"dev/console": {Mode: fs.ModeDevice | fs.ModeCharDevice | 0o600, Sys: &squash.Stat{Major: 5, Minor: 1}},
	}
	var image memory
	if err := squash.Build(context.Background(), &image, squash.FromFS(squash.Overlay(tree, over)), nil); err != nil {
		fmt.Println(err)
		return
	}
	root, err := squash.Open(image.reader())
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		fmt.Println(d.Type(), name)
		return err
	})
	fstab, _ := fs.ReadFile(root, "etc/fstab")
	fmt.Printf("%s", fstab)
	// Output:
	// d--------- .
	// d--------- dev
	// Dc--------- dev/console
	// d--------- etc
	// ---------- etc/fstab
	// ---------- etc/hostname
	// # the root comes over the network
}

func TestOverlay(t *testing.T) {
	lower := fstest.MapFS{
		"a/x":    {Data: []byte("lower"), Mode: 0o644},
		"a":      {Mode: fs.ModeDir | 0o700},
		"d/deep": {Data: []byte("hidden")},
		"f":      {Data: []byte("file")},
		"l":      {Data: []byte("f"), Mode: fs.ModeSymlink},
	}
	upper := fstest.MapFS{
		"a/x":   {Data: []byte("upper"), Mode: 0o600},
		"a/y":   {Data: []byte("new")},
		"d":     {Data: []byte("a/x"), Mode: fs.ModeSymlink},
		"f/in":  {Data: []byte("a directory now")},
		"m/n/o": {Data: []byte("made")},
	}
	o := squash.Overlay(lower, upper)
	require.NoError(t, fstest.TestFS(o, "a/x", "a/y", "d", "f/in", "l", "m/n/o"))
	got := describe(t, o)
	require.Len(t, got, 11)
	require.Contains(t, got["a"], "drwx------")
	require.Contains(t, got["a/x"], "-rw-------")
	require.Contains(t, got["d"], "-> a/x")
	require.Contains(t, got["f"], "d")
	_, err := o.Open("d/deep")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = o.Open("../a")
	require.ErrorIs(t, err, fs.ErrInvalid)
	requireSame(t, got, describe(t, open(t, buildBytes(t, o, nil))))
}

// Two images number their files alike; over each other they stay apart.
func TestOverlayOfImages(t *testing.T) {
	link := &squash.Stat{Ino: 9, Nlink: 2}
	lower := buildBytes(t, fstest.MapFS{"a": {Data: []byte("1"), Sys: link}, "b": {Data: []byte("1"), Sys: link}}, nil)
	upper := buildBytes(t, fstest.MapFS{"c": {Data: []byte("other"), Sys: link}, "d": {Data: []byte("other"), Sys: link}}, nil)
	both := open(t, buildBytes(t, squash.Overlay(open(t, lower), open(t, upper)), nil))
	for name, want := range map[string]string{"a": "1", "b": "1", "c": "other", "d": "other"} {
		require.Equal(t, want, string(readAll(t, both, name)))
	}
}
