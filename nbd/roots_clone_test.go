package nbd

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// layerDirs returns the layers on disk.
func (g *rootsRig) layerDirs() []string {
	names, err := filepath.Glob(filepath.Join(g.Dir, "layers", "*"))
	require.NoError(g.t, err)
	return names
}

func TestRootsClone(t *testing.T) {
	bothRoots(t, func(t *testing.T, g *rootsRig) {
		ctx := t.Context()
		gold := g.open(g.boot("gold", Kept))
		gold.write("gold")
		require.NoError(t, g.Clone(ctx, "gold", "node-01"))
		require.NoError(t, g.Clone(ctx, "gold", "node-02"), "nothing written since: no further layer")
		gold.write("GOLD") // its machine goes on
		gold.has("GOLD", 1)
		require.NoError(t, g.Clone(ctx, "gold", "node-03"))
		if g.Dir != "" {
			require.Len(t, g.layerDirs(), 2)
		}
		a := g.open(g.boot("node-01", Kept))
		a.has("gold", 1)
		a.write("aaaa")
		g.open(g.boot("node-02", Kept)).has("gold", 1)
		g.open(g.boot("node-03", Kept)).has("GOLD", 1)
		list, err := g.List(ctx)
		require.NoError(t, err)
		require.Len(t, list, 4)
		require.EqualValues(t, overlayBlock, list[1].Usage, "node-01's own")
		require.EqualValues(t, overlayBlock, list[1].Shared)
		require.EqualValues(t, 2*overlayBlock, list[3].Shared)

		require.ErrorIs(t, g.Clone(ctx, "gold", "node-01"), fs.ErrExist)
		require.ErrorIs(t, g.Clone(ctx, "gold", "gold"), fs.ErrExist)
		require.ErrorIs(t, g.Clone(ctx, "nobody", "x"), fs.ErrNotExist)
		require.ErrorIs(t, g.Clone(ctx, "gold", "../x"), fs.ErrInvalid)

		require.NoError(t, g.Delete(ctx, "gold"))
		if g.Dir != "" {
			g.restart(false)
		}
		g.open(g.boot("node-01", Kept)).has("aaaa", 1)
		g.open(g.boot("node-02", Kept)).has("gold", 1)
		g.open(g.boot("node-03", Kept)).has("GOLD", 1)
		for _, name := range []string{"node-03", "node-01"} {
			require.NoError(t, g.Delete(ctx, name))
		}
		require.NoError(t, g.Reset(ctx, "node-02"))
		require.Empty(t, g.layers)
		require.Empty(t, g.layerRefs)
		if g.Dir != "" {
			require.Empty(t, g.layerDirs(), "the last root over them is gone")
		}
		require.ErrorIs(t, g.Clone(ctx, "node-02", "x"), fs.ErrNotExist)
	})
}

// TestRootsCloneOfClone goes down until it is refused, and through a restart.
func TestRootsCloneOfClone(t *testing.T) {
	bothRoots(t, func(t *testing.T, g *rootsRig) {
		c := g.open(g.boot("n", Kept))
		for i := range maxLayers {
			_, err := c.Device.(*rootDevice).WriteAt([]byte{byte(i + 100)}, int64(i)*512)
			require.NoError(t, err)
			require.NoError(t, g.Clone(t.Context(), "n", fmt.Sprint("c", i)))
		}
		c.write("more")
		require.ErrorIs(t, g.Clone(t.Context(), "n", "last"), syscall.ENOSPC)
		require.NoError(t, c.Device.(*rootDevice).Sync())
		want := content(t, c)
		if g.Dir != "" {
			g.restart(true)
		}
		require.True(t, bytes.Equal(want, content(t, g.open(g.boot("n", Kept)))))
		_, err := g.Commit(t.Context(), "n", "debian")
		require.ErrorIs(t, err, syscall.EBUSY)
		require.NoError(t, g.Fence(t.Context(), "n"))
		_, err = g.Commit(t.Context(), "n", "debian")
		require.NoError(t, err)
		require.NoError(t, g.Clone(t.Context(), "n", "last"), "it is over the new generation, with no layer")
		require.True(t, bytes.Equal(want, content(t, g.open(g.boot("last", Kept)))))
	})
}

// TestRootsCloneCrashes stops a clone after each of its steps, and reloads.
func TestRootsCloneCrashes(t *testing.T) {
	// what is copied while a clone is under way is what a crash leaves
	for steps := range 4 {
		t.Run(fmt.Sprint(steps), func(t *testing.T) {
			g := newRootsRig(t, true)
			c := g.open(g.boot("gold", Kept))
			c.write("gold")
			c.flush()
			r := g.roots["gold"]
			if steps > 0 {
				require.NoError(t, g.linkLayer(g.overlayDir(r), "00112233445566ff"))
			}
			if steps == 2 { // the empty overlay is there, root.json does not name it
				state := r.state
				state.Layers, state.Overlay = []string{"00112233445566ff"}, formatSeq(g.nextSeq(r))
				o, err := g.newOverlay(r, state, r.base)
				require.NoError(t, err)
				require.NoError(t, o.store.close())
			}
			if steps == 3 { // the source has its layer, the clone is not there
				require.NoError(t, r.lock(t.Context()))
				require.NoError(t, g.freeze(r))
				<-r.sem
			}
			c.write("late")
			c.flush()
			g.restart(true)
			require.Len(t, g.layerDirsAfterLoad(), map[bool]int{true: 1, false: 0}[steps == 3])
			g.open(g.boot("gold", Kept)).has("late", 1)
			require.NoError(t, g.Clone(t.Context(), "gold", "node"))
			g.restart(false)
			g.open(g.boot("node", Kept)).has("late", 1)
		})
	}
}

func (g *rootsRig) layerDirsAfterLoad() []string {
	require.NoError(g.t, g.load())
	return g.layerDirs()
}

// TestRootsCloneFails: a clone that cannot be made leaves its source.
func TestRootsCloneFails(t *testing.T) {
	g := newRootsRig(t, true)
	c := g.open(g.boot("gold", Kept))
	c.write("gold")
	layers := filepath.Join(g.Dir, "layers")
	require.NoError(t, os.Remove(layers))
	require.ErrorIs(t, g.Clone(t.Context(), "gold", "node"), fs.ErrNotExist)
	c.has("gold", 1)
	c.write("more")
	c.flush()
	require.NoError(t, os.Mkdir(layers, 0o700))
	require.NoError(t, g.Clone(t.Context(), "gold", "node"))
	g.open(g.boot("node", Kept)).has("more", 1)
	// A layer that is lost is a root that is refused, not one with other bytes.
	require.NoError(t, g.Close())
	require.NoError(t, g.Images.Close())
	require.NoError(t, os.RemoveAll(g.layerDirs()[0]))
	g.start()
	_, err := g.openFrom(g.boot("node", Kept), "192.0.2.1:1")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// TestRootsCloneUnderLoad clones a root that is being written to: each clone
// holds a moment of it, and no write is lost.
func TestRootsCloneUnderLoad(t *testing.T) {
	bothRoots(t, func(t *testing.T, g *rootsRig) {
		c := g.open(g.boot("gold", Kept))
		dev := c.Device.(*rootDevice)
		var wg sync.WaitGroup
		stop := make(chan struct{})
		for w := range 4 {
			wg.Go(func() {
				off := int64(w) * 2 * overlayBlock
				for v := byte(1); ; v++ {
					select {
					case <-stop:
						return
					default:
					}
					p, got := bytes.Repeat([]byte{v}, overlayBlock), make([]byte, overlayBlock)
					_, err := dev.WriteAt(p, off)
					if err == nil {
						_, err = dev.ReadAt(got, off)
					}
					if err != nil || !bytes.Equal(p, got) {
						t.Error("a write was lost", err)
						return
					}
				}
			})
		}
		for i := range 8 {
			require.NoError(t, g.Clone(t.Context(), "gold", fmt.Sprint("c", i)))
			require.NoError(t, g.Clone(t.Context(), fmt.Sprint("c", i), fmt.Sprint("d", i)))
			_, err := g.List(t.Context())
			require.NoError(t, err)
			text := content(t, g.open(g.boot(fmt.Sprint("d", i), Kept)))
			for b := 0; b < len(text); b += overlayBlock {
				require.Equal(t, bytes.Repeat(text[b:b+1], overlayBlock), text[b:b+overlayBlock], "a write was torn")
			}
		}
		close(stop)
		wg.Wait()
	})
}

func TestRootsRename(t *testing.T) {
	bothRoots(t, func(t *testing.T, g *rootsRig) {
		old := g.boot("old", Kept)
		c := g.open(old)
		c.write("data")
		early := g.boot("new", Kept) // rendered before, never opened
		require.NoError(t, g.Rename(t.Context(), "old", "new"))
		require.ErrorIs(t, *c.cut.Load(), ErrFenced)
		_, err := c.Device.(*rootDevice).WriteAt([]byte{1}, 0)
		require.ErrorIs(t, err, ErrFenced)
		c.end()
		check := func() {
			g.refused(old, fs.ErrPermission)
			g.refused(early, fs.ErrPermission)
		}
		check()
		if g.Dir != "" {
			g.restart(true)
			check()
		}
		g.open(g.boot("new", Kept)).has("data", 1)
		g.open(g.boot("old", Kept)).has("", 1)
		require.ErrorIs(t, g.Rename(t.Context(), "new", "old"), fs.ErrExist)
		require.ErrorIs(t, g.Rename(t.Context(), "nobody", "x"), fs.ErrNotExist)
	})
}

func TestRootsAttach(t *testing.T) {
	for _, kind := range []Kind{Ephemeral, Kept} {
		bothRoots(t, func(t *testing.T, g *rootsRig) {
			ctx := t.Context()
			token := g.boot("node", kind)
			c := g.open(token)
			c.write("data")
			_, err := g.Attach(ctx, "node")
			require.ErrorIs(t, err, syscall.EBUSY)
			c.has("data", 1)
			c.end()
			waiting := g.boot("node", kind)
			n, err := g.Attach(ctx, "node")
			require.NoError(t, err)
			g.refused(token, ErrFenced, fs.ErrPermission)
			g.refused(waiting, ErrFenced, fs.ErrPermission)
			if g.Dir != "" {
				g.restart(false)
				g.refused(token, ErrFenced)
			}
			m, err := g.openFrom(n.String(), "")
			require.NoError(t, err)
			m.has("data", 1)
			m.write("mend")
			m2, err := g.openFrom(n.String(), "192.0.2.9:9")
			require.NoError(t, err)
			m2.has("mend", 1)
			want := "mend"
			if kind == Ephemeral {
				want = ""
			}
			g.open(g.boot("node", kind)).has(want, 1) // the next boot ends it
			require.ErrorIs(t, *m.cut.Load(), ErrFenced)
			g.refused(n.String(), ErrFenced)
			require.NoError(t, g.Fence(ctx, "node"))
			_, err = g.Attach(ctx, "node")
			require.NoError(t, err)
			_, err = g.Attach(ctx, "nobody")
			require.ErrorIs(t, err, fs.ErrNotExist)
		})
	}
}

func TestRootsCreateRebaseCommit(t *testing.T) {
	bothRoots(t, func(t *testing.T, g *rootsRig) {
		ctx := t.Context()
		first, err := g.Images.Current(ctx, "debian")
		require.NoError(t, err)
		require.NoError(t, g.Create(ctx, Name{Image: "debian", Root: "node"}))
		require.ErrorIs(t, g.Create(ctx, Name{Image: "debian", Root: "node"}), fs.ErrExist)
		require.ErrorIs(t, g.Create(ctx, Name{Image: "nothing", Root: "x"}), fs.ErrNotExist)
		require.ErrorIs(t, g.Create(ctx, Name{Image: "debian"}), fs.ErrInvalid)
		publish(t, g.image, bytes.Repeat([]byte{2}, 64<<10))
		g.open("debian@node").end()
		require.ErrorIs(t, g.Rebase(ctx, "node", "00000000"), fs.ErrNotExist)
		require.ErrorIs(t, g.Rebase(ctx, "node", "?"), fs.ErrInvalid)
		require.NoError(t, g.Rebase(ctx, "node", ""))
		c := g.open(g.boot("node", Kept))
		require.EqualValues(t, 2, content(t, c)[0])
		c.end()
		require.NoError(t, g.Rebase(ctx, "node", first.Name().Generation))
		c = g.open(g.boot("node", Kept))
		require.EqualValues(t, 1, content(t, c)[0])
		c.write("data")
		require.NoError(t, c.Device.(*rootDevice).Zero(0, 512, 0))
		require.ErrorIs(t, g.Rebase(ctx, "node", ""), syscall.EBUSY)
		want := content(t, c)
		c.end()
		require.ErrorIs(t, g.Rebase(ctx, "node", ""), fs.ErrPermission, "it has data")

		require.NoError(t, g.Clone(ctx, "node", "twin"))
		gen, err := g.Commit(ctx, "node", "debian")
		require.NoError(t, err)
		_, err = g.Commit(ctx, "node", "other")
		require.ErrorIs(t, err, fs.ErrInvalid, "there is no store")
		now, err := g.Images.Current(ctx, "debian")
		require.NoError(t, err)
		require.Equal(t, gen, now)
		text, err := os.ReadFile(g.image)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, text))
		list, err := g.List(ctx)
		require.NoError(t, err)
		require.Zero(t, list[0].Usage+list[0].Shared, "the image has it now")
		require.True(t, bytes.Equal(want, content(t, g.open(g.boot("node", Kept)))))
		require.True(t, bytes.Equal(want, content(t, g.open(g.boot("twin", Kept)))), "on the former generation")
	})
}

func TestRootsCommitToStore(t *testing.T) {
	g := newRootsRig(t, true)
	g.Images.Dir = filepath.Join(filepath.Dir(g.image), "store")
	c := g.open(g.boot("node", Kept))
	c.write("data")
	want := content(t, c)
	c.end()
	gen, err := g.Commit(t.Context(), "node", "golden")
	require.NoError(t, err)
	got := content(t, g.open(gen.Name().String()))
	require.True(t, bytes.Equal(want, got))
	entries, err := os.ReadDir(g.Images.Dir)
	require.NoError(t, err)
	require.Len(t, entries, 2, "golden.img and former")
	g.open(g.boot("node", Kept)).has("data", 1)
}

func TestRootsExpire(t *testing.T) {
	bothRoots(t, func(t *testing.T, g *rootsRig) {
		ctx := t.Context()
		const week = 7 * 24 * time.Hour
		g.open(g.boot("open", Kept))
		g.open(g.boot("idle", Kept)).end()
		g.open(g.boot("fresh", Ephemeral)).end()
		g.boot("rendered", Kept)
		g.pass(week)
		g.open(g.boot("new", Kept)).end()
		g.pass(time.Hour)
		gone, err := g.Expire(ctx, Kept, week)
		require.NoError(t, err)
		require.Equal(t, []string{"idle"}, gone)
		gone, err = g.Expire(ctx, Ephemeral, week)
		require.NoError(t, err)
		require.Equal(t, []string{"fresh"}, gone)
		if g.Dir == "" {
			return
		}
		g.pass(week - 2*time.Hour)
		g.restart(true)
		gone, err = g.Expire(ctx, Kept, week)
		require.NoError(t, err)
		require.Empty(t, gone, "open when the server crashed: it counts from the start")
		g.pass(2 * time.Hour)
		gone, err = g.Expire(ctx, Kept, week)
		require.NoError(t, err)
		require.Equal(t, []string{"new"}, gone)
		g.pass(week)
		gone, err = g.Expire(ctx, Kept, week)
		require.NoError(t, err)
		require.Equal(t, []string{"open"}, gone)
	})
}

// TestRootsReplicas: two servers that share secret and image serve a machine
// one after the other; one that lacks the generation refuses.
func TestRootsReplicas(t *testing.T) {
	a, b := newRootsRig(t, true), newRootsRig(t, true)
	name := a.boot("node", Ephemeral)
	b.refused(name, fs.ErrPermission)
	require.NoError(t, b.Close())
	secret, err := os.ReadFile(filepath.Join(a.Dir, "secret"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(b.Dir, "secret"), secret, 0o600))
	b.start()
	a.open(name).end()
	b.open(name).has("", 1)
	publish(t, a.image, bytes.Repeat([]byte{7}, 64<<10))
	a.pass(time.Hour)
	name = a.boot("node", Ephemeral)
	b.refused(name, fs.ErrNotExist)
	publish(t, b.image, bytes.Repeat([]byte{7}, 64<<10))
	b.open(name)
}

// TestRootsCommandsConcurrently does everything to the same few names at once:
// nothing may hang, and whatever a root holds at the end is one whole value.
func TestRootsCommandsConcurrently(t *testing.T) {
	bothRoots(t, func(t *testing.T, g *rootsRig) {
		var wg sync.WaitGroup
		for w := range uint64(6) {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(w, 3))
				for range 40 {
					from, to := fmt.Sprint("n", rng.IntN(4)), fmt.Sprint("n", rng.IntN(4))
					switch rng.IntN(9) {
					case 0:
						_ = g.Clone(t.Context(), from, to)
					case 1:
						_ = g.Rename(t.Context(), from, to)
					case 2:
						_, _ = g.Attach(t.Context(), from)
					case 3:
						_ = g.Delete(t.Context(), from)
					case 4:
						_, _ = g.List(t.Context())
					default:
						n, err := g.Boot(t.Context(), "debian", from, Kept)
						if err != nil {
							continue
						}
						dev, err := g.OpenNBD(t.Context(), &Request{Export: n.String()})
						if err != nil {
							continue
						}
						d := dev.(*rootDevice)
						_, _ = d.WriteAt(bytes.Repeat([]byte{byte(w + 1)}, overlayBlock), 0)
						_, _ = d.Extents(0, d.Size(), make([]Extent, 4))
						_ = d.Close()
					}
				}
			})
		}
		wg.Wait()
		list, err := g.List(t.Context())
		require.NoError(t, err)
		for _, r := range list {
			require.NoError(t, r.Err)
			p := content(t, g.open(g.boot(r.Name, Kept)))[:overlayBlock]
			require.Equal(t, bytes.Repeat(p[:1], overlayBlock), p)
			require.NoError(t, g.Delete(t.Context(), r.Name))
		}
		require.Empty(t, g.layers)
		require.Empty(t, g.layerRefs)
		require.Empty(t, g.pins)
	})
}
