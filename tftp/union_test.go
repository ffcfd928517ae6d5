//go:build linux

package tftp

import (
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

func TestUnion(t *testing.T) {
	rendered := fstest.MapFS{
		"pxelinux.cfg/default": {Data: []byte("rendered")},
		"boot/ipxe/local":      {Data: []byte("local")},
	}
	images := fstest.MapFS{
		"pxelinux.cfg/default": {Data: []byte("static")},
		"pxelinux.cfg/other":   {Data: []byte("other")},
		"boot/vmlinuz":         {Data: []byte("kernel")},
	}
	loaders := fstest.MapFS{"undionly.kpxe": {Data: []byte("ipxe")}, "sub/x": {Data: []byte("x")}}
	u := Union(Mount{FS: rendered}, Mount{FS: images}, Mount{Path: "/boot/ipxe/", FS: loaders},
		Mount{Path: "a/b/c", FS: loaders}, Mount{Path: "nil"})

	require.NoError(t, fstest.TestFS(u, "pxelinux.cfg/default", "pxelinux.cfg/other", "boot/vmlinuz", "boot/ipxe/local",
		"boot/ipxe/undionly.kpxe", "boot/ipxe/sub/x", "a/b/c/undionly.kpxe", "a/b/c/sub/x"))
	for name, want := range map[string]string{
		"pxelinux.cfg/default":    "rendered", // the first one
		"pxelinux.cfg/other":      "other",
		"boot/ipxe/undionly.kpxe": "ipxe",
		"a/b/c/sub/x":             "x",
	} {
		b, err := fs.ReadFile(u, name)
		require.NoError(t, err, name)
		require.Equal(t, want, string(b), name)
	}
	for _, name := range []string{"nil", "a/b/x", "a/x", "boot/ipxe/none", "undionly.kpxe"} {
		_, err := u.Open(name)
		require.ErrorIs(t, err, fs.ErrNotExist, name)
	}
	_, err := u.Open("/boot")
	require.ErrorIs(t, err, fs.ErrInvalid)
	_, err = fs.ReadDir(u, "boot/vmlinuz")
	require.Error(t, err)

	var names []string
	entries, err := fs.ReadDir(u, ".")
	require.NoError(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	require.Equal(t, []string{"a", "boot", "pxelinux.cfg"}, names)

	require.NoError(t, fstest.TestFS(Union())) // nothing is a tree, too
}

func TestUnionStopsAtARefusal(t *testing.T) {
	below := Mount{FS: fstest.MapFS{"secret": {Data: []byte("x")}}}
	for _, refusal := range []error{fs.ErrPermission, errors.New("disk on fire")} {
		_, err := Union(Mount{FS: faulty{refusal}}, below).Open("secret")
		require.ErrorIs(t, err, refusal)
	}
	b, err := fs.ReadFile(Union(Mount{FS: faulty{fs.ErrNotExist}}, below), "secret")
	require.NoError(t, err)
	require.Equal(t, "x", string(b))
}

func TestUnionOfLinks(t *testing.T) {
	dir := tree(t)
	require.NoError(t, os.Symlink("../pxelinux.0", filepath.Join(dir, "boot", "link")))
	d, _ := openDir(t, dir)
	u := Union(Mount{FS: fstest.MapFS{"boot/x": {}}}, Mount{FS: d}, Mount{Path: "mnt/x", FS: d})
	require.NoError(t, fstest.TestFS(u, "boot/link", "mnt/x/boot/link"))
	target, err := fs.ReadLink(u, "mnt/x/boot/link")
	require.NoError(t, err)
	require.Equal(t, "../pxelinux.0", target)
	_, err = fs.ReadLink(u, "boot/x")
	require.Error(t, err)
	_, err = fs.ReadLink(u, "mnt")
	require.ErrorIs(t, err, fs.ErrInvalid)
	_, err = fs.ReadLink(u, "none")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = fs.Lstat(u, "../x")
	require.ErrorIs(t, err, fs.ErrInvalid)
}

func TestUnionOverHTTP(t *testing.T) {
	d, _ := openDir(t, tree(t))
	u := Union(Mount{FS: fstest.MapFS{"boot.ipxe": {Data: []byte("#!ipxe")}}}, Mount{Path: "images", FS: d})
	web := httptest.NewServer(http.FileServerFS(u))
	defer web.Close()
	get := func(path string) (int, string) {
		req, err := http.NewRequest("GET", web.URL+path, nil)
		require.NoError(t, err)
		req.Header.Set("Range", "bytes=1-")
		res, err := web.Client().Do(req)
		require.NoError(t, err)
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		return res.StatusCode, string(b)
	}
	code, body := get("/images/boot/vmlinuz")
	require.Equal(t, 206, code)
	require.Equal(t, "ernel", body)
	code, _ = get("/images/none")
	require.Equal(t, 404, code)
	code, body = get("/images/")
	require.Equal(t, 200, code)
	require.Contains(t, body, "pxelinux.0")
}
