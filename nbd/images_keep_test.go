package nbd

import (
	"bytes"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// keepRig is Images over a file that is replaced, and that can restart.
type keepRig struct {
	*Images
	t    *testing.T
	file string
	log  bytes.Buffer
}

func newKeepRig(t *testing.T, keep int) *keepRig {
	dir := t.TempDir()
	g := &keepRig{t: t, file: filepath.Join(dir, "debian.raw"), Images: &Images{Dir: filepath.Join(dir, "images"), Keep: keep}}
	publish(t, g.file, []byte{0})
	g.start()
	t.Cleanup(func() { require.NoError(t, g.Close()) })
	return g
}

func (g *keepRig) start() {
	g.Images = &Images{Dir: g.Dir, Keep: g.Keep, Logger: slog.New(slog.NewTextHandler(&g.log, nil))}
	require.NoError(g.t, g.Add(g.t.Context(), "debian", g.file))
}

func (g *keepRig) restart() {
	require.NoError(g.t, g.Close())
	g.start()
}

// replace puts an image of this byte in the place of the file, in one of the
// three ways, and returns its export name.
func (g *keepRig) replace(b byte, how int) string {
	g.t.Helper()
	switch how % 3 {
	case 0: // noticed when it is next asked for
		publish(g.t, g.file, []byte{b})
	case 1: // while the server is down
		require.NoError(g.t, g.Close())
		publish(g.t, g.file, []byte{b})
		g.start()
	default:
		publish(g.t, g.file+".2", []byte{b})
		_, err := g.Publish(g.t.Context(), "debian", g.file+".2")
		require.NoError(g.t, err)
	}
	gen, err := g.Current(g.t.Context(), "debian")
	require.NoError(g.t, err)
	return gen.Name().String()
}

func (g *keepRig) serves(name string, b byte) {
	g.t.Helper()
	dev, err := openName(g.t, g.Images, name)
	require.NoError(g.t, err)
	require.Equal(g.t, b, content(g.t, dev)[0])
	endDevice(g.t, dev)
}

func (g *keepRig) lacks(name string) {
	g.t.Helper()
	_, err := openName(g.t, g.Images, name)
	require.ErrorIs(g.t, err, fs.ErrNotExist)
}

// TestGenerationsStay: a machine without a root of its own that comes back after
// its image was replaced, and the server restarted, gets its generation, until
// the rule gives it up; however the file was replaced, and wherever it is.
func TestGenerationsStay(t *testing.T) {
	for how := range 3 {
		g := newKeepRig(t, 0)
		names := []string{g.replace(0, 2)}
		for b := byte(1); b < 7; b++ {
			names = append(names, g.replace(b, how))
			g.restart()
			for i := max(0, int(b)-2); i <= int(b); i++ {
				g.serves(names[i], byte(i))
			}
			for i := range max(0, int(b)-2) {
				g.lacks(names[i])
			}
		}
		entries, err := os.ReadDir(filepath.Join(g.Dir, "generations"))
		require.NoError(t, err)
		require.Len(t, entries, 3)
		require.NotContains(t, g.log.String(), "WARN")

		// What is reverted to is the newest, and what it was before stays.
		for _, want := range []byte{5, 6, 5} {
			_, err := g.Revert(t.Context(), "debian")
			require.NoError(t, err)
			g.restart()
			g.serves("debian", want)
			for i := byte(4); i < 7; i++ {
				g.serves(names[i], i)
			}
		}
		g.replace(4, how)
		g.restart()
		g.serves(names[5], 5)
		list, err := g.List()
		require.NoError(t, err)
		require.Len(t, list, 1)
		require.Equal(t, g.file, list[0].Path)
		require.Equal(t, names[4], list[0].Name().String())
		generation := func(i int) string { return names[i][len("debian~"):] }
		require.Equal(t, []string{generation(5), generation(6)}, list[0].Former)
	}
}

// TestGenerationsNotKept: the documented ways to have none.
func TestGenerationsNotKept(t *testing.T) {
	g := newKeepRig(t, -1)
	first, err := g.Current(t.Context(), "debian")
	require.NoError(t, err)
	g.replace(1, 2)
	g.restart()
	g.lacks(first.Name().String())
	require.NoDirExists(t, filepath.Join(g.Dir, "generations"))
	_, err = g.Revert(t.Context(), "debian")
	require.ErrorIs(t, err, fs.ErrNotExist)

	// A file system without links: it is told, once, and served.
	g = newKeepRig(t, 0)
	require.NoError(t, os.RemoveAll(filepath.Join(g.Dir, "generations")))
	require.NoError(t, g.Close())
	g.Images = &Images{Dir: g.Dir, Logger: g.Logger, disk: disk{hook: func(s diskStep, do func() error) error {
		if s.op == opLink {
			return syscall.EXDEV
		}
		return do()
	}}}
	require.NoError(t, g.Add(t.Context(), "debian", g.file))
	g.serves("debian", 0)
	g.serves("debian", 0)
	require.Equal(t, 1, strings.Count(g.log.String(), "WARN"), g.log.String())
	publish(t, g.file+".2", []byte{1})
	_, err = g.Publish(t.Context(), "debian", g.file+".2")
	require.ErrorIs(t, err, syscall.EXDEV)
	g.serves("debian", 0)
}

// TestKeptGenerationWrittenTo: the link is the file, so one that is written to
// in place is refused, and kept anew once it is published again.
func TestKeptGenerationWrittenTo(t *testing.T) {
	g := newKeepRig(t, 0)
	name := g.replace(9, 0)
	links, err := g.kept("debian")
	require.NoError(t, err)
	kept := links[len(links)-1].path
	g.replace(8, 0)
	require.NoError(t, g.Close())
	require.NoError(t, os.WriteFile(kept, []byte{7}, 0o600))
	g.start()
	_, err = openName(t, g.Images, name)
	require.ErrorIs(t, err, errImageChanged)
	require.Equal(t, name, g.replace(9, 0))
	g.replace(8, 0)
	g.restart()
	g.serves(name, 9)

	// The same content as another file: the link follows.
	require.Equal(t, name, g.replace(9, 0))
	require.NoError(t, os.Link(g.file, g.file+".mine"))
	require.Equal(t, name, g.replace(9, 0))
	require.NoError(t, os.WriteFile(g.file+".mine", []byte{7}, 0o600))
	g.replace(8, 0)
	g.restart()
	g.serves(name, 9)
}

// TestImageReplicas: two servers with the same generation serve the same machine
// one after the other; one that lacks it refuses.
func TestImageReplicas(t *testing.T) {
	a, b := newKeepRig(t, 0), newKeepRig(t, 0)
	name := a.replace(3, 0)
	a.serves(name, 3)
	b.lacks(name)
	require.Equal(t, name, b.replace(3, 2))
	b.serves(name, 3)
	a.replace(4, 0)
	a.restart()
	b.replace(5, 0)
	b.restart()
	a.serves(name, 3)
	b.serves(name, 3)
	b.lacks(a.replace(4, 0))
}

// TestImagesPrune: links of images that are not registered any more go, and
// those that are too many; no file but the links is touched.
func TestImagesPrune(t *testing.T) {
	dir := t.TempDir()
	start := func(keep int, names ...string) *Images {
		im := &Images{Dir: filepath.Join(dir, "store"), Keep: keep}
		for _, name := range names {
			require.NoError(t, im.Add(t.Context(), name, filepath.Join(dir, name+".img")))
		}
		return im
	}
	links := func() []string {
		var names []string
		entries, err := os.ReadDir(filepath.Join(dir, "store", "generations"))
		require.NoError(t, err)
		for _, e := range entries {
			name, _, _ := strings.Cut(e.Name(), "~")
			names = append(names, name)
		}
		return names
	}
	publish(t, filepath.Join(dir, "b.img"), []byte("b"))
	for i := range byte(4) {
		publish(t, filepath.Join(dir, "a.img"), []byte{1, i})
		im := start(3, "a", "b")
		pruned, err := im.Prune()
		require.NoError(t, err)
		require.Empty(t, pruned)
		require.NoError(t, im.Close())
	}
	alien := filepath.Join(dir, "store", "generations", "a~my notes.img")
	require.NoError(t, os.WriteFile(alien, nil, 0o600))
	for _, c := range []struct {
		im     *Images
		pruned []string
		left   string
	}{
		{start(1, "a", "b"), []string{"a"}, "a a a b"},
		{start(1, "a"), []string{"b"}, "a a a"},
		{start(-1, "a"), []string{"a"}, "a"},
	} {
		pruned, err := c.im.Prune()
		require.NoError(t, err)
		require.Equal(t, c.pruned, pruned)
		require.Equal(t, c.left, strings.Join(links(), " "), "with the one that is not ours")
		require.NoError(t, c.im.Close())
	}
	require.FileExists(t, filepath.Join(dir, "b.img"))
	require.FileExists(t, alien)
	closed := start(1, "a", "b")
	require.NoError(t, closed.Close())
	_, err := closed.Prune()
	require.ErrorIs(t, err, fs.ErrClosed)
}
