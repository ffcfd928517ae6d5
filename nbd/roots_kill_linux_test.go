package nbd

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// killSize needs more than one page of map.
const killSize = mapPageSpan + 1<<20

// killOp is one thing that a machine does; which it is follows from its number.
type killOp struct {
	kind   string
	off, n int64
	fill   byte
}

func killOpOf(seed, i uint64) killOp {
	rng := rand.New(rand.NewPCG(seed, i))
	op := killOp{kind: "write", n: 512 * (1 + rng.Int64N(40)), fill: byte(1 + rng.IntN(255))}
	spot := []int64{0, mapPageSpan - 256<<10, mapPageSpan}[rng.IntN(3)]
	op.off = spot + 512*rng.Int64N(512)
	switch rng.IntN(8) {
	case 0:
		op.kind, op.fill = "zero", 0
	case 1: // whole blocks, of which a trim is sure
		op.kind, op.fill = "trim", 0
		op.off, op.n = op.off/overlayBlock*overlayBlock, (op.n+overlayBlock-1)/overlayBlock*overlayBlock
	case 2:
		if rng.IntN(5) == 0 {
			op.kind = "flush"
		}
	}
	return op
}

func (op killOp) do(d *rootDevice) error {
	switch op.kind {
	case "flush":
		return d.Sync()
	case "zero":
		return d.Zero(op.off, op.n, 0)
	case "trim":
		return d.Trim(op.off, op.n)
	}
	_, err := d.WriteAt(bytes.Repeat([]byte{op.fill}, int(op.n)), op.off)
	return err
}

// killRoots are roots in dir, over an empty image.
func killRoots(t *testing.T, dir string) *Roots {
	images := &Images{Dir: filepath.Join(dir, "images")}
	require.NoError(t, images.Load(t.Context()))
	t.Cleanup(func() { require.NoError(t, images.Close()) })
	return &Roots{Images: images, Dir: filepath.Join(dir, "state")}
}

// TestKilledServerChild is the server that TestKilledServer kills.
func TestKilledServerChild(t *testing.T) {
	args := strings.Split(os.Getenv("NBD_TEST_KILL"), "|")
	if len(args) != 4 {
		t.Skip("TestKilledServer starts it")
	}
	rs := killRoots(t, args[0])
	dev, err := rs.OpenNBD(t.Context(), &Request{Export: args[1]})
	require.NoError(t, err)
	seed, err := strconv.ParseUint(args[2], 10, 64)
	require.NoError(t, err)
	first, err := strconv.ParseUint(args[3], 10, 64)
	require.NoError(t, err)
	for i := first; ; i++ {
		require.NoError(t, killOpOf(seed, i).do(dev.(*rootDevice)))
		require.NoError(t, binary.Write(os.Stderr, binary.BigEndian, i))
	}
}

// TestKilledServer: a server that is killed at any moment loses nothing that it
// has acknowledged, flushed or not, for the same boot that comes back to the
// next server; and a flush then makes that durable.
func TestKilledServer(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "new")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.NoError(t, os.Truncate(path, killSize))
	rs := killRoots(t, dir)
	_, err := rs.Images.Publish(t.Context(), "debian", path)
	require.NoError(t, err)
	n, err := rs.Boot(t.Context(), "debian", "node", Kept)
	require.NoError(t, err)
	require.NoError(t, rs.Close())

	want, may := make([]byte, killSize), make([]byte, killSize)
	next := uint64(0)
	for round := range 4 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledServerChild$")
		cmd.Stdout = os.Stdout
		cmd.Env = append(os.Environ(), fmt.Sprintf("NBD_TEST_KILL=%s|%s|7|%d", dir, n, next))
		acks, err := cmd.StderrPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		in := bufio.NewReader(acks)
		stop := next + 150 + uint64(round)*77
		for {
			var i uint64
			err := binary.Read(in, binary.BigEndian, &i)
			if err == io.EOF {
				break
			}
			require.NoError(t, err)
			require.Equal(t, next, i, "the child said something else")
			op := killOpOf(7, i)
			if op.kind != "flush" {
				copy(want[op.off:op.off+op.n], bytes.Repeat([]byte{op.fill}, int(op.n)))
			}
			if next++; next == stop {
				require.NoError(t, cmd.Process.Kill())
			}
		}
		require.Error(t, cmd.Wait())
		require.GreaterOrEqual(t, next, stop)
		copy(may, want) // what was under way may be there
		if op := killOpOf(7, next); op.kind != "flush" {
			copy(may[op.off:op.off+op.n], bytes.Repeat([]byte{op.fill}, int(op.n)))
		}
		check := func(rs *Roots, export string) {
			dev, err := rs.OpenNBD(t.Context(), &Request{Export: export})
			require.NoError(t, err)
			got := make([]byte, killSize)
			_, err = dev.ReadAt(got, 0)
			require.NoError(t, err)
			for i := range got {
				if got[i] != want[i] && got[i] != may[i] {
					require.Failf(t, "lost", "round %d, after operation %d: byte %d is %d, not %d", round, next, i, got[i], want[i])
				}
			}
			copy(want, got)
			require.NoError(t, dev.(*rootDevice).Sync())
			require.NoError(t, dev.(*rootDevice).Close())
		}
		rs := killRoots(t, dir)
		check(rs, n.String())
		require.NoError(t, rs.Close())
		rs = killRoots(t, dir)
		rs.disk.wrap = func(_ string, d overlayDir) overlayDir { return hostDir{d, "next boot"} }
		check(rs, n.String())
		require.NoError(t, rs.Close())
		next++ // it has been looked at
	}
}

// TestHostEnds: what was not flushed may be gone with the host, so the boot that
// wrote it is refused, by a Warn, until the machine boots anew.
func TestHostEnds(t *testing.T) {
	g := newRootsRig(t, true)
	wrote, idle, e := g.boot("wrote", Kept), g.boot("idle", Kept), g.boot("e", Ephemeral)
	c := g.open(wrote)
	c.write("flushed")
	c.flush()
	c.write("another")
	g.open(idle)
	g.open(e).write("x")
	g.hostEnds()
	g.open(idle).has("", 1)
	require.NotContains(t, g.log.String(), "level=WARN")
	for range 2 {
		g.refused(wrote, errLost)
		g.refused(e, errLost)
		g.restart(true)
	}
	require.Equal(t, 2, strings.Count(g.log.String(), "level=WARN"), "once for each root:\n%s", g.log.String())
	d := g.open("debian@wrote") // maintenance
	d.end()
	g.refused(wrote, errLost)
	c = g.open(g.boot("wrote", Kept))
	c.write("new")
	g.restart(true)
	g.open(g.boot("e", Ephemeral)).has("", 1)
	g.refused(e, ErrFenced)
}

// TestHostEndsForCommands: what was lost counts as the former boot's, not as
// that of who comes next.
func TestHostEndsForCommands(t *testing.T) {
	g := newRootsRig(t, true)
	for _, killed := range []bool{false, true} {
		for what, command := range map[string]func(name string) string{
			"attach": func(name string) string {
				n, err := g.Attach(t.Context(), name)
				require.NoError(t, err)
				return n.String()
			},
			"fence": func(name string) string {
				require.NoError(t, g.Fence(t.Context(), name))
				return g.boot(name, Kept)
			},
			"rename": func(name string) string {
				require.NoError(t, g.Rename(t.Context(), name, name+"-2"))
				return g.boot(name+"-2", Kept)
			},
			"clone": func(name string) string {
				require.NoError(t, g.Clone(t.Context(), name, name+"-2"))
				return g.boot(name+"-2", Kept)
			},
			"boot": func(name string) string { return g.boot(name, Kept) },
		} {
			root := fmt.Sprint(what, killed)
			old := g.boot(root, Kept)
			c := g.open(old)
			c.write("flushed")
			if killed {
				g.restart(true)
			} else {
				c.flush()
				c.write("another")
				g.hostEnds()
			}
			g.pass(time.Second)
			next := command(root)
			c = g.open(next)
			c.write("the new")
			g.restart(true)
			g.open(next).has("the new", 1)
		}
	}
}

// TestRebaseAfterKill: what a killed server leaves unflushed is data too.
func TestRebaseAfterKill(t *testing.T) {
	g := newRootsRig(t, true)
	g.open(g.boot("r", Kept)).write("mine")
	g.restart(true)
	require.ErrorContains(t, g.Rebase(t.Context(), "r", ""), "has data")
}
