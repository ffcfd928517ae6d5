package tftp

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	pin "github.com/pin/tftp/v3"
	"github.com/stretchr/testify/require"
)

func uploads(t *testing.T, u *Uploads) (dir string) {
	t.Helper()
	dir = t.TempDir()
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	t.Cleanup(func() { root.Close() })
	u.Root = root
	return dir
}

// only asserts that a directory holds these files and nothing besides, no
// temporary ones above all.
func only(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	require.Equal(t, want, got)
}

func data(block uint16, b []byte) []byte {
	return append([]byte{0, opDATA, byte(block >> 8), byte(block)}, b...)
}

func (w *wire) acked(block uint16) {
	w.t.Helper()
	op, n, _ := w.recv()
	require.EqualValues(w.t, opACK, op)
	require.Equal(w.t, block, n)
}

func TestUpload(t *testing.T) {
	modes(t, func(t *testing.T, one bool) {
		u := &Uploads{}
		dir := uploads(t, u)
		var res results
		addr := serve(t, &Server{Handler: First(static(nil), u), Trace: res.trace(), OnePort: one})
		file := content(2500)

		w := dial(t) // in windows, with a loss and repetitions
		w.send(addr, request(opWRQ, "log", "octet", "blksize", "500", "windowsize", "2", "tsize", "2500"))
		op, _, oack := w.recv()
		require.EqualValues(t, opOACK, op)
		require.Equal(t, "tsize\x002500\x00blksize\x00500\x00windowsize\x002\x00", string(oack))
		w.send(w.tid, data(1, file[:500]))
		w.send(w.tid, data(2, file[500:1000]))
		w.acked(2)
		w.send(w.tid, data(4, file[1500:2000])) // 3 is lost
		w.acked(2)
		w.send(w.tid, data(3, file[1000:1500]))
		w.send(w.tid, data(3, file[1000:1500]))
		w.send(w.tid, data(4, file[1500:2000]))
		w.acked(4)
		w.send(w.tid, data(5, file[2000:]))
		w.send(w.tid, data(6, nil))
		w.acked(6)
		only(t, dir, "log")         // complete before the client knows
		w.send(w.tid, data(6, nil)) // the last acknowledgement was lost
		w.acked(6)
		got, err := os.ReadFile(filepath.Join(dir, "log"))
		require.NoError(t, err)
		require.True(t, bytes.Equal(file, got))
		r := res.next(t)
		require.NoError(t, r.Err)
		require.EqualValues(t, 2500, r.Bytes)
		require.EqualValues(t, 2500, r.UploadSize)

		w = dial(t)
		w.send(addr, request(opWRQ, "log", "octet"))
		w.fail(CodeFileExists, "file already exists")
		require.ErrorIs(t, res.next(t).Err, fs.ErrExist)

		w = dial(t) // a client that stops leaves nothing behind
		w.send(addr, request(opWRQ, "half", "octet"))
		w.acked(0)
		w.send(w.tid, data(1, file[:512]))
		w.acked(1)
		w.send(w.tid, (&Error{CodeDiskFull, "no more"}).encode())
		require.Equal(t, &Error{CodeDiskFull, "no more"}, res.next(t).Err)
		only(t, dir, "log")

		w = dial(t)
		w.send(addr, request(opWRQ, "../out", "octet"))
		w.fail(CodeAccessViolation, "access violation")
	})
}

// A block is only granted if it can be received: on loopback the path takes any.
func TestUploadOfLargeBlocks(t *testing.T) {
	modes(t, func(t *testing.T, one bool) {
		u := &Uploads{}
		dir := uploads(t, u)
		addr := serve(t, &Server{Handler: u, OnePort: one})
		w := dial(t)
		w.send(addr, request(opWRQ, "dump", "octet", "blksize", "8192"))
		op, _, oack := w.recv()
		require.EqualValues(t, opOACK, op)
		var o options
		o.parse(string(oack))
		if !one {
			require.Equal(t, 8192, o.blksize)
		}
		file := content(o.blksize + 100)
		w.send(w.tid, data(1, file[:o.blksize]))
		w.acked(1)
		w.send(w.tid, data(2, file[o.blksize:]))
		w.acked(2)
		got, err := os.ReadFile(filepath.Join(dir, "dump"))
		require.NoError(t, err)
		require.True(t, bytes.Equal(file, got))
	})
}

func TestUploadInNetascii(t *testing.T) {
	u := &Uploads{}
	dir := uploads(t, u)
	addr := serve(t, &Server{Handler: u})
	w := dial(t)
	w.send(addr, request(opWRQ, "log", "netascii", "blksize", "8"))
	w.recv()
	w.send(w.tid, data(1, []byte("one\r\ntwo")))
	w.acked(1)
	w.send(w.tid, data(2, []byte("\rthree\r")))
	w.acked(2)
	got, err := os.ReadFile(filepath.Join(dir, "log"))
	require.NoError(t, err)
	require.Equal(t, "one\ntwo\rthree\r", string(got))
}

func TestUploadLimits(t *testing.T) {
	u := &Uploads{MaxSize: 1000, Overwrite: true}
	dir := uploads(t, u)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a"), []byte("old"), 0o600))
	var res results
	addr := serve(t, &Server{Handler: u, Trace: res.trace()})

	w := dial(t) // says so
	w.send(addr, request(opWRQ, "a", "octet", "tsize", "1001"))
	w.fail(CodeDiskFull, "larger than this server takes")
	require.Error(t, res.next(t).Err)
	w = dial(t) // does not
	w.send(addr, request(opWRQ, "a", "octet"))
	w.acked(0)
	w.send(w.tid, data(1, content(512)))
	w.acked(1)
	w.send(w.tid, data(2, content(489)))
	w.fail(CodeDiskFull, "larger than this server takes")
	require.Error(t, res.next(t).Err)
	got, err := os.ReadFile(filepath.Join(dir, "a"))
	require.NoError(t, err)
	require.Equal(t, "old", string(got))
	only(t, dir, "a")

	w = dial(t)
	w.send(addr, request(opWRQ, "a", "netascii"))
	w.acked(0)
	w.send(w.tid, data(1, []byte("x\r\ny\r\x00")))
	w.acked(1)
	got, err = os.ReadFile(filepath.Join(dir, "a"))
	require.NoError(t, err)
	require.Equal(t, "x\ny\r", string(got))
	_, err = get(t, addr, "a")
	require.ErrorIs(t, err, fs.ErrNotExist, "it serves nothing")
}

// Strangers cannot fill the disk: with large files, with many at a time, or
// with small ones.
func TestUploadsTotal(t *testing.T) {
	u := &Uploads{MaxTotal: 20_200}
	dir := uploads(t, u)
	require.NoError(t, os.Mkdir(filepath.Join(dir, "sub"), 0o700))
	old := filepath.Join(dir, "sub", "old")
	require.NoError(t, os.WriteFile(old, content(8000), 0o600))
	var res results
	addr := serve(t, &Server{Handler: u, Trace: res.trace()})

	w := dial(t)
	w.send(addr, request(opWRQ, "large", "octet", "tsize", "12201"))
	w.fail(CodeDiskFull, "disk full")
	require.ErrorIs(t, res.next(t).Err, syscall.ENOSPC)

	one, two := dial(t), dial(t)
	for i, w := range []*wire{one, two} {
		w.send(addr, request(opWRQ, fmt.Sprint("f", i), "octet", "blksize", "4000"))
		w.recv()
		w.send(w.tid, data(1, content(4000)))
		w.acked(1)
	}
	one.send(one.tid, data(2, content(4000)))
	one.acked(2)
	two.send(two.tid, data(2, content(4000)))
	two.fail(CodeDiskFull, "disk full")
	require.ErrorIs(t, res.next(t).Err, syscall.ENOSPC)
	one.send(one.tid, data(3, nil))
	one.acked(3)
	one.send(one.tid, (&Error{CodeUndefined, ""}).encode()) // no need to wait for what is lost
	require.NoError(t, res.next(t).Err)
	only(t, dir, "f0", "sub")

	empty := func(name string, fits bool) {
		w := dial(t)
		w.send(addr, request(opWRQ, name, "octet"))
		if !fits {
			w.fail(CodeDiskFull, "disk full")
			return
		}
		w.acked(0)
		w.send(w.tid, data(1, nil))
		w.acked(1)
	}
	empty("empty1", true)
	empty("empty2", false)
	require.NoError(t, os.Remove(old))
	empty("empty2", true)
	empty("empty3", false)
	only(t, dir, "empty1", "empty2", "f0", "sub")
}

func TestUploadWithRealClients(t *testing.T) {
	u := &Uploads{}
	dir := uploads(t, u)
	addr := serve(t, &Server{Handler: u})
	for _, n := range sizes {
		src := filepath.Join(t.TempDir(), "src")
		require.NoError(t, os.WriteFile(src, content(n), 0o600))
		host, port := addr.Addr().String(), fmt.Sprint(addr.Port())
		for tool, args := range map[string][]string{
			"curl":    {"-sS", "--max-time", "60", "-T", src, fmt.Sprintf("tftp://%s/curl%d", addr, n)},
			"busybox": {"tftp", "-p", "-b", "1000", "-l", src, "-r", fmt.Sprint("busybox", n), host, port},
			"tftp":    {host, port, "-m", "octet", "-c", "put", src, fmt.Sprint("tftp", n)},
			"atftp":   {"--option", "blksize 1000", "--option", "windowsize 4", "-p", "-l", src, "-r", fmt.Sprint("atftp", n), host, port},
		} {
			out, err := exec.Command(need(t, tool), args...).CombinedOutput()
			require.NoError(t, err, string(out))
			got, err := os.ReadFile(filepath.Join(dir, fmt.Sprint(tool, n)))
			require.NoError(t, err, string(out))
			require.True(t, bytes.Equal(content(n), got), "%s %d", tool, n)
		}
		c, err := pin.NewClient(addr.String())
		require.NoError(t, err)
		c.SetBlockSize(1000)
		w, err := c.Send(fmt.Sprint("pin", n), "octet")
		require.NoError(t, err)
		_, err = w.ReadFrom(bytes.NewReader(content(n)))
		require.NoError(t, err)
		got, err := os.ReadFile(filepath.Join(dir, fmt.Sprint("pin", n)))
		require.NoError(t, err)
		require.True(t, bytes.Equal(content(n), got))
	}
}
