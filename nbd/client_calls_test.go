package nbd_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/nbd/nbdtest"
)

// within waits for something that another goroutine sends.
func within[T any](t *testing.T, from <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(30 * time.Second):
		require.Fail(t, "nothing came")
	}
	return v
}

// inTheAir is a client with n reads under way that the server does not answer.
func inTheAir(t *testing.T, n int) (c *nbd.Client, dev *slow, srv *nbd.Server, results <-chan error) {
	dev = newSlow(pattern(1 << 20))
	content := dev.Bytes()
	srv = &nbd.Server{Logger: quiet, Handler: always(dev)}
	c = dial(t, nbdtest.ServeServer(t, srv), "x")
	t.Cleanup(func() {
		select {
		case <-dev.free:
		default:
			close(dev.free)
		}
	})
	out := make(chan error, n)
	for i := range n {
		go func() { // ends with its read
			p := make([]byte, 512+i)
			off := 512 + 1024*int64(i)
			_, err := c.ReadAt(p, off)
			if err == nil && !bytes.Equal(p, content[off:][:len(p)]) {
				err = fmt.Errorf("read %d brought what another one asked for", i)
			}
			out <- err
		}()
	}
	for range n {
		within(t, dev.begun)
	}
	return c, dev, srv, out
}

// Calls do not wait for each other: several are with the server, and each gets
// its own reply when that comes.
func TestClientCallsAtTheSameTime(t *testing.T) {
	const n = 8
	c, dev, _, results := inTheAir(t, n)
	p := make([]byte, 4096)
	for range 3 {
		_, err := c.ReadAt(p, 4096)
		require.NoError(t, err)
		require.True(t, bytes.Equal(dev.Bytes()[4096:8192], p))
	}
	require.Empty(t, results)
	close(dev.free)
	for range n {
		require.NoError(t, within(t, results))
	}
}

// Whatever ends the connection ends all calls under way, and those after them.
func TestClientLosesItsConnection(t *testing.T) {
	t.Run("server", func(t *testing.T) {
		c, dev, srv, results := inTheAir(t, 8)
		require.NoError(t, srv.Close())
		first := within(t, results)
		require.ErrorContains(t, first, "connection failed")
		for range 7 {
			require.Equal(t, first, within(t, results))
		}
		require.Equal(t, first, c.Sync())
		close(dev.free)
	})
	t.Run("close", func(t *testing.T) {
		c, _, _, results := inTheAir(t, 8)
		require.NoError(t, c.Close())
		for range 8 {
			require.ErrorIs(t, within(t, results), net.ErrClosed)
		}
		require.ErrorIs(t, c.Sync(), net.ErrClosed)
	})
}

// Many callers, errors and replies in any order: each gets what is its own.
func TestClientManyCallers(t *testing.T) {
	const callers, part = 16, 64 << 10
	content := pattern(callers * part)
	faults := new(nbd.Faults)
	faults.Add(nbd.Fault{Ops: []nbd.Op{nbd.OpRead}, Off: 0, Len: 512, Err: syscall.EIO},
		nbd.Fault{Ops: []nbd.Op{nbd.OpWrite}, Off: 0, Len: 512, Err: syscall.ENOSPC})
	c := dial(t, serve(t, faults.Filter(nbdtest.NewMemory(content))), "x")
	model := bytes.Clone(content)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			if err := callAtRandom(c, model[i*part:][:part], int64(i*part), uint64(i)); err != nil {
				t.Errorf("caller %d: %v", i, err)
			}
		})
		wg.Go(func() {
			p := make([]byte, 512)
			for range 20 {
				if _, err := c.ReadAt(p, 0); !errors.Is(err, syscall.EIO) {
					t.Errorf("a read of the bad sector: %v", err)
				}
				if _, err := c.WriteAt(p, 0); !errors.Is(err, syscall.ENOSPC) {
					t.Errorf("a write of the bad sector: %v", err)
				}
			}
		})
	}
	wg.Wait()
	got := make([]byte, len(model)-512)
	_, err := c.ReadAt(got, 512)
	require.NoError(t, err)
	require.True(t, bytes.Equal(model[512:], got))
}

// callAtRandom reads and writes the part at base, but for the first sector.
func callAtRandom(c *nbd.Client, model []byte, base int64, seed uint64) error {
	rnd := rand.New(rand.NewPCG(seed, 2))
	for range 40 {
		at := 512 + rnd.IntN(len(model)-512)
		p := make([]byte, 1+rnd.IntN(len(model)-at))
		if rnd.IntN(2) == 0 {
			for i := range p {
				p[i] = byte(rnd.Uint32())
			}
			copy(model[at:], p)
			if _, err := c.WriteAt(p, base+int64(at)); err != nil {
				return err
			}
			continue
		}
		if _, err := c.ReadAt(p, base+int64(at)); err != nil {
			return err
		}
		if !bytes.Equal(model[at:][:len(p)], p) {
			return fmt.Errorf("%d bytes at %d are other than what was written", len(p), at)
		}
	}
	return nil
}
