//go:build unix

package nbd_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/nbd/nbdtest"
)

// rootServer serves roots over an image on loopback.
func rootServer(t *testing.T) (roots *nbd.Roots, image, addr string) {
	image = tempFile(t, pattern(3<<20+1000))
	images := &nbd.Images{Logger: quiet}
	require.NoError(t, images.Add(t.Context(), "debian12", image))
	roots = &nbd.Roots{Images: images, Dir: filepath.Join(t.TempDir(), "state"), Logger: quiet}
	srv := &nbd.Server{Handler: roots, Logger: quiet}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		require.NoError(t, srv.Close())
		require.ErrorIs(t, <-done, nbd.ErrServerClosed)
		require.NoError(t, roots.Close())
		require.NoError(t, images.Close())
	})
	return roots, image, l.Addr().String()
}

func boot(t *testing.T, roots *nbd.Roots, root string, kind nbd.Kind) string {
	n, err := roots.Boot(t.Context(), "debian12", root, kind)
	require.NoError(t, err)
	return n.String()
}

// TestRootsWithTools: QEMU and libnbd write and read roots by their names.
func TestRootsWithTools(t *testing.T) {
	needTool(t, "qemu-io", "nbdcopy", "nbdinfo", "qemu-img")
	roots, image, addr := rootServer(t)
	before, err := os.ReadFile(image)
	require.NoError(t, err)
	padded := append(bytes.Clone(before), make([]byte, 512-len(before)%512)...)
	uri := func(name string) string { return "nbd://" + addr + "/" + name }
	read := func(name string) []byte {
		file := filepath.Join(t.TempDir(), "copy")
		run(t, "nbdcopy", uri(name), file)
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		return content
	}
	for _, kind := range []nbd.Kind{nbd.Kept, nbd.Ephemeral} {
		root := kind.String()
		name := boot(t, roots, root, kind)
		require.Contains(t, run(t, "nbdinfo", uri(name)), "is_read_only: false")

		want := bytes.Clone(padded)
		copy(want[1536:], bytes.Repeat([]byte{0xa5}, 7<<10))
		copy(want[1<<20:], bytes.Repeat([]byte{0x5a}, 1<<20))
		run(t, "qemu-io", "-f", "raw", "-c", "write -P 0xa5 1536 7k", "-c", "write -P 0x5a 1M 1M", "-c", "flush", uri(name))
		require.True(t, bytes.Equal(want, read(name)))
		require.True(t, bytes.Equal(want, read("debian12@"+root)))

		next := boot(t, roots, root, kind)
		if kind == nbd.Ephemeral {
			want = padded
		}
		require.True(t, bytes.Equal(want, read(next)))
		_, err := exec.Command("nbdinfo", uri(name)).CombinedOutput()
		require.Error(t, err, "the older boot is refused")
	}
	run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", image, uri("debian12"))
	require.Contains(t, run(t, "nbdinfo", "--list", "nbd://"+addr), "debian12@kept")
	after, err := os.ReadFile(image)
	require.NoError(t, err)
	require.True(t, bytes.Equal(before, after), "the image was written to")
}

// TestFenceCutsConnections: the older boot's TCP connection ends, and the
// newer one's works.
func TestFenceCutsConnections(t *testing.T) {
	roots, _, addr := rootServer(t)
	old, err := nbd.Dial(t.Context(), "tcp", addr, boot(t, roots, "r", nbd.Kept))
	require.NoError(t, err)
	defer old.Close()
	_, err = old.WriteAt([]byte("one"), 0)
	require.NoError(t, err)

	now, err := nbd.Dial(t.Context(), "tcp", addr, boot(t, roots, "r", nbd.Kept))
	require.NoError(t, err)
	defer now.Close()
	_, err = old.WriteAt([]byte("two"), 0)
	require.Error(t, err)
	p := make([]byte, 3)
	_, err = now.ReadAt(p, 0)
	require.NoError(t, err)
	require.Equal(t, "one", string(p))
}

// TestRootExtents: holes of the image, and what a machine has written and
// trimmed, reach the tools through images, roots and clones.
func TestRootExtents(t *testing.T) {
	needTool(t, "nbdinfo", "qemu-io", "qemu-img", "nbdcopy")
	image, _ := sparse(t)
	images := &nbd.Images{Logger: quiet}
	require.NoError(t, images.Add(t.Context(), "disk", image))
	roots := &nbd.Roots{Images: images, Logger: quiet}
	addr := nbdtest.ServeServer(t, &nbd.Server{Handler: roots, Logger: quiet})
	t.Cleanup(func() {
		require.NoError(t, roots.Close())
		require.NoError(t, images.Close())
	})
	uri := func(name string) string { return "nbd://" + addr + "/" + name }
	extents := func(name string) string {
		var list []struct{ Offset, Length, Type int64 }
		require.NoError(t, json.Unmarshal([]byte(run(t, "nbdinfo", "--json", "--map", uri(name))), &list))
		var qemu []struct {
			Start, Length int64
			Zero          bool
		}
		require.NoError(t, json.Unmarshal([]byte(run(t, "qemu-img", "map", "--output=json", "-f", "raw", uri(name))), &qemu))
		out, other := "", ""
		for _, e := range list {
			out += fmt.Sprintf("%d+%d:%d ", e.Offset>>10, e.Length>>10, e.Type)
		}
		for _, e := range qemu {
			other += fmt.Sprintf("%d+%d:%d ", e.Start>>10, e.Length>>10, map[bool]int{true: 3}[e.Zero])
		}
		require.Equal(t, out, other)
		return strings.TrimSpace(out)
	}
	const whole = "0+2048:0 2048+2048:3 4096+2048:0 6144+2048:3"
	require.Equal(t, whole, extents("disk"))
	n, err := roots.Boot(t.Context(), "disk", "node", nbd.Kept)
	require.NoError(t, err)
	require.Equal(t, whole, extents(n.String()))
	run(t, "qemu-io", "-f", "raw", "-d", "unmap", "-c", "write -P 7 3M 64k", "-c", "discard 1M 128k", uri(n.String()))
	const changed = "0+1024:0 1024+128:3 1152+896:0 2048+1024:3 3072+64:0 3136+960:3 4096+2048:0 6144+2048:3"
	require.Equal(t, changed, extents(n.String()))
	require.NoError(t, roots.Clone(t.Context(), "node", "other"))
	require.Equal(t, changed, extents("disk@other"))
	require.Equal(t, changed, extents(n.String()))

	// A copy asks for no hole and makes none up.
	copied := filepath.Join(t.TempDir(), "copy")
	run(t, "nbdcopy", uri("disk@other"), copied)
	run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", copied, uri(n.String()))
	require.Less(t, allocated(t, copied), int64(5<<20))
}
