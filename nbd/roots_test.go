package nbd

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// rootsRig is an image, a directory or none, and Roots that can restart.
type rootsRig struct {
	*Roots
	t     testing.TB
	image string
	log   bytes.Buffer
	clock time.Time
	mu    sync.Mutex
	host  string // which boot of it; "" is the real one
}

func newRootsRig(t testing.TB, stored bool) *rootsRig {
	g := &rootsRig{t: t, image: filepath.Join(t.TempDir(), "debian.img"), clock: time.Now()}
	g.Roots = &Roots{}
	if stored {
		g.Dir = filepath.Join(filepath.Dir(g.image), "state")
	}
	publish(t, g.image, bytes.Repeat([]byte{1}, 64<<10))
	g.start()
	t.Cleanup(func() {
		require.NoError(t, g.Close())
		require.NoError(t, g.Images.Close())
	})
	return g
}

func (g *rootsRig) start() {
	logger := slog.New(slog.NewTextHandler(&g.log, nil))
	images := &Images{Logger: logger}
	require.NoError(g.t, images.Add(g.t.Context(), "debian", g.image))
	g.Roots = &Roots{Images: images, Dir: g.Dir, Logger: logger, Now: g.now}
	if host := g.host; host != "" {
		g.disk.wrap = func(_ string, d overlayDir) overlayDir { return hostDir{d, host} }
	}
}

// hostDir is an overlay's directory on another boot of the host.
type hostDir struct {
	overlayDir
	host string
}

func (d hostDir) boot() string { return d.host }

func (g *rootsRig) now() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.clock
}

func (g *rootsRig) pass(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.clock = g.clock.Add(d)
}

// restart stops the server in good order, or, with crash, leaves everything as
// the end of the process would.
func (g *rootsRig) restart(crash bool) {
	if crash {
		for _, r := range g.roots {
			if r.overlay != nil {
				leave(r.overlay)
			}
		}
		for _, l := range g.layers {
			leave(l.overlay)
		}
		if g.Roots.lock != nil {
			_ = g.Roots.lock.Close()
		}
	} else {
		require.NoError(g.t, g.Close())
	}
	require.NoError(g.t, g.Images.Close())
	g.start()
}

func leave(o *Overlay) {
	if s, ok := o.store.(*fileStore); ok {
		_ = errors.Join(s.mapFile.close(), s.data.close(), s.dir.close())
		if f := s.live.Load(); f != nil {
			_ = (*f).close()
		}
	}
}

// hostEnds restarts all: what was not flushed is gone, as far as the map tells.
func (g *rootsRig) hostEnds() {
	g.host += "another boot"
	g.restart(true)
}

func (g *rootsRig) boot(root string, kind Kind) string {
	g.t.Helper()
	n, err := g.Boot(g.t.Context(), "debian", root, kind)
	require.NoError(g.t, err)
	again, err := g.Boot(g.t.Context(), "debian", root, kind)
	require.NoError(g.t, err)
	require.Equal(g.t, n, again, "nothing was opened")
	return n.String()
}

// client is a connection as the server would have it.
type client struct {
	Device
	t   testing.TB
	cut atomic.Pointer[error]
}

func (g *rootsRig) openFrom(name, addr string) (*client, error) {
	c := &client{t: g.t}
	req := &Request{Export: name, Disconnect: func(cause error) { c.cut.Store(&cause) }}
	if addr != "" {
		req.Client = netip.MustParseAddrPort(addr)
	}
	var err error
	c.Device, err = g.OpenNBD(g.t.Context(), req)
	return c, err
}

func (g *rootsRig) open(name string) *client {
	g.t.Helper()
	c, err := g.openFrom(name, "192.0.2.1:1000")
	require.NoError(g.t, err)
	return c
}

func (g *rootsRig) refused(name string, want ...error) {
	g.t.Helper()
	_, err := g.openFrom(name, "192.0.2.1:1000")
	for _, w := range want {
		require.ErrorIs(g.t, err, w)
	}
}

func (c *client) write(s string) {
	c.t.Helper()
	_, err := c.Device.(*rootDevice).WriteAt([]byte(s), 1000)
	require.NoError(c.t, err)
}

func (c *client) flush() {
	c.t.Helper()
	require.NoError(c.t, c.Device.(*rootDevice).Sync())
}

// has checks what is where write writes; "" is the image, of this byte.
func (c *client) has(s string, image byte) {
	c.t.Helper()
	p := make([]byte, 8)
	_, err := c.ReadAt(p, 1000)
	require.NoError(c.t, err)
	want := bytes.Repeat([]byte{image}, 8)
	copy(want, s)
	require.Equal(c.t, want, p)
}

func (c *client) end() {
	c.t.Helper()
	endDevice(c.t, c.Device)
}

// bothRoots runs a test in memory and in a directory.
func bothRoots(t *testing.T, test func(t *testing.T, g *rootsRig)) {
	t.Run("memory", func(t *testing.T) { test(t, newRootsRig(t, false)) })
	t.Run("dir", func(t *testing.T) { test(t, newRootsRig(t, true)) })
}

func TestTokenCountsOpeningsOnly(t *testing.T) {
	bothRoots(t, func(t *testing.T, g *rootsRig) {
		name := g.boot("node-01", Ephemeral)
		n, err := ParseName(name)
		require.NoError(t, err)
		require.Len(t, n.Generation, GenerationDigits)
		d, err := g.OpenNBD(t.Context(), &Request{Export: name, Purpose: PurposeInfo})
		require.NoError(t, err)
		require.EqualValues(t, 64<<10, d.Size())
		require.True(t, d.Features().Write)
		_, err = d.ReadAt(make([]byte, 1), 0)
		require.ErrorIs(t, err, fs.ErrPermission)
		_, err = g.ListNBD(t.Context(), &Request{Purpose: PurposeInfo})
		require.NoError(t, err)
		list, err := g.List(t.Context())
		require.NoError(t, err)
		require.Empty(t, list, "nobody opened it")
		require.Equal(t, name, g.boot("node-01", Ephemeral))

		c := g.open(name)
		require.Equal(t, d.Features(), c.Features(), "INFO and GO say the same")
		second := g.boot("node-01", Ephemeral)
		require.NotEqual(t, name, second)
		d, err = g.OpenNBD(t.Context(), &Request{Export: second, Purpose: PurposeInfo})
		require.NoError(t, err)
		require.NotNil(t, d)
		c.write("still mine")
		c.end()
	})
}

func TestEphemeralAndKept(t *testing.T) {
	bothRoots(t, func(t *testing.T, g *rootsRig) {
		e, k, other := g.open(g.boot("e", Ephemeral)), g.open(g.boot("k", Kept)), g.open(g.boot("other", Kept))
		e.write("e1")
		k.write("k1")
		other.has("", 1)
		publish(t, g.image, bytes.Repeat([]byte{2}, 64<<10))
		e2, k2 := g.open(g.boot("e", Ephemeral)), g.open(g.boot("k", Kept))
		e2.has("", 2)
		k2.has("k1", 1)
		for _, c := range []*client{e, k} {
			require.ErrorIs(t, *c.cut.Load(), ErrFenced)
			_, err := c.ReadAt(make([]byte, 1), 0)
			require.ErrorIs(t, err, ErrFenced)
			_, err = c.Device.(*rootDevice).WriteAt([]byte("x"), 1000)
			require.ErrorIs(t, err, ErrFenced)
			require.ErrorIs(t, c.Device.(*rootDevice).Sync(), ErrFenced)
			c.end()
		}
		require.Nil(t, other.cut.Load())
		e2.has("", 2)
		k2.has("k1", 1)
		other.has("", 1)

		list, err := g.List(t.Context())
		require.NoError(t, err)
		require.Len(t, list, 3)
		require.Equal(t, "k", list[1].Name)
		require.Equal(t, Kept, list[1].Kind)
		require.EqualValues(t, overlayBlock, list[1].Usage)
		require.Equal(t, []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:1000")}, list[1].Clients)
		require.NotEqual(t, list[0].Generation, list[1].Generation)
		base, err := os.ReadFile(g.image)
		require.NoError(t, err)
		require.Equal(t, bytes.Repeat([]byte{2}, 64<<10), base)
	})
}

func TestOlderBootIsRefused(t *testing.T) {
	bothRoots(t, func(t *testing.T, g *rootsRig) {
		first := g.boot("r", Ephemeral)
		a := g.open(first)
		a.write("one")
		a2 := g.open(first) // a second connection of the same boot
		a2.has("one", 1)
		a.end()
		a2.end()
		a = g.open(first) // and a reconnect
		a.has("one", 1)
		second := g.boot("r", Ephemeral)
		a.has("one", 1)
		b := g.open(second)
		b.has("", 1)
		g.refused(first, ErrFenced, fs.ErrPermission)
		b.write("two")
		g.open(second).has("two", 1)
	})
}

func TestTokensCannotBeMade(t *testing.T) {
	g := newRootsRig(t, false)
	n, err := g.Boot(t.Context(), "debian", "r", Ephemeral)
	require.NoError(t, err)
	publish(t, g.image, bytes.Repeat([]byte{2}, 64<<10))
	newest, err := g.Images.Current(t.Context(), "debian")
	require.NoError(t, err)
	for what, change := range map[string]func(n *Name){
		"root":       func(n *Name) { n.Root = "s" },
		"generation": func(n *Name) { n.Generation = newest.Name().Generation },
		"less of it": func(n *Name) { n.Generation = n.Generation[:8] },
		"none of it": func(n *Name) { n.Generation = "" },
		"image":      func(n *Name) { n.Image = "ubuntu" },
		"sequence":   func(n *Name) { n.Boot = "z" + n.Boot },
		"mac":        func(n *Name) { n.Boot = n.Boot[:len(n.Boot)-1] },
		"no mac":     func(n *Name) { n.Boot, _, _ = strings.Cut(n.Boot, "-") },
		"case":       func(n *Name) { n.Boot = strings.ToUpper(n.Boot) },
		"zeroes":     func(n *Name) { n.Boot = "0" + n.Boot },
	} {
		forged := n
		change(&forged)
		require.NotEqual(t, n, forged, what)
		g.refused(forged.String(), fs.ErrPermission)
	}
	g.open(n.String())
}

// TestFenceUnderLoad: when the newer boot's opening has returned, no byte of
// the older boot lands any more.
func TestFenceUnderLoad(t *testing.T) {
	bothRoots(t, func(t *testing.T, g *rootsRig) {
		var wg sync.WaitGroup
		for boot := range 10 {
			name := g.boot("r", Kept)
			c := g.open(name)
			var over atomic.Bool // the newer boot's opening has returned
			for w := range 4 {
				d := c.Device
				if w > 0 {
					d = g.open(name).Device
				}
				wg.Go(func() {
					defer func() { _ = d.(*rootDevice).Close() }()
					p := bytes.Repeat([]byte{byte(boot)}, 700)
					for i := 0; ; i++ {
						late := over.Load()
						_, err := d.(*rootDevice).WriteAt(p, int64((i*4+w)*700)%60000)
						if err == nil && late {
							t.Error("a fenced boot's write was accepted")
							return
						}
						if err != nil {
							if !errors.Is(err, ErrFenced) {
								t.Error(err)
							}
							return
						}
						if i%50 == 0 {
							if err := d.(*rootDevice).Sync(); err != nil && !errors.Is(err, ErrFenced) {
								t.Error(err)
							}
						}
					}
				})
			}
			next := g.open(g.boot("r", Kept))
			over.Store(true)
			before := content(t, next)
			wg.Wait() // the old writers have noticed
			require.True(t, bytes.Equal(before, content(t, next)), "a fenced boot wrote")
			next.end()
		}
	})
}

// TestFenceWaits: the newer boot does not get the root while an operation of
// the older one is in flight.
func TestFenceWaits(t *testing.T) {
	g := newRootsRig(t, false)
	d := g.open(g.boot("r", Kept)).Device.(*rootDevice)
	require.NoError(t, d.enter())
	name := g.boot("r", Kept)
	opened := make(chan *client)
	go func() {
		c, err := g.openFrom(name, "")
		if err != nil {
			t.Error(err)
		}
		opened <- c
	}()
	for d.holder.fenced.Load() == nil {
		runtime.Gosched()
	}
	select {
	case <-opened:
		d.holder.ops.RUnlock()
		t.Fatal("opened with a write in flight")
	case <-time.After(50 * time.Millisecond): // only a wrong one needs the time
	}
	_, err := d.overlay.WriteAt([]byte("in flight"), 1000)
	require.NoError(t, err)
	d.holder.ops.RUnlock()
	(<-opened).has("in fligh", 1)
}

// TestIdleRootHoldsNoFiles: what nobody has open is flushed and closed.
func TestIdleRootHoldsNoFiles(t *testing.T) {
	g := newRootsRig(t, true)
	name := g.boot("r", Kept)
	a, b := g.open(name), g.open(name)
	a.write("mine")
	a.end()
	require.NotNil(t, g.roots["r"].overlay)
	b.end()
	require.Nil(t, g.roots["r"].overlay)
	g.restart(true)
	g.open(name).has("mine", 1)
}

// TestKeptRootHasOneGeneration: of two tokens on different generations, the
// one that is opened decides, and the other is no way to the other generation.
func TestKeptRootHasOneGeneration(t *testing.T) {
	bothRoots(t, func(t *testing.T, g *rootsRig) {
		one := g.boot("r", Kept)
		publish(t, g.image, bytes.Repeat([]byte{2}, 64<<10))
		g.pass(time.Hour)
		two := g.boot("r", Kept)
		require.NotEqual(t, one, two)
		g.open(one).has("", 1)
		g.refused(two, fs.ErrPermission)
		g.open(g.boot("r", Kept)).has("", 1)
	})
}

func TestRestart(t *testing.T) {
	for _, crash := range []bool{false, true} {
		g := newRootsRig(t, true)
		eName, kName := g.boot("e", Ephemeral), g.boot("k", Kept)
		e, k := g.open(eName), g.open(kName)
		for _, c := range []*client{e, k} {
			c.write("flushed")
			c.flush()
		}
		kOld := kName
		k.end()
		kName = g.boot("k", Kept)
		g.open(kName).has("flushed", 1)
		pending := g.boot("k", Kept)
		unopened := g.boot("fresh", Kept)

		publish(t, g.image, bytes.Repeat([]byte{2}, 64<<10))
		g.restart(crash)
		g.open(eName).has("flushed", 1) // the same boot goes on, on its generation
		g.open(kName).has("flushed", 1)
		g.refused(kOld, ErrFenced)
		g.open(unopened).has("", 1)
		g.open(pending).has("flushed", 1)
		g.refused(kName, ErrFenced)
		g.open(g.boot("k", Kept)).has("flushed", 1)
		g.open(g.boot("e", Ephemeral)).has("", 2)
		g.refused(eName, ErrFenced)
	}
}

func TestRestartWithoutDir(t *testing.T) {
	g := newRootsRig(t, false)
	name := g.boot("r", Ephemeral)
	g.open(name).write("x")
	g.restart(false)
	g.refused(name, fs.ErrPermission)
	g.open(g.boot("r", Ephemeral)).has("", 1)
}

// TestKeptGenerationStays: the hard link keeps a generation that no image path
// has any more, and goes with the last root on it.
func TestKeptGenerationStays(t *testing.T) {
	g := newRootsRig(t, true)
	links := func() int {
		entries, err := os.ReadDir(filepath.Join(g.Dir, "images"))
		require.NoError(t, err)
		return len(entries)
	}
	for _, name := range []string{"a", "b"} {
		c := g.open(g.boot(name, Kept))
		c.write(name)
		c.end()
	}
	require.Equal(t, 1, links())
	for i := range byte(3) {
		publish(t, g.image, bytes.Repeat([]byte{2 + i}, 64<<10))
		_, err := g.Images.Current(t.Context(), "debian")
		require.NoError(t, err)
		g.restart(i == 1)
	}
	g.open(g.boot("a", Kept)).has("a", 1)
	require.NoError(t, g.Reset(t.Context(), "a"))
	require.Equal(t, 1, links(), "b needs it")
	g.open(g.boot("b", Kept)).has("b", 1)
	require.NoError(t, g.Delete(t.Context(), "b"))
	require.Zero(t, links())
	g.open(g.boot("a", Kept)).has("", 4)
	require.Equal(t, 1, links())
	require.NotContains(t, g.log.String(), "WARN")
}

// TestKeptGenerationGone: what cannot be linked is told at once, and refused
// when it is gone.
func TestKeptGenerationGone(t *testing.T) {
	g := newRootsRig(t, true)
	one, err := os.ReadFile(g.image)
	require.NoError(t, err)
	require.NoError(t, os.Remove(g.image)) // before it can be linked
	name := g.boot("k", Kept)
	c := g.open(name)
	c.write("mine")
	c.end()
	require.Contains(t, g.log.String(), "image cannot be linked")
	publish(t, g.image, bytes.Repeat([]byte{2}, 64<<10))
	g.restart(false)
	g.refused(name, fs.ErrNotExist)
	_, err = g.Boot(t.Context(), "debian", "k", Kept)
	require.ErrorIs(t, err, fs.ErrNotExist)
	publish(t, g.image, one)
	g.open(g.boot("k", Kept)).has("mine", 1)
}

// TestLinkedGenerationWrittenTo: the link shares the file with the image, so
// writing to the image in place spoils both, and that is noticed.
func TestLinkedGenerationWrittenTo(t *testing.T) {
	g := newRootsRig(t, true)
	name := g.boot("k", Kept)
	c := g.open(name)
	c.write("mine")
	c.end()
	require.NoError(t, os.WriteFile(g.image, bytes.Repeat([]byte{9}, 64<<10), 0o600))
	g.restart(false)
	g.refused(name, errImageChanged)
}

func TestPendingStaysOnItsGeneration(t *testing.T) {
	bothRoots(t, func(t *testing.T, g *rootsRig) {
		name := g.boot("r", Ephemeral)
		g.pass(time.Hour)
		require.Equal(t, name, g.boot("r", Ephemeral), "the image is the same")
		g.open(name).end()

		name = g.boot("r", Ephemeral)
		publish(t, g.image, bytes.Repeat([]byte{2}, 64<<10))
		g.pass(9 * time.Minute)
		require.Equal(t, name, g.boot("r", Ephemeral), "the boot is under way")
		g.open(name).has("", 1)

		name = g.boot("r", Ephemeral)
		publish(t, g.image, bytes.Repeat([]byte{3}, 64<<10))
		g.pass(11 * time.Minute)
		newer := g.boot("r", Ephemeral)
		require.NotEqual(t, name, newer)
		g.open(newer).has("", 3)
		g.refused(name, ErrFenced)
	})
}

func TestKindsDoNotDestroyData(t *testing.T) {
	bothRoots(t, func(t *testing.T, g *rootsRig) {
		require.NoError(t, g.Images.Add(t.Context(), "ubuntu", g.image))
		kept, late := g.boot("r", Kept), ""
		n, err := g.Boot(t.Context(), "debian", "r", Ephemeral) // the configuration changed, and back
		require.NoError(t, err)
		late = n.String()
		c := g.open(kept)
		c.write("mine")
		g.refused(late, fs.ErrPermission)
		_, err = g.Boot(t.Context(), "debian", "r", Ephemeral)
		require.ErrorIs(t, err, fs.ErrPermission)
		_, err = g.Boot(t.Context(), "ubuntu", "r", Kept)
		require.ErrorIs(t, err, fs.ErrPermission)
		c.has("mine", 1)
		require.NoError(t, g.Reset(t.Context(), "r"))
		g.open(g.boot("r", Ephemeral)).has("", 1)
		g.open(g.boot("r", Kept)).has("", 1) // an ephemeral one may become kept
	})
}

func TestOpenAsIs(t *testing.T) {
	bothRoots(t, func(t *testing.T, g *rootsRig) {
		g.refused("debian@r", fs.ErrNotExist)
		name := g.boot("r", Kept)
		g.refused("debian@r", fs.ErrNotExist)
		c := g.open(name)
		c.write("one")
		g.refused("debian@r", fs.ErrPermission, syscall.EBUSY) // its machine is up
		c.end()

		m := g.open("debian@r")
		m.has("one", 1)
		m.write("two")
		m2 := g.open("/debian@r") // the same address shares
		m2.has("two", 1)
		_, err := g.openFrom("debian@r", "192.0.2.9:1")
		require.ErrorIs(t, err, syscall.EBUSY)
		_, err = g.openFrom("debian@r", "")
		require.ErrorIs(t, err, syscall.EBUSY)
		g.refused(name, syscall.EBUSY) // a boot that comes back waits
		require.Nil(t, m.cut.Load())
		g.refused("ubuntu@r", fs.ErrNotExist)
		g.refused("debian~00000000@r", fs.ErrNotExist)

		next := g.open(g.boot("r", Kept)) // a newer boot does not
		require.ErrorIs(t, *m.cut.Load(), ErrFenced)
		require.ErrorIs(t, *m2.cut.Load(), ErrFenced)
		next.has("two", 1)
		next.end()
		m.end()
		m2.end()

		m, err = g.openFrom("debian@r", "")
		require.NoError(t, err)
		m.end()
		require.NoError(t, g.Reset(t.Context(), "r"))
		g.refused("debian@r", fs.ErrNotExist)
		d, err := g.OpenNBD(t.Context(), &Request{Export: "debian"})
		require.NoError(t, err)
		require.False(t, d.Features().Write)
		endDevice(t, d)
	})
}

func TestResetAndDelete(t *testing.T) {
	for what, command := range map[string]func(*Roots, context.Context, string) error{"reset": (*Roots).Reset, "delete": (*Roots).Delete} {
		bothRoots(t, func(t *testing.T, g *rootsRig) {
			require.ErrorIs(t, command(g.Roots, t.Context(), "none"), fs.ErrNotExist)
			opened := g.boot(what, Kept)
			c := g.open(opened)
			c.write("mine")
			rendered := g.boot(what, Kept)
			require.NoError(t, command(g.Roots, t.Context(), what))
			require.ErrorIs(t, *c.cut.Load(), ErrFenced)
			_, err := c.ReadAt(make([]byte, 1), 0)
			require.ErrorIs(t, err, ErrFenced)
			c.end()
			for range 2 {
				g.refused(opened, fs.ErrPermission)
				g.refused(rendered, fs.ErrPermission)
				g.restart(true)
			}
			g.pass(time.Second)
			g.open(g.boot(what, Kept)).has("", 1)
		})
	}
}

func TestDeleteOverRestart(t *testing.T) {
	g := newRootsRig(t, true)
	opened := g.boot("r", Kept)
	g.open(opened).write("mine")
	elsewhere := g.boot("s", Kept) // not opened when r is deleted
	require.NoError(t, g.Delete(t.Context(), "r"))
	g.open(elsewhere).end()
	list, err := g.List(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 1)
	g.restart(true)
	g.refused(opened, fs.ErrPermission)
	g.open(elsewhere).end()
	g.pass(time.Millisecond)
	g.open(g.boot("r", Kept)).has("", 1)
}

func TestRootsLimits(t *testing.T) {
	bothRoots(t, func(t *testing.T, g *rootsRig) {
		g.MaxRoots, g.Quota = 2, 2*overlayBlock
		c := g.open(g.boot("a", Kept))
		b := g.boot("b", Kept)
		_, err := g.Boot(t.Context(), "debian", "c", Kept)
		require.ErrorIs(t, err, syscall.ENOSPC)
		g.pass(time.Hour) // b's boot never came
		g.open(g.boot("c", Kept))
		_, err = g.Boot(t.Context(), "debian", "b", Kept)
		require.ErrorIs(t, err, syscall.ENOSPC)
		g.refused(b, syscall.ENOSPC)

		_, err = c.Device.(*rootDevice).WriteAt(make([]byte, 3*overlayBlock), 0)
		require.ErrorIs(t, err, syscall.ENOSPC)
		c.write("fits")
		for _, name := range []string{"", "a.b", "../x", "-a"} {
			_, err = g.Boot(t.Context(), "debian", name, Kept)
			require.ErrorIs(t, err, fs.ErrInvalid)
		}
		_, err = g.Boot(t.Context(), "ubuntu", "d", Kept)
		require.Error(t, err)
	})
}

// TestDamagedRoot: one root's damage is its own.
func TestDamagedRoot(t *testing.T) {
	g := newRootsRig(t, true)
	names := map[string]string{}
	for _, root := range []string{"good", "json", "lost", "overlay"} {
		names[root] = g.boot(root, Kept)
		c := g.open(names[root])
		c.write(root)
		c.end()
	}
	dir := filepath.Join(g.Dir, "roots")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "json", "root.json"), []byte("{"), 0o600))
	require.NoError(t, os.Remove(filepath.Join(dir, "lost", "root.json")))
	maps, err := filepath.Glob(filepath.Join(dir, "overlay", "*", "map"))
	require.NoError(t, err)
	require.Len(t, maps, 1)
	require.NoError(t, os.Remove(maps[0]))
	// What a crash in a first boot leaves is no damage.
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "first", "mh2k3x9a"), 0o700))
	g.restart(false)
	g.open(names["good"]).has("good", 1)
	for _, root := range []string{"json", "lost", "overlay"} {
		_, err := g.openFrom(names[root], "")
		require.Error(t, err)
		t.Log(err)
		require.NoError(t, g.Delete(t.Context(), root))
		g.open(g.boot(root, Kept)).has("", 1)
	}
	require.NoDirExists(t, filepath.Join(dir, "first"))

	other := &Roots{Images: g.Images, Dir: g.Dir}
	_, err = other.List(t.Context())
	require.ErrorIs(t, err, syscall.EBUSY, "one server to a directory")
	require.NoError(t, g.Close())
	_, err = g.Boot(t.Context(), "debian", "good", Kept)
	require.ErrorIs(t, err, fs.ErrClosed)
	require.NoError(t, os.WriteFile(filepath.Join(g.Dir, "secret"), []byte("short"), 0o600))
	_, err = other.List(t.Context())
	require.ErrorIs(t, err, fs.ErrInvalid)
}

// TestOpenWaitsForNobodyElse: a root that is held up does not hold others up,
// nor the list of exports, and whoever waits for it stops with its context.
func TestOpenWaitsForNobodyElse(t *testing.T) {
	g := newRootsRig(t, false)
	name := g.boot("busy", Ephemeral)
	r, err := g.get(t.Context(), "busy", false)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = g.OpenNBD(ctx, &Request{Export: name})
	require.ErrorIs(t, err, context.Canceled)
	g.open(g.boot("other", Ephemeral))
	exports := func() (names []string) {
		list, err := g.ListNBD(ctx, &Request{Purpose: PurposeInfo})
		require.NoError(t, err)
		for _, e := range list {
			names = append(names, e.Name)
		}
		return names
	}
	require.Equal(t, []string{"debian", "debian@other"}, exports())
	g.put(r)
	g.open(name)
	require.Equal(t, []string{"debian", "debian@busy", "debian@other"}, exports())
	require.NoError(t, g.Reset(t.Context(), "busy"))
	require.NoError(t, g.Delete(t.Context(), "other"))
	require.Equal(t, []string{"debian"}, exports())
}

func TestRootsTrace(t *testing.T) {
	g := newRootsRig(t, true)
	var events []string
	g.Trace = &RootsTrace{
		Minted: func(n Name, k Kind) { events = append(events, "minted "+n.Root+" "+k.String()) },
		Opened: func(n Name, c netip.AddrPort, first, fresh bool) {
			e := "opened " + n.Root
			if first {
				e += " first"
			}
			if fresh {
				e += " fresh"
			}
			events = append(events, e)
		},
		Fenced: func(root string, n int, cause error) {
			if errors.Is(cause, ErrFenced) { // and not by Close
				events = append(events, "fenced "+root)
			}
		},
	}
	name := g.boot("r", Kept)
	g.open(name)
	g.open(name)
	g.open(g.boot("r", Kept)).end()
	g.open("debian@r")
	require.Equal(t, []string{"minted r kept", "opened r first fresh", "opened r", "minted r kept", "fenced r", "opened r first", "opened r"}, events)
}

func FuzzRootState(f *testing.F) {
	f.Add([]byte(`{"version":1,"image":"debian","kind":"kept","opened":"mh2k3x9a"}`))
	f.Add([]byte(`{"version":1,"image":"debian","kind":"kept","generation":"00","overlay":"../..","opened":"1"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := parseRootState(text)
		if err != nil {
			require.Zero(t, s)
			return
		}
		require.NotContains(t, s.Overlay, ".")
		require.NotContains(t, s.Overlay, "/")
		require.Positive(t, s.opened())
	})
}
