package tftp

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"testing/fstest"

	pin "github.com/pin/tftp/v3"
	"github.com/stretchr/testify/require"
)

func get(t testing.TB, addr netip.AddrPort, name string) ([]byte, error) {
	t.Helper()
	var b bytes.Buffer
	n, err := Get(context.Background(), addr.String(), name, &b)
	require.EqualValues(t, b.Len(), n)
	return b.Bytes(), err
}

// sizes are around the edges of blocks.
var sizes = []int{0, 1, 511, 512, 513, 1024, 1407, 1408, 1409, 100_000}

func TestRealClients(t *testing.T) { modes(t, testRealClients) }

func testRealClients(t *testing.T, one bool) {
	files := fstest.MapFS{}
	for _, n := range sizes {
		files[fmt.Sprint("f", n)] = &fstest.MapFile{Data: content(n)}
	}
	files["dir/f5"] = &fstest.MapFile{Data: content(5)}
	var res results
	addr := serve(t, &Server{Handler: FileServerFS(files), Trace: res.trace(), OnePort: one})

	dir := t.TempDir()
	run := func(t *testing.T, name string, args ...string) (string, error) {
		out, err := exec.Command(name, args...).CombinedOutput()
		return string(out), err
	}
	check := func(t *testing.T, name, file string, block, window int) {
		b, err := os.ReadFile(file)
		require.NoError(t, err)
		require.True(t, bytes.Equal(files[name].Data, b), "%s differs", name)
		got := res.next(t)
		require.NoError(t, got.Err)
		require.Equal(t, name, got.Name)
		require.EqualValues(t, len(files[name].Data), got.Bytes)
		require.Equal(t, got.Bytes, got.Size)
		require.Equal(t, block, got.BlockSize)
		require.Equal(t, window, got.WindowSize)
		require.Equal(t, "127.0.0.1", got.Peer.Addr().String())
		require.Equal(t, "127.0.0.1", got.Local.String())
	}

	t.Run("own", func(t *testing.T) {
		for name, f := range files {
			b, err := get(t, addr, "/"+name)
			require.NoError(t, err, name)
			require.True(t, bytes.Equal(f.Data, b), name)
			got := res.next(t)
			require.NoError(t, got.Err)
			require.Equal(t, 1408, got.BlockSize)
			require.Equal(t, len(f.Data) > 0, got.TSize)
			require.Equal(t, "/"+name, got.Raw)
		}
		_, err := get(t, addr, "none")
		require.ErrorIs(t, err, fs.ErrNotExist)
		require.ErrorIs(t, res.next(t).Err, fs.ErrNotExist)
	})
	t.Run("curl", func(t *testing.T) {
		curl := need(t, "curl")
		for name := range files {
			for _, blksize := range []int{512, 1468, 65464} {
				file := filepath.Join(dir, "curl")
				out, err := run(t, curl, "-sS", "--max-time", "60", "--tftp-blksize", strconv.Itoa(blksize), "-o", file, fmt.Sprintf("tftp://%s//%s", addr, name))
				require.NoError(t, err, out)
				if len(files[name].Data) == 0 {
					require.NoError(t, os.WriteFile(file, nil, 0o644)) // curl makes no file of nothing
				}
				check(t, name, file, blksize, 1)
			}
		}
		_, err := run(t, curl, "-sS", "--max-time", "60", fmt.Sprintf("tftp://%s/none", addr))
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
		require.Equal(t, 68, exit.ExitCode(), "CURLE_TFTP_NOTFOUND")
		require.ErrorIs(t, res.next(t).Err, fs.ErrNotExist)
		_, err = run(t, curl, "-sS", "--max-time", "60", "--path-as-is", fmt.Sprintf("tftp://%s//../../etc/passwd", addr))
		require.ErrorAs(t, err, &exit)
		require.Equal(t, 69, exit.ExitCode(), "CURLE_TFTP_PERM")
		require.ErrorIs(t, receive(t, res.refused), fs.ErrPermission)
		_, err = run(t, curl, "-sS", "--max-time", "60", "-T", filepath.Join(dir, "curl"), fmt.Sprintf("tftp://%s/upload", addr))
		require.ErrorAs(t, err, &exit)
		require.Equal(t, 69, exit.ExitCode(), "CURLE_TFTP_PERM")
		require.ErrorIs(t, receive(t, res.refused), fs.ErrPermission)
	})
	t.Run("busybox", func(t *testing.T) {
		busybox := need(t, "busybox")
		host, port := addr.Addr().String(), strconv.Itoa(int(addr.Port()))
		for name := range files {
			for _, blksize := range []int{0, 512, 1468, 16384} {
				file := filepath.Join(dir, "busybox")
				args := []string{"tftp", "-g", "-r", name, "-l", file}
				if blksize != 0 {
					args = append(args, "-b", strconv.Itoa(blksize))
				}
				out, err := run(t, busybox, append(args, host, port)...)
				require.NoError(t, err, out)
				check(t, name, file, max(512, blksize), 1)
			}
		}
		out, err := run(t, busybox, "tftp", "-g", "-r", "none", "-l", filepath.Join(dir, "none"), host, port)
		require.Error(t, err)
		require.Contains(t, out, "file not found")
		require.ErrorIs(t, res.next(t).Err, fs.ErrNotExist)
	})
	t.Run("tftp-hpa", func(t *testing.T) {
		hpa := need(t, "tftp")
		host, port := addr.Addr().String(), strconv.Itoa(int(addr.Port()))
		for name := range files {
			for _, mode := range []string{"octet", "netascii"} {
				file := filepath.Join(dir, "hpa")
				out, err := run(t, hpa, host, port, "-m", mode, "-c", "get", name, file)
				require.NoError(t, err, out)
				if mode == "octet" {
					check(t, name, file, 512, 1)
					continue
				}
				b, err := os.ReadFile(file)
				require.NoError(t, err)
				require.True(t, bytes.Equal(files[name].Data, b), "%s differs", name)
				require.NoError(t, res.next(t).Err)
			}
		}
		out, err := run(t, hpa, host, port, "-m", "octet", "-c", "get", "none", filepath.Join(dir, "none"))
		require.NoError(t, err) // it does not tell
		require.Contains(t, out, "file not found")
		require.ErrorIs(t, res.next(t).Err, fs.ErrNotExist)
	})
	t.Run("atftp", func(t *testing.T) {
		atftp := need(t, "atftp")
		host, port := addr.Addr().String(), strconv.Itoa(int(addr.Port()))
		for name := range files {
			for _, o := range []struct{ block, window int }{{512, 1}, {1468, 4}, {1000, 16}, {65464, 64}} {
				file := filepath.Join(dir, "atftp")
				require.NoError(t, os.RemoveAll(file))
				out, err := run(t, atftp, "--option", fmt.Sprint("blksize ", o.block), "--option", fmt.Sprint("windowsize ", o.window),
					"-g", "-r", name, "-l", file, host, port)
				require.NoError(t, err, out)
				check(t, name, file, o.block, o.window)
			}
		}
		_, err := run(t, atftp, "-g", "-r", "none", "-l", filepath.Join(dir, "none"), host, port)
		require.Error(t, err)
		require.ErrorIs(t, res.next(t).Err, fs.ErrNotExist)
	})
	t.Run("pin", func(t *testing.T) {
		c, err := pin.NewClient(addr.String())
		require.NoError(t, err)
		c.RequestTSize(true)
		for name := range files {
			for _, block := range []int{512, 1468, 65464} {
				c.SetBlockSize(block)
				r, err := c.Receive(name, "octet")
				require.NoError(t, err)
				f, err := os.Create(filepath.Join(dir, "pin"))
				require.NoError(t, err)
				_, err = r.WriteTo(f)
				require.NoError(t, err)
				require.NoError(t, f.Close())
				check(t, name, f.Name(), block, 1)
			}
		}
		_, err = c.Receive("none", "octet")
		require.ErrorContains(t, err, "file not found")
		require.ErrorIs(t, res.next(t).Err, fs.ErrNotExist)
	})
}
