//go:build unix

package nbd_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pojntfx/go-nbd/pkg/backend"
	goserver "github.com/pojntfx/go-nbd/pkg/server"
	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/nbd"
)

// startTool runs a server until the test ends.
func startTool(t *testing.T, tool string, args ...string) {
	cmd := exec.Command(needTool(t, tool), args...)
	var log bytes.Buffer
	cmd.Stderr = &log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s: %s", tool, &log)
		}
	})
}

// freePort is a TCP port of loopback that nobody listens on.
func freePort(t *testing.T) string {
	l := listen(t)
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	return port
}

// dialSoon opens an export of a server that is about to listen.
func dialSoon(t *testing.T, d *nbd.Dialer, network, addr, export string) (c *nbd.Client) {
	var err error
	require.Eventually(t, func() bool {
		c, err = d.Dial(t.Context(), network, addr, export)
		var op *net.OpError
		return err == nil || !errors.As(err, &op) || op.Op != "dial"
	}, 30*time.Second, 10*time.Millisecond)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// Our client does with other people's servers all that it can: their file
// afterwards has what was written.
func TestClientWritesToPeers(t *testing.T) {
	all := nbd.Features{Write: true, Flush: true, Trim: true, Zero: true, Cache: true, Extents: true, Slow: true}
	p := newPKI(t)
	tests := map[string]struct {
		start func(t *testing.T, file string) *nbd.Client
		can   nbd.Features
	}{
		"nbdkit": {func(t *testing.T, file string) *nbd.Client {
			sock := filepath.Join(t.TempDir(), "s")
			startTool(t, "nbdkit", "-f", "-U", sock, "file", file)
			return dialSoon(t, &nbd.Dialer{}, "unix", sock, "")
		}, all},
		"nbdkit over TLS": {func(t *testing.T, file string) *nbd.Client {
			port := freePort(t)
			startTool(t, "nbdkit", "-f", "-i", "127.0.0.1", "-p", port, "--tls=require", "--tls-verify-peer", "--tls-certificates="+p.dir, "file", file)
			return dialSoon(t, &nbd.Dialer{TLS: p.clientConfig()}, "tcp", "127.0.0.1:"+port, "")
		}, all},
		"qemu-nbd": {func(t *testing.T, file string) *nbd.Client {
			sock := filepath.Join(t.TempDir(), "s")
			startTool(t, "qemu-nbd", "-t", "-f", "raw", "--discard=unmap", "-x", "disk", "-k", sock, file)
			return dialSoon(t, &nbd.Dialer{}, "unix", sock, "disk")
		}, all},
		"qemu-nbd over TLS": {func(t *testing.T, file string) *nbd.Client {
			port := freePort(t)
			startTool(t, "qemu-nbd", "-t", "-f", "raw", "--discard=unmap", "-x", "disk", "-b", "127.0.0.1", "-p", port,
				"--object", "tls-creds-x509,id=tls,endpoint=server,verify-peer=yes,dir="+p.dir, "--tls-creds", "tls", file)
			return dialSoon(t, &nbd.Dialer{TLS: p.clientConfig()}, "tcp", "127.0.0.1:"+port, "disk")
		}, all},
		"nbd-server": {func(t *testing.T, file string) *nbd.Client {
			conf, port := filepath.Join(t.TempDir(), "conf"), freePort(t)
			require.NoError(t, os.WriteFile(conf, []byte(fmt.Sprintf(
				"[generic]\nlistenaddr = 127.0.0.1\nport = %s\n[disk]\nexportname = %s\nflush = true\nfua = true\ntrim = true\n", port, file)), 0o600))
			startTool(t, "nbd-server", "-d", "-C", conf)
			return dialSoon(t, &nbd.Dialer{}, "tcp", "127.0.0.1:"+port, "disk")
		}, nbd.Features{Write: true, Flush: true, Trim: true, Zero: true, Slow: true}},
		"go-nbd": {func(t *testing.T, file string) *nbd.Client {
			f, err := os.OpenFile(file, os.O_RDWR, 0)
			require.NoError(t, err)
			near, far := net.Pipe()
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				_ = goserver.Handle(far, []*goserver.Export{{Name: "disk", Backend: backend.NewFileBackend(f)}}, &goserver.Options{SupportsMultiConn: true})
			}()
			c, err := nbd.NewClient(t.Context(), near, "disk")
			require.NoError(t, err)
			t.Cleanup(func() { _ = c.Close(); <-ended; _ = f.Close() })
			return c
		}, nbd.Features{Write: true, Slow: true}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path, want := sparse(t)
			c := test.start(t, path)
			require.EqualValues(t, len(want), c.Size())
			require.False(t, c.ReadOnly())
			got := c.Features()
			got.FastZero, got.MultiConn, got.MinBlock, got.PreferredBlock = false, false, 0, 0 // as versions differ
			require.Equal(t, test.can, got)

			write := func(p []byte, off int64) {
				n, err := c.WriteAt(p, off)
				require.NoError(t, err)
				require.Equal(t, len(p), n)
				copy(want[off:], p)
			}
			write(bytes.Repeat([]byte{0x11}, 5000), 511)
			write(pattern(3 << 20)[1<<20:], 1<<20+4096) // over data, hole and data
			require.NoError(t, c.Sync())
			if test.can.Zero {
				require.NoError(t, c.Zero(1<<20, 64<<10, 0))
				require.NoError(t, c.Zero(5<<20+512, 1024, nbd.ZeroNoHole))
				clear(want[1<<20 : 1<<20+64<<10])
				clear(want[5<<20+512 : 5<<20+1536])
			} else {
				require.ErrorIs(t, c.Zero(0, 4096, 0), errors.ErrUnsupported)
			}
			if test.can.Trim {
				before := allocated(t, path)
				require.NoError(t, c.Trim(4<<20, 1<<20))
				require.NoError(t, c.Sync())
				if name == "nbd-server" { // 3.24 says yes and keeps the space
					write(make([]byte, 1<<20), 4<<20)
				} else {
					require.Less(t, allocated(t, path), before-900<<10, "nothing was given back")
					clear(want[4<<20 : 5<<20])
				}
			} else {
				require.ErrorIs(t, c.Trim(0, 4096), errors.ErrUnsupported)
			}
			if test.can.Cache {
				require.NoError(t, c.Cache(0, c.Size()))
			}
			extents := make([]nbd.Extent, 16)
			if test.can.Extents {
				n, err := c.Extents(3<<20+512<<10, c.Size()-3<<20-512<<10, extents)
				require.NoError(t, err)
				off := int64(3<<20 + 512<<10)
				for _, e := range extents[:n] {
					if e.Zero {
						require.Equal(t, make([]byte, e.Length), want[off:off+e.Length], "it says that there are zeroes")
					}
					off += e.Length
				}
				require.True(t, extents[n-1].Zero && off == c.Size(), "the hole at the end: %v", extents[:n])
			} else {
				_, err := c.Extents(0, 4096, extents)
				require.ErrorIs(t, err, errors.ErrUnsupported)
			}
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					if err := callAtRandom(c, want[i<<18:][:1<<18], int64(i)<<18, uint64(i)); err != nil {
						t.Errorf("caller %d: %v", i, err)
					}
				})
			}
			wg.Wait()
			read := make([]byte, len(want))
			_, err := c.ReadAt(read, 0)
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, read))
			_, err = c.ReadAt(read[:512], c.Size())
			require.ErrorIs(t, err, io.EOF)
			require.NoError(t, c.Sync())
			file, err := os.ReadFile(path)
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, file))
		})
	}
}

// An error that a server sends is that error, and the connection goes on.
func TestClientSeesPeersErrors(t *testing.T) {
	sock := filepath.Join(t.TempDir(), "s")
	startTool(t, "nbdkit", "-f", "-U", sock, "--filter=error", "memory", "1M",
		"error-pwrite=ENOSPC", "error-pwrite-rate=100%", "error-trim=EPERM", "error-trim-rate=100%")
	c := dialSoon(t, &nbd.Dialer{}, "unix", sock, "")
	for range 2 {
		_, err := c.WriteAt(make([]byte, 4096), 0)
		require.ErrorIs(t, err, syscall.ENOSPC)
		require.ErrorIs(t, c.Trim(0, 4096), syscall.EPERM)
		p := make([]byte, 4096)
		_, err = c.ReadAt(p, 0)
		require.NoError(t, err)
	}
}

// A server of ours passes on what a peer's server has, and so do its clients'
// trims and zeroes: one hop more changes nothing.
func TestPeerPassedOn(t *testing.T) {
	needTool(t, "nbdkit", "nbdcopy", "nbdinfo", "qemu-io")
	path, want := sparse(t)
	sock := filepath.Join(t.TempDir(), "s")
	startTool(t, "nbdkit", "-f", "-U", sock, "file", path)
	url := "nbd://" + serve(t, dialSoon(t, &nbd.Dialer{}, "unix", sock, "")) + "/"
	require.Regexp(t, `2097152 +2097152 +3 +hole,zero`, run(t, "nbdinfo", "--map", url))
	run(t, "qemu-io", "-f", "raw", "-d", "unmap", url, "-c", "write -P 0x77 1000 100000", "-c", "discard 4M 1M", "-c", "write -z 5M 64k", "-c", "flush")
	copy(want[1000:], bytes.Repeat([]byte{0x77}, 100000))
	clear(want[4<<20 : 5<<20+64<<10])
	out := filepath.Join(t.TempDir(), "copy")
	run(t, "nbdcopy", url, out)
	for _, name := range []string{out, path} {
		got, err := os.ReadFile(name)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got), name)
	}
}
