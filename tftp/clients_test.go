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

func TestRealClients(t *testing.T) {
	files := fstest.MapFS{}
	for _, n := range sizes {
		files[fmt.Sprint("f", n)] = &fstest.MapFile{Data: content(n)}
	}
	files["dir/f5"] = &fstest.MapFile{Data: content(5)}
	var res results
	addr := serve(t, &Server{Handler: FileServerFS(files), Trace: res.trace()})

	dir := t.TempDir()
	run := func(t *testing.T, name string, args ...string) (string, error) {
		out, err := exec.Command(name, args...).CombinedOutput()
		return string(out), err
	}
	check := func(t *testing.T, name, file string) {
		b, err := os.ReadFile(file)
		require.NoError(t, err)
		require.True(t, bytes.Equal(files[name].Data, b), "%s differs", name)
		got := res.next(t)
		require.NoError(t, got.Err)
		require.Equal(t, name, got.Name)
		require.EqualValues(t, len(files[name].Data), got.Bytes)
		require.Equal(t, got.Bytes, got.Size)
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
			for _, blksize := range []string{"512", "1468", "65464"} {
				file := filepath.Join(dir, "curl")
				out, err := run(t, curl, "-sS", "--max-time", "60", "--tftp-blksize", blksize, "-o", file, fmt.Sprintf("tftp://%s//%s", addr, name))
				require.NoError(t, err, out)
				if len(files[name].Data) == 0 {
					require.NoError(t, os.WriteFile(file, nil, 0o644)) // curl makes no file of nothing
				}
				check(t, name, file)
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
			for _, blksize := range []string{"", "512", "1468", "16384"} {
				file := filepath.Join(dir, "busybox")
				args := []string{"tftp", "-g", "-r", name, "-l", file}
				if blksize != "" {
					args = append(args, "-b", blksize)
				}
				out, err := run(t, busybox, append(args, host, port)...)
				require.NoError(t, err, out)
				check(t, name, file)
			}
		}
		out, err := run(t, busybox, "tftp", "-g", "-r", "none", "-l", filepath.Join(dir, "none"), host, port)
		require.Error(t, err)
		require.Contains(t, out, "file not found")
		require.ErrorIs(t, res.next(t).Err, fs.ErrNotExist)
	})
}
