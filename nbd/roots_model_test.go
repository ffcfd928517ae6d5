package nbd

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The model: a root is a few blocks, each with the values it may have. A block
// written since the last flush may have several after a crash.
type modelRoot struct {
	name    string
	kind    Kind
	exists  bool // opened, and not reset or deleted since
	opened  int  // index of the newest token opened, into tokens
	tokens  []string
	images  []byte // the image of each token
	pending bool   // the last token was not opened
	lost    bool   // the server restarted since the last token was given out
	image   byte
	// unlinked: before the first opening the server restarted and the image
	// was replaced, so that there was no file to link any more.
	unlinked bool
	// A boot that wrote since its connections began is refused when the host
	// ends: wrote, or perhaps, with zeroes that may have been there.
	wrote, perhaps bool
	refused        bool
	blocks         [modelBlocks][]byte
	flushed        [modelBlocks][]byte
	machine        *client
}

const modelBlocks = 8

// TestRootsModel lets several machines boot, write, lose power and be reset in
// any order, and checks every read and every refusal against the model.
func TestRootsModel(t *testing.T) {
	for seed := range uint64(6) {
		for _, stored := range []bool{false, true} {
			t.Run(fmt.Sprint(seed, stored), func(t *testing.T) { runModel(t, seed, stored) })
		}
	}
}

func runModel(t *testing.T, seed uint64, stored bool) {
	g := newRootsRig(t, stored)
	rng := rand.New(rand.NewPCG(seed, 9))
	newest := byte(1)
	clones := map[string][]byte{}
	var roots []*modelRoot
	for i := range 4 {
		roots = append(roots, &modelRoot{name: fmt.Sprint("node-", i), kind: Kind(i % 2), opened: -1})
	}
	for range 250 {
		g.pass(time.Duration(rng.IntN(3)) * time.Millisecond)
		r := roots[rng.IntN(len(roots))]
		switch rng.IntN(18) {
		case 14:
			if r.machine == nil {
				continue
			}
			b := rng.IntN(modelBlocks)
			dev := r.machine.Device.(*rootDevice)
			if rng.IntN(2) == 0 {
				require.NoError(t, dev.Trim(int64(b)*4096, 4096))
			} else {
				require.NoError(t, dev.Zero(int64(b)*4096, 4096, 0))
			}
			r.blocks[b] = []byte{0}
			r.flushed[b] = append(r.flushed[b], 0)
			r.perhaps = true
			r.check(t)
		case 15:
			r.clone(t, g, fmt.Sprint("clone-", rng.IntN(3)), clones)
		case 16:
			for name, want := range clones {
				checkClone(t, g, name, want)
			}
		case 17:
			if r.exists && r.machine != nil && rng.IntN(3) == 0 {
				require.NoError(t, g.Fence(t.Context(), r.name))
				require.ErrorIs(t, *r.machine.cut.Load(), ErrFenced)
				r.machine.end()
				r.machine, r.pending, r.refused = nil, false, false
				r.closed()
				// All tokens until now are overtaken, by one that nobody has.
				r.opened = len(r.tokens)
				r.tokens, r.images = append(r.tokens, ""), append(r.images, 0)
			}
		case 0:
			newest++
			publish(t, g.image, bytes.Repeat([]byte{newest}, modelBlocks*4096))
			g.pass(11 * time.Minute)
		case 1:
			if !stored {
				continue
			}
			how := rng.IntN(3)
			switch how {
			case 0:
				g.restart(false)
			case 1:
				g.restart(true) // and nothing is lost
			default:
				g.hostEnds()
			}
			for _, r := range roots {
				r.machine, r.pending, r.lost = nil, false, true
				if how == 0 {
					r.closed()
				}
				if how == 2 {
					r.refused = r.refused || r.wrote
					for b := range r.blocks {
						r.blocks[b] = append(r.blocks[b], r.flushed[b]...)
					}
					r.wrote = false
				}
			}
		case 2:
			if r.exists && rng.IntN(3) == 0 {
				require.NoError(t, g.Reset(t.Context(), r.name))
				r.forget()
			}
		case 3:
			if r.exists && rng.IntN(3) == 0 {
				require.NoError(t, g.Delete(t.Context(), r.name))
				g.pass(time.Millisecond)
				r.forget()
			}
		case 4, 5, 6:
			r.render(t, g, newest)
			if len(r.tokens) > 0 && rng.IntN(4) > 0 {
				r.open(t, g, len(r.tokens)-1, newest)
			}
		case 7: // an old token, or the present one again
			if len(r.tokens) > 0 {
				i := rng.IntN(len(r.tokens))
				if i > r.opened && i < len(r.tokens)-1 {
					continue // overtaken before it was opened: it may come, or not
				}
				r.open(t, g, i, newest)
			}
		case 8:
			if r.machine != nil {
				r.machine.end()
				if r.machine.cut.Load() == nil {
					r.closed()
				}
				r.machine = nil
			}
		case 9:
			if r.machine != nil {
				r.machine.flush()
				r.flush()
			}
		default:
			if r.machine == nil {
				continue
			}
			b := rng.IntN(modelBlocks)
			v := byte(100 + rng.IntN(100))
			_, err := r.machine.Device.(*rootDevice).WriteAt(bytes.Repeat([]byte{v}, 4096), int64(b)*4096)
			require.NoError(t, err)
			r.blocks[b] = []byte{v}
			r.flushed[b] = append(r.flushed[b], v)
			r.wrote = true
			r.check(t)
		}
	}
}

func (r *modelRoot) render(t *testing.T, g *rootsRig, newest byte) {
	if r.unlinked && r.kind == Kept {
		if _, err := g.Boot(t.Context(), "debian", r.name, r.kind); err != nil {
			require.ErrorIs(t, err, fs.ErrNotExist)
			require.NoError(t, g.Reset(t.Context(), r.name))
			r.forget()
			r.unlinked = false
		}
	}
	name := g.boot(r.name, r.kind)
	if n := len(r.tokens); n > 0 && r.tokens[n-1] == name {
		require.True(t, r.pending || r.lost && n-1 > r.opened, "a token that was opened was given out again")
		r.pending = true
		return
	}
	image := newest
	if r.kind == Kept && r.exists {
		image = r.image
	}
	r.tokens, r.images, r.pending = append(r.tokens, name), append(r.images, image), true
	r.lost = false
}

func (r *modelRoot) open(t *testing.T, g *rootsRig, i int, newest byte) {
	c, err := g.openFrom(r.tokens[i], "192.0.2.1:1")
	switch {
	case i < r.opened, i == r.opened && !r.exists, r.tokens[i] == "":
		require.Error(t, err)
		return
	case i == r.opened && (r.refused || r.perhaps && errors.Is(err, errLost)):
		require.ErrorIs(t, err, errLost)
		r.refused = true
		return
	case err != nil && r.unlinked:
		require.ErrorIs(t, err, fs.ErrNotExist)
		return
	case err != nil:
		// Only the generation may be missing: a token that waited too long.
		require.Greater(t, i, r.opened, "%v", err)
		if !r.lost || r.exists { // or another root was deleted since, and a restart forgot who waits
			require.NotEqual(t, newest, r.images[i], "%v", err)
		}
		return
	}
	if i > r.opened {
		if r.machine != nil {
			require.ErrorIs(t, *r.machine.cut.Load(), ErrFenced)
			_, err := r.machine.Device.(*rootDevice).WriteAt([]byte{0}, 0)
			require.ErrorIs(t, err, ErrFenced)
			r.machine.end()
			r.machine = nil
			r.flush()
		}
		if r.kind == Ephemeral || !r.exists {
			r.unlinked = r.lost && r.images[i] != newest
			r.image = r.images[i]
			for b := range r.blocks {
				r.blocks[b], r.flushed[b] = []byte{r.image}, []byte{r.image}
			}
			r.wrote, r.perhaps = false, false
		}
		r.opened, r.exists, r.refused = i, true, false
	}
	if i == len(r.tokens)-1 {
		r.pending = false
	}
	if r.machine != nil {
		r.machine.end()
	}
	r.machine = c
	r.check(t)
}

// clone makes a clone, in the place of one of that name, of which it is known
// what it holds: all that the root does, flushed or not.
func (r *modelRoot) clone(t *testing.T, g *rootsRig, name string, clones map[string][]byte) {
	if !r.exists || r.machine == nil {
		return
	}
	if clones[name] != nil {
		require.NoError(t, g.Delete(t.Context(), name))
		delete(clones, name)
	}
	err := g.Clone(t.Context(), r.name, name)
	if errors.Is(err, syscall.ENOSPC) {
		return // too many layers
	}
	require.NoError(t, err)
	r.check(t)
	clones[name] = content(t, r.machine)
	r.closed() // what it had is frozen
	checkClone(t, g, name, clones[name])
}

func checkClone(t *testing.T, g *rootsRig, name string, want []byte) {
	c := g.open("debian@" + name)
	require.True(t, bytes.Equal(want, content(t, c)), "%s holds something else", name)
	c.end()
}

func (r *modelRoot) check(t *testing.T) {
	for b, p := range slices.Collect(slices.Chunk(content(t, r.machine), 4096)) {
		if b >= modelBlocks {
			break
		}
		require.Equal(t, bytes.Repeat(p[:1], 4096), p)
		require.Contains(t, r.blocks[b], p[0], "%s block %d", r.name, b)
		r.blocks[b] = p[:1]
	}
}

// closed: everything is flushed, and nobody has the root open.
func (r *modelRoot) closed() {
	r.flush()
	r.wrote, r.perhaps = false, false
}

func (r *modelRoot) flush() {
	for b := range r.blocks {
		r.flushed[b] = slices.Clone(r.blocks[b])
	}
}

// forget: the data is gone, and no token given out until now opens it again.
func (r *modelRoot) forget() {
	r.exists, r.pending, r.opened = false, false, len(r.tokens)-1
	r.wrote, r.perhaps, r.refused = false, false, false
	r.machine = nil
}
