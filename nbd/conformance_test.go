package nbd_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/nbd/nbdtest"
)

// conforms runs the suite over what a handler has under a name, as it is and
// through our own server and client.
func conforms(t *testing.T, h nbd.Handler, name string, content []byte) {
	t.Helper()
	t.Run("device", func(t *testing.T) {
		dev, err := h.OpenNBD(t.Context(), &nbd.Request{Export: name})
		require.NoError(t, err)
		defer func() { require.NoError(t, dev.(io.Closer).Close()) }()
		nbdtest.TestDevice(t, dev, content)
	})
	t.Run("client", func(t *testing.T) {
		addr := nbdtest.ServeServer(t, &nbd.Server{Handler: h, Logger: quiet})
		nbdtest.TestDevice(t, dial(t, addr, name), content)
	})
}

// TestImagesAndRootsConform: what a machine can get, in each state that the
// commands bring it to.
func TestImagesAndRootsConform(t *testing.T) {
	for _, stored := range []bool{false, true} {
		t.Run(fmt.Sprintf("stored %t", stored), func(t *testing.T) {
			content := pattern(40<<10 + 100)
			padded := append(bytes.Clone(content), make([]byte, -len(content)&511)...)
			dir := t.TempDir()
			images := &nbd.Images{Dir: filepath.Join(dir, "images"), Logger: quiet}
			defer images.Close()
			path := filepath.Join(dir, "new")
			require.NoError(t, os.WriteFile(path, content, 0o600))
			_, err := images.Publish(t.Context(), "disk", path)
			require.NoError(t, err)
			t.Run("image", func(t *testing.T) { conforms(t, images, "disk", padded) })

			roots := &nbd.Roots{Images: images, Logger: quiet}
			if stored {
				roots.Dir = filepath.Join(dir, "state")
			}
			defer roots.Close()
			for _, kind := range []nbd.Kind{nbd.Ephemeral, nbd.Kept} {
				n, err := roots.Boot(t.Context(), "disk", kind.String(), kind)
				require.NoError(t, err)
				t.Run(n.Root, func(t *testing.T) { conforms(t, roots, n.String(), padded) })
			}
			from := "kept"
			for i := range 3 {
				to := fmt.Sprint("layers", i+1)
				require.NoError(t, roots.Clone(t.Context(), from, to))
				writeByte(t, roots, "disk@"+to, int64(i)*5000)
				padded[i*5000] = 0xee
				t.Run(to, func(t *testing.T) { conforms(t, roots, "disk@"+to, padded) })
				from = to
			}
			_, err = roots.Commit(t.Context(), from, "disk")
			require.NoError(t, err)
			t.Run("committed root", func(t *testing.T) { conforms(t, roots, "disk@"+from, padded) })
			t.Run("committed image", func(t *testing.T) { conforms(t, images, "disk", padded) })
		})
	}
}

func writeByte(t *testing.T, h nbd.Handler, name string, off int64) {
	t.Helper()
	dev, err := h.OpenNBD(t.Context(), &nbd.Request{Export: name})
	require.NoError(t, err)
	_, err = dev.(io.WriterAt).WriteAt([]byte{0xee}, off)
	require.NoError(t, err)
	require.NoError(t, dev.(io.Closer).Close())
}

// TestOverlaysConform: an overlay over whatever can be below one, and again over
// that, and after a Commit.
func TestOverlaysConform(t *testing.T) {
	content := pattern(9000)
	padded := append(bytes.Clone(content), make([]byte, -len(content)&511)...)
	file, err := nbd.OpenFile(tempFile(t, content))
	require.NoError(t, err)
	defer file.Close()
	backend, err := nbd.FromBackend(backendOf{nbdtest.NewMemory(bytes.Clone(padded))})
	require.NoError(t, err)
	cache, err := nbd.OpenCache(t.Context(), t.TempDir(), func(context.Context) (nbd.Device, string, error) {
		return nbd.NewReaderAt(bytes.NewReader(content), int64(len(content))), "id", nil
	}, nil)
	require.NoError(t, err)
	defer cache.Close()
	for name, base := range map[string]nbd.Device{
		"file":    file,
		"reader":  nbd.NewReaderAt(bytes.NewReader(content), int64(len(content))),
		"backend": backend,
		"cache":   cache,
		"client":  dial(t, serve(t, nbdtest.NewMemory(bytes.Clone(padded))), "x"),
		"overlay": nbd.NewOverlay(file),
	} {
		t.Run(name, func(t *testing.T) {
			over, err := nbd.OpenOverlay(base, t.TempDir(), "id")
			require.NoError(t, err)
			defer over.Close()
			for _, dev := range []nbd.Device{nbd.NewOverlay(base), over, nbd.NewOverlay(over)} {
				nbdtest.TestDevice(t, dev, padded)
			}
			commit := filepath.Join(t.TempDir(), "committed")
			require.NoError(t, over.Commit(t.Context(), commit))
			conforms(t, nbd.Share(over), "", padded)
			require.NoError(t, over.Reset())
			nbdtest.TestDevice(t, over, padded)
			conforms(t, nbd.FileServer(commit), "", padded)
		})
	}
}

// TestBlockDeviceConforms runs the suite over a loop device, where one can be had.
func TestBlockDeviceConforms(t *testing.T) {
	content := pattern(64 << 10)
	out, err := exec.Command("losetup", "--find", "--show", tempFile(t, content)).Output()
	if err != nil {
		t.Skip("no loop device can be had:", err)
	}
	path := strings.TrimSpace(string(out))
	defer func() { require.NoError(t, exec.Command("losetup", "--detach", path).Run()) }()
	dev, err := nbd.OpenFileRW(path)
	require.NoError(t, err)
	defer dev.Close()
	nbdtest.TestDevice(t, dev, content)
}
