package squash_test

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/squash"
)

func changes(t testing.TB, old, new *squash.FS) []string {
	t.Helper()
	var list []string
	for c, err := range squash.Diff(t.Context(), old, new) {
		require.NoError(t, err)
		require.Equal(t, c.What == squash.DiffAdded, c.Old == nil)
		require.Equal(t, c.What == squash.DiffRemoved, c.New == nil)
		list = append(list, c.Path+" "+c.What.String())
	}
	return list
}

func TestDiff(t *testing.T) {
	t0, t1 := time.Unix(1000, 0), time.Unix(2000, 0)
	file := func(data string) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte(data), Mode: 0o644, ModTime: t0}
	}
	linked := func(ino uint64) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte("linked"), Mode: 0o644, ModTime: t0, Sys: &squash.Stat{Ino: ino, Nlink: 2}}
	}
	before := fstest.MapFS{
		"content": file("old"), "size": file("1"), "mode": file("x"), "owner": file("x"), "time": file("x"), "same": file("x"),
		"large": file(string(noise(1, 300000))), "hole": file(string(make([]byte, 200000))),
		"link": {Data: []byte("a"), Mode: fs.ModeSymlink, ModTime: t0}, "type": file("x"), "gone": file("x"), "dirtofile/a": file("x"),
		"device": {Mode: fs.ModeDevice, ModTime: t0, Sys: &squash.Stat{Major: 8}}, "attr": file("x"),
		"l1": linked(1), "l2": linked(1), "l3": linked(2), "l4": linked(2), "m1": linked(3), "m2": linked(3),
		"gonedir/sub/a": file("x"), "zdir/a": file("x"),
	}
	after := maps.Clone(before)
	after["content"], after["size"], after["type"], after["new"], after["newdir/b"] = file("new"), file("12"), &fstest.MapFile{Data: []byte("x"), Mode: fs.ModeSymlink}, file("x"), file("y")
	after["mode"] = &fstest.MapFile{Data: []byte("x"), Mode: 0o755, ModTime: t1}
	after["owner"] = &fstest.MapFile{Data: []byte("x"), Mode: 0o644, ModTime: t0, Sys: &squash.Stat{Gid: 3}}
	after["time"] = &fstest.MapFile{Data: []byte("x"), Mode: 0o644, ModTime: t1}
	after["attr"] = &fstest.MapFile{Data: []byte("x"), Mode: 0o644, ModTime: t0, Sys: &squash.Stat{Xattrs: map[string][]byte{"user.a": nil}}}
	after["link"] = &fstest.MapFile{Data: []byte("b"), Mode: fs.ModeSymlink, ModTime: t0}
	after["device"] = &fstest.MapFile{Mode: fs.ModeDevice, ModTime: t0, Sys: &squash.Stat{Major: 9}}
	large := noise(1, 300000)
	large[299999]++
	after["large"] = file(string(large))
	after["l2"], after["l3"] = linked(2), linked(1) // the same contents, linked otherwise
	after["m2"] = file("linked")                    // no longer a link
	delete(after, "gone")
	delete(after, "gonedir/sub/a")
	delete(after, "dirtofile/a")
	after["dirtofile"] = file("x")

	old := open(t, buildBytes(t, before, nil))
	new := open(t, buildBytes(t, after, &squash.Options{BlockSize: 4096, Compressor: squash.Gzip{}}))
	require.Empty(t, changes(t, old, old))
	require.Empty(t, changes(t, old, open(t, buildBytes(t, before, &squash.Options{BlockSize: 8192, Compressor: squash.LZ4{}}))))
	require.Equal(t, []string{
		"attr xattrs", "content content", "device device", "dirtofile type", "gone removed", "gonedir removed",
		"l2 links", "l3 links", "l4 links", "large content", "link target", "m1 links", "m2 links", "mode mode,time", "new added", "newdir added",
		"owner owner", "size content", "time time", "type type",
		"dirtofile/a removed", "gonedir/sub removed", "gonedir/sub/a removed", "newdir/b added",
	}, changes(t, old, new))
}

func TestDiffEnds(t *testing.T) {
	old := open(t, buildBytes(t, fakeTree(), nil))
	new := open(t, buildBytes(t, fstest.MapFS{}, nil))
	n := 0
	for range squash.Diff(t.Context(), old, new) {
		if n++; n == 5 {
			break
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(io.ErrClosedPipe)
	var last error
	for _, err := range squash.Diff(ctx, old, old) {
		last = err
	}
	require.ErrorIs(t, last, io.ErrClosedPipe)

	b := buildBytes(t, fstest.MapFS{"a": {Data: noise(1, 5000)}}, nil)
	whole := open(t, b)
	cut := open(t, b)
	b[100] ^= 0xff
	for _, err := range squash.Diff(t.Context(), whole, cut) {
		var fe *squash.FormatError
		require.ErrorAs(t, err, &fe)
	}
}

func ExampleDiff() {
	build := func(tree fstest.MapFS) *squash.FS {
		var m memory
		if err := squash.Build(context.Background(), &m, squash.FromFS(tree), nil); err != nil {
			panic(err)
		}
		image, err := squash.Open(m.reader())
		if err != nil {
			panic(err)
		}
		return image
	}
	old := build(fstest.MapFS{"etc/motd": {Data: []byte("hello\n")}, "etc/hosts": {}})
	new := build(fstest.MapFS{"etc/motd": {Data: []byte("good morning\n"), Mode: 0o600}, "etc/issue": {}})
	for change, err := range squash.Diff(context.Background(), old, new) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(change.Path, change.What)
	}
	// Output:
	// etc/hosts removed
	// etc/issue added
	// etc/motd content,mode
}
