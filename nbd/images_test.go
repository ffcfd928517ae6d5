package nbd

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func digestOf(p []byte) string {
	sum := sha256.Sum256(p)
	return hex.EncodeToString(sum[:])
}

// publish puts an image at path as it should be done.
func publish(t testing.TB, path string, content []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(path+".tmp", content, 0o600))
	require.NoError(t, os.Rename(path+".tmp", path))
}

func newImages(t testing.TB, path string, content []byte) (*Images, *bytes.Buffer) {
	t.Helper()
	publish(t, path, content)
	var log bytes.Buffer
	im := &Images{Logger: slog.New(slog.NewTextHandler(&log, nil))}
	require.NoError(t, im.Add(t.Context(), "debian", path))
	t.Cleanup(func() { require.NoError(t, im.Close()) })
	return im, &log
}

func openName(t testing.TB, h Handler, name string) (Device, error) {
	t.Helper()
	return h.OpenNBD(t.Context(), &Request{Export: name})
}

func content(t testing.TB, d Device) []byte {
	t.Helper()
	p := make([]byte, d.Size())
	n, err := d.ReadAt(p, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		require.NoError(t, err)
	}
	require.Len(t, p, n)
	return p
}

func endDevice(t testing.TB, d Device) {
	t.Helper()
	require.NoError(t, d.(io.Closer).Close())
}

func TestImagesServeGenerations(t *testing.T) {
	path := filepath.Join(t.TempDir(), "debian.img")
	one, two, three := randomBytes(1, 5000), randomBytes(2, 4096), randomBytes(3, 512)
	im, _ := newImages(t, path, one)

	g1, err := im.Current(t.Context(), "debian")
	require.NoError(t, err)
	require.Equal(t, Generation{Image: "debian", Digest: digestOf(one), Size: 5000}, g1)

	old, err := openName(t, im, "debian")
	require.NoError(t, err)
	require.Equal(t, Features{Extents: fileExtents, Map: canMap, MultiConn: true}, old.Features())
	require.EqualValues(t, 5120, old.Size(), "padded")
	require.Equal(t, append(bytes.Clone(one), make([]byte, 120)...), content(t, old))
	_, err = old.ReadAt(make([]byte, 1), 5120)
	require.ErrorIs(t, err, io.EOF)

	publish(t, path, two)
	for _, name := range []string{"debian", "/debian", "debian~" + digestOf(two)[:12], "debian~" + digestOf(two)} {
		d, err := openName(t, im, name)
		require.NoError(t, err, name)
		require.Equal(t, two, content(t, d))
		endDevice(t, d)
	}
	require.Equal(t, one, content(t, old)[:5000], "an open device keeps its generation")
	former, err := openName(t, im, g1.Name().String())
	require.NoError(t, err)
	endDevice(t, former)

	publish(t, path, three)
	_, err = im.Current(t.Context(), "debian")
	require.NoError(t, err)
	former, err = openName(t, im, g1.Name().String())
	require.NoError(t, err, "a connection still has it")
	endDevice(t, former)
	endDevice(t, old)
	endDevice(t, old) // once more does no harm
	_, err = openName(t, im, g1.Name().String())
	require.ErrorIs(t, err, fs.ErrNotExist, "nobody has it any more")

	publish(t, path, two) // back to the former one
	g, err := im.Current(t.Context(), "debian")
	require.NoError(t, err)
	require.Equal(t, digestOf(two), g.Digest)

	for _, name := range []string{"", "ubuntu", "debian~00000000", "debian@root", "ubuntu~00000000", "2000", "../debian"} {
		_, err := openName(t, im, name)
		require.ErrorIs(t, err, fs.ErrNotExist, name)
	}
	list, err := im.ListNBD(t.Context(), &Request{})
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Equal(t, "debian", list[0].Name)
}

// TestImagesNeverMix: a file that is written to in place stops.
func TestImagesNeverMix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "debian.img")
	one, two := randomBytes(1, 8192), randomBytes(2, 8192)
	im, log := newImages(t, path, one)
	running, err := openName(t, im, "debian")
	require.NoError(t, err)
	defer endDevice(t, running)

	require.NoError(t, os.WriteFile(path, two, 0o600))
	require.NoError(t, os.Chtimes(path, time.Time{}, time.Now().Add(-time.Hour)))
	_, err = openName(t, im, "debian~"+digestOf(one)[:12])
	require.ErrorIs(t, err, errImageChanged)
	require.Contains(t, log.String(), "renaming")
	_, err = running.ReadAt(make([]byte, 10), 0)
	require.ErrorIs(t, err, errImageChanged)

	d, err := openName(t, im, "debian")
	require.NoError(t, err, "complete by now, and a generation of its own")
	require.Equal(t, two, content(t, d))
	endDevice(t, d)
}

// TestImagesTouched: a link, a touch and a chmod are no change.
func TestImagesTouched(t *testing.T) {
	path := filepath.Join(t.TempDir(), "debian.img")
	im, log := newImages(t, path, randomBytes(1, 8192))
	running, err := openName(t, im, "debian")
	require.NoError(t, err)
	defer endDevice(t, running)
	require.NoError(t, os.Chmod(path, 0o400))
	require.NoError(t, os.Link(path, path+".link"))
	require.NoError(t, os.Chtimes(path, time.Now(), time.Now()))
	d, err := openName(t, im, "debian")
	require.NoError(t, err)
	endDevice(t, d)
	content(t, running)
	require.Empty(t, log.String())
}

func TestImagesFileGone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "debian.img")
	im, log := newImages(t, path, randomBytes(1, 8192))
	require.NoError(t, os.Remove(path))
	for range 3 {
		d, err := openName(t, im, "debian")
		require.NoError(t, err)
		endDevice(t, d)
	}
	require.Equal(t, 1, strings.Count(log.String(), "level=WARN"), log.String())
	publish(t, path, nil) // empty: half a copy
	d, err := openName(t, im, "debian")
	require.NoError(t, err)
	require.EqualValues(t, 8192, d.Size())
	endDevice(t, d)
}

// TestImageCut: the machine gets an error, not zeroes.
func TestImageCut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "debian.img")
	im, _ := newImages(t, path, randomBytes(1, 8192))
	d, err := openName(t, im, "debian")
	require.NoError(t, err)
	defer endDevice(t, d)
	require.NoError(t, os.Truncate(path, 1000))
	_, err = d.ReadAt(make([]byte, 4096), 0)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	for _, dev := range []Device{d, NewOverlay(d)} {
		if e, ok := dev.(Extenter); ok {
			list := make([]Extent, 4)
			n, err := e.Extents(0, 8192, list)
			require.NoError(t, err)
			sum := int64(0)
			for _, e := range list[:n] {
				require.False(t, e.Hole || e.Zero, "what is gone is no hole")
				sum += e.Length
			}
			require.EqualValues(t, 8192, sum)
		}
	}
	_, err = openName(t, im, "debian~"+digestOf(randomBytes(1, 8192))[:12])
	require.ErrorIs(t, err, errImageChanged)
}

func TestImagesAdd(t *testing.T) {
	dir := t.TempDir()
	im := &Images{}
	require.ErrorIs(t, im.Add(t.Context(), "debian", filepath.Join(dir, "none")), fs.ErrNotExist)
	require.ErrorIs(t, im.Add(t.Context(), "debian", dir), fs.ErrInvalid)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "empty"), nil, 0o600))
	require.ErrorIs(t, im.Add(t.Context(), "debian", filepath.Join(dir, "empty")), fs.ErrInvalid)
	require.ErrorIs(t, im.Add(t.Context(), "no:name", filepath.Join(dir, "empty")), fs.ErrInvalid)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "full"), []byte("x"), 0o600))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, im.Add(ctx, "debian", filepath.Join(dir, "full")), context.Canceled)
	require.NoError(t, im.Add(t.Context(), "debian", filepath.Join(dir, "full")))
	require.NoError(t, im.Close())
	require.ErrorIs(t, im.Add(t.Context(), "other", filepath.Join(dir, "full")), fs.ErrClosed)
	_, err := openName(t, im, "debian")
	require.ErrorIs(t, err, fs.ErrClosed)
}

// TestDigestCache: a restart takes the digest from the cache while the file is
// as it was, and reads it again when it is not or when the cache is damaged.
func TestDigestCache(t *testing.T) {
	dir := t.TempDir()
	path, cache := filepath.Join(dir, "debian.img"), filepath.Join(dir, "digests.json")
	publish(t, path, []byte("one"))
	current := func() string {
		im := &Images{Cache: cache}
		require.NoError(t, im.Add(t.Context(), "debian", path))
		g, err := im.Current(t.Context(), "debian")
		require.NoError(t, err)
		require.NoError(t, im.Close())
		return g.Digest
	}
	require.Equal(t, digestOf([]byte("one")), current())
	text, err := os.ReadFile(cache)
	require.NoError(t, err)
	fake := strings.Replace(string(text), digestOf([]byte("one")), digestOf([]byte("fake")), 1)
	require.NoError(t, os.WriteFile(cache, []byte(fake), 0o600))
	require.Equal(t, digestOf([]byte("fake")), current(), "the cache was not used")
	publish(t, path, []byte("two"))
	require.Equal(t, digestOf([]byte("two")), current())
	require.NoError(t, os.WriteFile(cache, []byte("[{"), 0o600))
	require.Equal(t, digestOf([]byte("two")), current())
}

// TestImagesConcurrent replaces an image under many openers: each sees one
// whole generation, and nothing stays open.
func TestImagesConcurrent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "debian.img")
	im, _ := newImages(t, path, bytes.Repeat([]byte{1}, 4096))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 60 {
				d, err := im.OpenNBD(context.Background(), &Request{Export: "debian"})
				if err != nil {
					t.Error(err)
					return
				}
				p := make([]byte, d.Size())
				if _, err := d.ReadAt(p, 0); err != nil || !bytes.Equal(p, bytes.Repeat(p[:1], len(p))) {
					t.Error("mixture", err)
				}
				_ = d.(io.Closer).Close()
			}
		})
	}
	for i := range 20 {
		publish(t, path, bytes.Repeat([]byte{byte(i)}, 4096))
	}
	wg.Wait()
	im.mu.Lock()
	defer im.mu.Unlock()
	e := im.entries["debian"]
	e.sweep()
	require.LessOrEqual(t, len(e.open), 2, "the newest and the former")
}
