package nbd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// crashImage is an image of eight blocks, each of one byte.
type crashImage [8]byte

func (c crashImage) bytes() []byte {
	var p []byte
	for _, b := range c {
		p = append(p, bytes.Repeat([]byte{b}, overlayBlock)...)
	}
	return p
}

func (c crashImage) name() string {
	return Generation{Image: "debian", Digest: digestOf(c.bytes())}.Name().String()
}

// crashWorld is what must be there after a loss of power.
type crashWorld struct {
	roots   map[string]crashRoot
	refused []string     // export names that open nothing any more
	newest  crashImage   // zero: nothing was published
	kept    []crashImage // further generations
	out     byte         // what was committed to a file of its own
}

type crashRoot struct {
	kind   Kind
	base   crashImage     // zero: it was reset
	blocks map[int][]byte // what may be there
	token  string         // "": none opens it
	lost   lostWrites
}

// lostWrites says whether a loss of power refuses a root's boot.
type lostWrites int

const (
	nothingLost lostWrites = iota
	mayBeLost
	isLost
)

// lose says what a loss of power does to a root's boot.
func (w *crashWorld) lose(root string, what lostWrites) {
	r := w.roots[root]
	r.lost = what
	w.roots[root] = r
}

func (w *crashWorld) clone() *crashWorld {
	c := *w
	c.roots, c.refused, c.kept = maps.Clone(w.roots), slices.Clone(w.refused), slices.Clone(w.kept)
	for name, r := range c.roots {
		r.blocks = maps.Clone(r.blocks)
		c.roots[name] = r
	}
	return &c
}

// refuse takes a root's token from it.
func (w *crashWorld) refuse(root string) {
	r := w.roots[root]
	if r.token != "" {
		w.refused = append(w.refused, r.token)
	}
	r.token = ""
	w.roots[root] = r
}

var lost = slog.New(slog.DiscardHandler)

// check opens what a loss of power has left in dir.
func (w *crashWorld) check(t *testing.T, dir string) (err error) {
	im := &Images{Dir: filepath.Join(dir, "images"), Keep: 1, Logger: lost, disk: withoutSyncs()}
	knowDigests(t, im, dir)
	defer im.Close()
	if err := im.Load(t.Context()); err != nil {
		return err
	}
	rs := &Roots{Images: im, Dir: filepath.Join(dir, "state"), Logger: lost, disk: withoutSyncs()}
	defer rs.Close()
	if w.newest != (crashImage{}) {
		for _, name := range append([]string{"debian", w.newest.name()}, namesOf(w.kept)...) {
			if name == "debian" {
				gen, err := im.Current(t.Context(), name)
				if err != nil || gen.Name().String() != w.newest.name() {
					return fmt.Errorf("the newest image is %v, %v", gen, err)
				}
			}
			if err := opens(t.Context(), im, name, nil); err != nil {
				return err
			}
		}
	}
	list, err := rs.List(t.Context())
	if err != nil {
		return err
	}
	for _, name := range w.refused {
		if err := opens(t.Context(), rs, name, nil); err == nil {
			return fmt.Errorf("%s opens, and was fenced off", name)
		}
	}
	for _, info := range list {
		r, ok := w.roots[info.Name]
		switch {
		case !ok:
			return fmt.Errorf("root %s is there", info.Name)
		case info.Err != nil:
			return info.Err
		case info.Kind != r.kind, (info.Generation == "") != (r.base == crashImage{}):
			return fmt.Errorf("root %s is %v", info.Name, info)
		}
	}
	for name, r := range w.roots {
		export := r.token
		if export == "" {
			export = "debian@" + name
		}
		if !slices.ContainsFunc(list, func(i RootInfo) bool { return i.Name == name }) {
			return fmt.Errorf("root %s is lost", name)
		}
		if r.base == (crashImage{}) {
			continue
		}
		if r.token != "" && r.lost != nothingLost {
			err := opens(t.Context(), rs, export, nil)
			if !errors.Is(err, errLost) && (err != nil || r.lost == isLost) {
				return fmt.Errorf("%s, which has lost writes, gets %w", export, err)
			}
			if err != nil {
				export = "debian@" + name
			}
		}
		if err := opens(t.Context(), rs, export, &r); err != nil {
			return err
		}
	}
	if w.out != 0 {
		text, err := os.ReadFile(filepath.Join(dir, "out.img"))
		if err != nil || !bytes.Equal(text, bytes.Repeat([]byte{w.out}, overlayBlock)) {
			return fmt.Errorf("the committed file is %d bytes, %.8x: %w", len(text), text, err)
		}
	}
	return nil
}

func namesOf(images []crashImage) (names []string) {
	for _, i := range images {
		names = append(names, i.name())
	}
	return names
}

// opens opens an export and, with want, compares what it holds.
func opens(ctx context.Context, h Handler, name string, want *crashRoot) error {
	dev, err := h.OpenNBD(ctx, &Request{Export: name})
	if err != nil {
		return err
	}
	defer dev.(interface{ Close() error }).Close()
	if want == nil {
		return nil
	}
	p := make([]byte, overlayBlock)
	for i, base := range want.base {
		if _, err := dev.ReadAt(p, int64(i)*overlayBlock); err != nil {
			return err
		}
		may, written := want.blocks[i]
		if !written {
			may = []byte{base}
		}
		for _, b := range p {
			// A write that was not flushed may be torn.
			if !slices.Contains(may, b) {
				return fmt.Errorf("%s: block %d has a %d, not one of %d", name, i, b, may)
			}
		}
	}
	return nil
}

// crashRig does things to images and roots on tape.
type crashRig struct {
	*tape
	t      *testing.T
	images *Images
	roots  *Roots
	world  *crashWorld
	clock  int64
}

func newCrashRig(t *testing.T, skip string) *crashRig {
	g := &crashRig{tape: newTape(t), t: t, world: &crashWorld{roots: map[string]crashRoot{}}}
	g.skip = skip
	return g
}

func (g *crashRig) start() {
	g.images = &Images{Dir: filepath.Join(g.dir, "images"), Keep: 1, Logger: lost, disk: g.disk()}
	require.NoError(g.t, g.images.Load(g.t.Context()))
	g.roots = &Roots{Images: g.images, Dir: filepath.Join(g.dir, "state"), Logger: lost, disk: g.disk(), Now: func() time.Time {
		g.clock++ // so that each run does the same
		return time.UnixMilli(g.clock)
	}}
}

func (g *crashRig) stop() {
	all := func(what lostWrites) func(w *crashWorld) {
		return func(w *crashWorld) {
			for name := range w.roots {
				w.lose(name, min(what, w.roots[name].lost))
			}
		}
	}
	g.do(func() error { return nil }, all(mayBeLost))
	g.do(g.roots.Close, all(nothingLost))
	require.NoError(g.t, g.images.Close())
}

// close ends the connection to a root.
func (g *crashRig) close(root string, d *rootDevice) {
	g.t.Helper()
	g.do(func() error { return nil }, func(w *crashWorld) { w.lose(root, mayBeLost) })
	g.do(d.Close, func(w *crashWorld) { w.lose(root, nothingLost) })
}

// do says what a step changes: while it is under way either is right, and each
// of the stages in between.
func (g *crashRig) do(f func() error, changes ...func(w *crashWorld)) {
	g.t.Helper()
	worlds := []*crashWorld{g.world}
	for _, change := range changes {
		next := worlds[len(worlds)-1].clone()
		change(next)
		worlds = append(worlds, next)
	}
	g.steps = append(g.steps, tapeStep{kind: "world", any: worlds})
	require.NoError(g.t, f())
	g.world = worlds[len(worlds)-1]
	g.steps = append(g.steps, tapeStep{kind: "world", any: worlds[len(worlds)-1:]})
}

func (g *crashRig) publish(c crashImage) {
	g.t.Helper()
	path := filepath.Join(g.dir, "new")
	require.NoError(g.t, os.WriteFile(path, c.bytes(), 0o600))
	g.do(func() error { _, err := g.images.Publish(g.t.Context(), "debian", path); return err }, func(w *crashWorld) {
		if w.kept = nil; w.newest != (crashImage{}) {
			w.kept = []crashImage{w.newest}
		}
		w.newest = c
	})
}

// boot opens a root with a new token, and keeps it open.
func (g *crashRig) boot(root string, kind Kind) *rootDevice {
	g.t.Helper()
	n, err := g.roots.Boot(g.t.Context(), "debian", root, kind)
	require.NoError(g.t, err)
	return g.open(n.String(), root, kind)
}

func (g *crashRig) open(name, root string, kind Kind) (dev *rootDevice) {
	g.t.Helper()
	g.do(func() error {
		d, err := g.roots.OpenNBD(g.t.Context(), &Request{Export: name})
		dev, _ = d.(*rootDevice)
		return err
	}, func(w *crashWorld) {
		if r := w.roots[root]; r.token != name {
			w.refuse(root)
		}
		r := w.roots[root]
		if r.token != name {
			r.lost = min(r.lost, mayBeLost) // by the one before
		}
		if r.token = name; r.base == (crashImage{}) || kind == Ephemeral {
			r.kind, r.base, r.blocks, r.lost = kind, w.newest, map[int][]byte{}, nothingLost
		}
		w.roots[root] = r
	})
	return dev
}

func (g *crashRig) write(root string, d *rootDevice, block int, b byte) {
	g.t.Helper()
	set := func(also bool) func(w *crashWorld) {
		return func(w *crashWorld) {
			r := w.roots[root]
			may := r.blocks[block]
			if may == nil {
				may = []byte{r.base[block]}
			}
			if !also {
				may = nil
			}
			r.blocks[block] = append(slices.Clone(may), b)
			if r.lost = isLost; also {
				r.lost = max(w.roots[root].lost, mayBeLost)
			}
			w.roots[root] = r
		}
	}
	g.do(func() error { return nil }, set(true))
	_, err := d.WriteAt(bytes.Repeat([]byte{b}, overlayBlock), int64(block)*overlayBlock)
	require.NoError(g.t, err)
	g.do(func() error { return nil }, func(w *crashWorld) { w.lose(root, isLost) })
	g.do(d.Sync, set(false))
}

// work is a life of a server.
func (g *crashRig) work() {
	ctx := g.t.Context()
	g.start()
	for _, b := range []byte{6, 7} {
		o := NewOverlay(bytesBase(bytes.Repeat([]byte{b}, overlayBlock)))
		o.disk = g.disk()
		g.do(func() error { return o.Commit(ctx, filepath.Join(g.dir, "out.img")) }, func(w *crashWorld) { w.out = b })
	}
	g.publish(crashImage{1})
	k := g.boot("k", Kept)
	g.write("k", k, 0, 'a')
	e := g.boot("e", Ephemeral)
	g.write("e", e, 1, 'b')
	g.do(func() error { return g.roots.Clone(ctx, "k", "c") }, func(w *crashWorld) {
		w.lose("k", mayBeLost)
	}, func(w *crashWorld) {
		w.lose("k", nothingLost)
		r := w.roots["k"]
		w.roots["c"] = crashRoot{kind: Kept, base: r.base, blocks: maps.Clone(r.blocks)}
	})
	g.write("k", k, 1, 'd')
	c := g.boot("c", Kept)
	g.write("c", c, 0, 'e')
	g.publish(crashImage{2, 2})
	e = g.boot("e", Ephemeral)
	g.write("e", e, 2, 'f')
	g.do(func() error { return g.roots.Rename(ctx, "k", "m") }, func(w *crashWorld) { w.lose("k", mayBeLost) }, func(w *crashWorld) { w.refuse("k") }, func(w *crashWorld) {
		w.roots["m"] = w.roots["k"]
		delete(w.roots, "k")
	})
	m := g.boot("m", Kept)
	g.write("m", m, 3, 'g')
	g.stop()
	g.start()
	m = g.open(g.world.roots["m"].token, "m", Kept)
	g.do(func() error { return g.roots.Reset(ctx, "c") }, func(w *crashWorld) {
		w.refuse("c")
		w.roots["c"] = crashRoot{kind: Kept}
	})
	for i := range byte(3) { // m's base is out of the ones kept
		g.publish(crashImage{3, 3, 3 + i})
	}
	g.do(func() error { _, err := g.images.Revert(ctx, "debian"); return err }, func(w *crashWorld) {
		w.newest, w.kept = w.kept[0], []crashImage{w.newest}
	})
	g.write("m", m, 4, 'h')
	g.close("m", m)
	attached := ""
	g.do(func() error {
		n, err := g.roots.Attach(ctx, "m")
		attached = n.String()
		return err
	}, func(w *crashWorld) { w.refuse("m") })
	m = g.open(attached, "m", Kept)
	g.write("m", m, 5, 'i')
	g.close("m", m)
	g.do(func() error { _, err := g.roots.Commit(ctx, "m", "debian"); return err }, func(w *crashWorld) {
		w.kept = []crashImage{w.newest}
		r := w.roots["m"]
		w.newest = r.base
		for i, b := range r.blocks {
			w.newest[i] = b[0]
		}
	}, func(w *crashWorld) {
		w.refuse("m")
		w.roots["m"] = crashRoot{kind: Kept, base: w.newest, blocks: map[int][]byte{}}
	})
	g.do(func() error { return g.roots.Create(ctx, Name{Image: "debian", Root: "n"}) }, func(w *crashWorld) {
		w.roots["n"] = crashRoot{kind: Kept, base: w.newest, blocks: map[int][]byte{}}
	})
	g.do(func() error { return g.roots.Delete(ctx, "e") }, func(w *crashWorld) {
		w.refuse("e")
		delete(w.roots, "e")
	})
	g.stop()
}

// crashRoots looks for what a loss of power may leave that is wrong. With a sync
// taken out, it is cut only where that can tell.
func crashRoots(t *testing.T, skip string) (states int, bad error) {
	g := newCrashRig(t, skip)
	g.work()
	worlds := []*crashWorld{{}}
	scratch := fastDir(t)
	for n := range len(g.steps) + 1 {
		// Where a sync is due there is most to lose.
		due := n == len(g.steps) || strings.HasPrefix(g.steps[n].kind, "sync")
		if n > 0 && g.steps[n-1].kind == "world" {
			worlds = g.steps[n-1].any
			due = due || len(worlds) == 1
		}
		tries := uint64(2)
		if skip != "" {
			if !due || n < g.first {
				continue
			}
			tries = 8
		}
		for try := range tries {
			states++
			var err error
			for i, w := range worlds {
				dir := filepath.Join(scratch, fmt.Sprint(states, i))
				require.NoError(t, os.Mkdir(dir, 0o700))
				g.after(t, n, rand.New(rand.NewPCG(uint64(n), try)), dir)
				if err = w.check(t, dir); err == nil {
					require.NoError(t, os.RemoveAll(dir))
					break
				}
				require.NoError(t, os.RemoveAll(dir))
			}
			if err != nil {
				return states, fmt.Errorf("after step %d of %d, try %d: %w", n, len(g.steps), try, err)
			}
		}
	}
	return states, nil
}

// TestRootsSurvivePowerLoss: whatever is cut off where, and whatever of what was
// not made durable is there or not, images and roots open, and what was
// acknowledged holds: contents, names, generations, and who is refused.
func TestRootsSurvivePowerLoss(t *testing.T) {
	states, bad := crashRoots(t, "")
	require.NoError(t, bad)
	t.Logf("%d states opened", states)
}

// TestRootsNeedEverySync takes out each line that asks for a sync: the test above
// must notice.
func TestRootsNeedEverySync(t *testing.T) {
	g := newCrashRig(t, "")
	g.work()
	for _, at := range syncSites(t, "*.go", "syncFile", "syncDir") {
		t.Run(at, func(t *testing.T) {
			require.True(t, g.sites[at], "the work on tape does not come by here")
			_, bad := crashRoots(t, at)
			require.Error(t, bad, "it is not needed, or the test does not see it")
			t.Log(bad)
		})
	}
}
