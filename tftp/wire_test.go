package tftp

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestOptionsOnTheWire(t *testing.T) {
	file := content(3000)
	var res results
	addr := serve(t, &Server{Handler: static(file), Trace: res.trace(), MaxBlockSize: 1400})

	t.Run("in any case, and no others", func(t *testing.T) {
		w := dial(t)
		w.send(addr, request(1, "x", "OctET", "TSIZE", "0", "BlkSize", "1000", "windowsize", "4", "timeout", "3", "multicast", ""))
		op, _, oack := w.recv()
		require.EqualValues(t, 6, op)
		require.ElementsMatch(t, []string{"tsize", "3000", "blksize", "1000", "windowsize", "4", "timeout", "3"}, strings.Split(strings.TrimSuffix(string(oack), "\x00"), "\x00"))
		require.NotEqual(t, addr.Port(), w.tid.Port(), "a transfer has its own port")
		w.ack(0)
		for want := uint16(1); want <= 4; want++ { // one window, and the end of the file in it
			op, n, data := w.recv()
			require.EqualValues(t, 3, op)
			require.Equal(t, want, n)
			require.Equal(t, file[1000*(want-1):min(3000, 1000*int(want))], data)
		}
		w.ack(4)
		got := res.next(t)
		require.NoError(t, got.Err)
		require.Equal(t, 1000, got.BlockSize)
		require.Equal(t, 4, got.WindowSize)
		require.Equal(t, 3*time.Second, got.Timeout)
		require.Positive(t, got.RTT)
		require.Zero(t, got.Resent)
	})
	t.Run("blksize is bounded", func(t *testing.T) {
		w := dial(t)
		w.send(addr, request(1, "x", "octet", "blksize", "65464"))
		_, _, oack := w.recv()
		require.Equal(t, "blksize\x001400\x00", string(oack))
		w.ack(0)
		require.True(t, bytes.Equal(file, w.rest(1, 1400)))
		require.NoError(t, res.next(t).Err)
	})
	t.Run("none", func(t *testing.T) {
		w := dial(t)
		w.send(addr, request(1, "x", "octet"))
		require.True(t, bytes.Equal(file, w.rest(1, 512)))
		got := res.next(t)
		require.NoError(t, got.Err)
		require.Equal(t, 512, got.BlockSize)
		require.False(t, got.TSize)
	})
	t.Run("a size probe is no failure", func(t *testing.T) {
		for _, code := range []byte{8, 0} {
			w := dial(t)
			w.send(addr, request(1, "x", "octet", "tsize", "0", "blksize", "1400"))
			op, _, _ := w.recv()
			require.EqualValues(t, 6, op)
			w.send(w.tid, append([]byte{0, 5, 0, code}, "TFTP Aborted\x00"...))
			got := res.next(t)
			require.NoError(t, got.Err)
			require.True(t, got.Probe)
			require.EqualValues(t, 3000, got.Size)
			require.Zero(t, got.Bytes)
		}
	})
	t.Run("a client that changes its mind later", func(t *testing.T) {
		w := dial(t)
		w.send(addr, request(1, "x", "octet", "tsize", "0"))
		w.recv()
		w.ack(0)
		w.recv()
		w.send(w.tid, append([]byte{0, 5, 0, 3}, "disk: full\x00"...))
		got := res.next(t)
		require.False(t, got.Probe)
		require.Equal(t, &Error{CodeDiskFull, "disk: full"}, got.Err)
	})
}

func TestEmptyFileHasNoSize(t *testing.T) {
	var res results
	addr := serve(t, &Server{Handler: static(nil), Trace: res.trace()})
	w := dial(t)
	w.send(addr, request(1, "x", "octet", "tsize", "0", "blksize", "1000"))
	op, _, oack := w.recv()
	require.EqualValues(t, 6, op)
	require.Equal(t, "blksize\x001000\x00", string(oack))
	w.ack(0)
	require.Empty(t, w.rest(1, 1000))
	require.False(t, res.next(t).TSize)

	w = dial(t)
	w.send(addr, request(1, "x", "octet", "tsize", "0"))
	require.Empty(t, w.rest(1, 512))
	require.NoError(t, res.next(t).Err)
}

func TestNetascii(t *testing.T) {
	addr := serve(t, &Server{Handler: static([]byte("a\nb\r\n"))})
	w := dial(t)
	w.send(addr, request(1, "x", "NetASCII", "tsize", "0"))
	require.Equal(t, "a\r\nb\r\x00\r\n", string(w.rest(1, 512)))
}

func TestLargeBlocksAndRollover(t *testing.T) {
	if testing.Short() {
		t.Skip("sends 33 MiB in blocks of 512 bytes")
	}
	file := content(65537*512 + 5)
	var res results
	addr := serve(t, &Server{Handler: static(file), Trace: res.trace()})
	w := dial(t)
	w.send(addr, request(1, "x", "octet"))
	require.True(t, bytes.Equal(file, w.rest(1, 512)))
	require.NoError(t, res.next(t).Err)

	w = dial(t) // the MTU of the loopback allows what RFC 2348 does
	w.send(addr, request(1, "x", "octet", "blksize", "65464"))
	_, _, oack := w.recv()
	require.Equal(t, "blksize\x0065464\x00", string(oack))
	w.ack(0)
	require.True(t, bytes.Equal(file, w.rest(1, 65464)))
}

func TestErrorsOnTheWire(t *testing.T) {
	secret := &fs.PathError{Op: "open", Path: "/srv/private/key", Err: errors.New("input/output error")}
	log := new(logBuffer)
	var res results
	addr := serve(t, &Server{
		Logger: log.logger(slog.LevelWarn),
		Trace:  res.trace(),
		Handler: HandlerFunc(func(_ context.Context, r *Request) (File, error) {
			switch r.Name {
			case "nil":
				return nil, nil
			case "perm":
				return nil, &fs.PathError{Op: "open", Path: "/srv/unreadable", Err: fs.ErrPermission}
			case "broken":
				return nil, secret
			case "own":
				return nil, &Error{CodeNoSuchUser, "ask\x00 later"}
			case "panic":
				panic("/srv/private")
			case "size":
				return NewFile(strings.NewReader(""), -1, ""), nil
			}
			return nil, fs.ErrNotExist
		}),
	})
	const internal = "internal error, see the server's log"
	for _, c := range []struct {
		name string
		code Code
		msg  string
	}{
		{"missing", CodeNotFound, "file not found"},
		{"nil", CodeNotFound, "file not found"},
		{"perm", CodeAccessViolation, "access violation"},
		{"broken", CodeUndefined, internal},
		{"own", CodeNoSuchUser, "ask later"},
		{"panic", CodeUndefined, internal},
		{"size", CodeUndefined, internal},
	} {
		w := dial(t)
		w.send(addr, request(1, c.name, "octet", "tsize", "0"))
		w.fail(c.code, c.msg)
		require.Error(t, res.next(t).Err, c.name)
	}
	for _, raw := range escapes {
		w := dial(t)
		w.send(addr, request(1, raw, "octet"))
		w.fail(CodeAccessViolation, "access violation")
		require.ErrorIs(t, receive(t, res.refused), fs.ErrPermission, raw)
	}
	for _, c := range []struct {
		b    []byte
		code Code
		msg  string
	}{
		{request(2, "upload", "octet"), CodeAccessViolation, "this server accepts no uploads"},
		{request(1, "x", "mail"), CodeIllegal, "unsupported transfer mode"},
		{request(1, strings.Repeat("x", 511), "octet"), CodeIllegal, "request longer than 512 bytes"},
		{request(1, strings.Repeat("x", 60000), "octet"), CodeIllegal, "request longer than 512 bytes"},
		{[]byte("\x00\x01half"), CodeIllegal, "malformed request"},
	} {
		w := dial(t)
		w.send(addr, c.b)
		w.fail(c.code, c.msg)
		var e *Error
		require.ErrorAs(t, receive(t, res.refused), &e)
		require.Equal(t, c.code, e.Code)
	}
	out := log.String()
	for _, want := range []string{"/srv/unreadable", "/srv/private/key", "input/output error", "handler panicked", `../etc/passwd`} {
		require.Contains(t, out, want, "the operator must see it")
	}
	require.NotContains(t, out, "name=missing")
	require.NotContains(t, out, "uploads")
}

func TestNoHandler(t *testing.T) {
	addr := serve(t, &Server{})
	_, err := get(t, addr, "x")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestDirIsLoggedOnce(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Symlink("/etc/passwd", filepath.Join(dir, "out")))
	log := new(logBuffer)
	d, err := Dir(dir, log.logger(slog.LevelWarn))
	require.NoError(t, err)
	defer d.Close()
	var res results
	addr := serve(t, &Server{Handler: FileServerFS(Union(Mount{FS: d})), Logger: log.logger(slog.LevelWarn), Trace: res.trace()})
	_, err = get(t, addr, "out")
	require.ErrorIs(t, err, fs.ErrPermission)
	require.ErrorIs(t, res.next(t).Err, fs.ErrPermission)
	require.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
	require.Contains(t, log.String(), "target=/etc/passwd")
}
