package tftp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"
)

func fetch(t testing.TB, addr netip.AddrPort, name string) ([]byte, error) {
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
			b, err := fetch(t, addr, "/"+name)
			require.NoError(t, err, name)
			require.True(t, bytes.Equal(f.Data, b), name)
			got := res.next(t)
			require.NoError(t, got.Err)
			require.Equal(t, 1408, got.BlockSize)
			require.Equal(t, len(f.Data) > 0, got.TSize)
			require.Equal(t, "/"+name, got.Raw)
		}
		_, err := fetch(t, addr, "none")
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

func TestOptionsOnTheWire(t *testing.T) {
	file := content(3000)
	var res results
	addr := serve(t, &Server{Handler: static(file), Trace: res.trace(), MaxBlockSize: 1400})

	t.Run("in any case, and no others", func(t *testing.T) {
		w := dial(t)
		w.send(addr, request(1, "x", "OctET", "TSIZE", "0", "BlkSize", "1000", "windowsize", "4", "timeout", "3", "multicast", ""))
		op, _, oack := w.recv()
		require.EqualValues(t, 6, op)
		require.ElementsMatch(t, []string{"tsize", "3000", "blksize", "1000"}, strings.Split(strings.TrimSuffix(string(oack), "\x00"), "\x00"))
		require.NotEqual(t, addr.Port(), w.tid.Port(), "a transfer has its own port")
		w.ack(0)
		require.True(t, bytes.Equal(file, w.rest(1, 1000)))
		got := res.next(t)
		require.NoError(t, got.Err)
		require.Equal(t, 1000, got.BlockSize)
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
	_, err := fetch(t, addr, "x")
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
	_, err = fetch(t, addr, "out")
	require.ErrorIs(t, err, fs.ErrPermission)
	require.ErrorIs(t, res.next(t).Err, fs.ErrPermission)
	require.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
	require.Contains(t, log.String(), "target=/etc/passwd")
}

// shrunk is shorter than it says, or breaks.
type shrunk struct {
	data []byte
	err  error
}

func (s shrunk) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(s.data)) {
		if s.err == nil {
			panic("out of data")
		}
		return 0, s.err
	}
	n := copy(p, s.data[off:])
	if n < len(p) {
		return n, s.err
	}
	return n, nil
}

func TestFileBreaksInTheMiddle(t *testing.T) {
	for name, failure := range map[string]error{"shrunk": io.EOF, "broken": errors.New("/dev/sda: bad sector"), "panicking": nil} {
		t.Run(name, func(t *testing.T) {
			log := new(logBuffer)
			var res results
			addr := serve(t, &Server{
				Trace:  res.trace(),
				Logger: log.logger(slog.LevelWarn),
				Handler: HandlerFunc(func(context.Context, *Request) (File, error) {
					return NewFile(shrunk{content(1024), failure}, 5000, ""), nil
				}),
			})
			w := dial(t)
			w.send(addr, request(1, "x", "octet"))
			for b := uint16(1); b <= 2; b++ {
				op, n, data := w.recv()
				require.EqualValues(t, 3, op)
				require.Equal(t, b, n)
				require.Len(t, data, 512)
				w.ack(b)
			}
			op, _, msg := w.recv() // the file is not complete, and must not look it
			require.EqualValues(t, opERROR, op)
			require.Equal(t, errRead.Error()+"\x00", string(msg))
			got := res.next(t)
			require.Error(t, got.Err)
			if failure == io.EOF {
				require.ErrorIs(t, got.Err, io.ErrUnexpectedEOF)
			} else if failure != nil {
				require.ErrorIs(t, got.Err, failure)
			} else {
				require.ErrorContains(t, got.Err, "out of data")
			}
			require.EqualValues(t, 1024, got.Bytes)
			require.Contains(t, log.String(), "level=WARN")
		})
	}
}

func TestGrownFileIsCutAtItsSize(t *testing.T) {
	addr := serve(t, &Server{Handler: HandlerFunc(func(context.Context, *Request) (File, error) {
		return NewFile(bytes.NewReader(content(5000)), 1000, ""), nil
	})})
	b, err := fetch(t, addr, "x")
	require.NoError(t, err)
	require.Equal(t, content(1000), b)
}

func TestTransferLimit(t *testing.T) {
	for name, srv := range map[string]*Server{
		"total":    {MaxTransfers: 2},
		"per peer": {MaxTransfersPerPeer: 2},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGate(content(10))
			var opened atomic.Int32
			log := new(logBuffer)
			srv.Logger = log.logger(slog.LevelWarn)
			var res results
			srv.Trace = res.trace()
			srv.Handler = HandlerFunc(func(context.Context, *Request) (File, error) {
				opened.Add(1)
				return NewFile(struct{ io.ReaderAt }{g}, g.size, ""), nil
			})
			addr := serve(t, srv)
			var clients []*wire
			for range 2 {
				w := dial(t)
				w.send(addr, request(1, "x", "octet"))
				receive(t, g.entered)
				clients = append(clients, w)
			}
			late := dial(t)
			for range 3 {
				late.send(addr, request(1, "x", "octet"))
				require.ErrorIs(t, receive(t, res.refused), ErrLimit)
			}
			require.EqualValues(t, 2, opened.Load())
			require.Equal(t, 1, strings.Count(log.String(), "too many transfers"), "a warning, not a flood")
			close(g.leave)
			for _, w := range clients {
				require.Equal(t, content(10), w.rest(1, 512))
				require.NoError(t, res.next(t).Err)
			}
			// There is room once the first ones are done; that is told after their
			// Done, so the client has to repeat its request, as clients do.
			for {
				late.send(addr, request(1, "x", "octet"))
				select {
				case err := <-res.refused:
					require.ErrorIs(t, err, ErrLimit)
					continue
				case <-g.entered:
				}
				break
			}
			require.Equal(t, content(10), late.rest(1, 512))
		})
	}
}

func TestLimitFields(t *testing.T) {
	require.False(t, over(9, 0, 10))
	require.True(t, over(10, 0, 10))
	require.True(t, over(3, 3, 10))
	require.False(t, over(1<<40, -1, 10))
}

func TestRepeatedRequest(t *testing.T) {
	var opened atomic.Int32
	var res results
	addr := serve(t, &Server{Trace: res.trace(), Handler: HandlerFunc(func(context.Context, *Request) (File, error) {
		opened.Add(1)
		return NewFile(bytes.NewReader(content(2000)), 2000, ""), nil
	})})
	w := dial(t)
	req := request(1, "x", "octet")
	w.send(addr, req)
	_, _, data := w.recv()
	require.Equal(t, content(2000)[:512], data)
	first := w.tid
	w.send(addr, req) // the client did not see the answer yet
	require.ErrorIs(t, receive(t, res.refused), ErrDuplicate)
	require.EqualValues(t, 1, opened.Load())
	w.ack(1)
	_, block, _ := w.recv()
	require.EqualValues(t, 2, block)

	// The machine is reset and begins again from the same port: this is no
	// repetition.
	w.send(addr, req)
	for {
		op, block, data := w.recv()
		require.EqualValues(t, 3, op)
		if w.tid == first {
			continue // the old transfer repeats itself
		}
		require.EqualValues(t, 1, block)
		require.Equal(t, content(2000)[:512], data)
		break
	}
	require.EqualValues(t, 2, opened.Load())
}

// A request that failed may come again at once, from the same port.
func TestRepeatedFailure(t *testing.T) {
	addr := serve(t, &Server{})
	w := dial(t)
	for range 200 {
		w.send(addr, request(1, "missing", "octet"))
		w.fail(CodeNotFound, "file not found")
	}
}

func TestUnknownPeerGetsThreeDatagramsAtMost(t *testing.T) {
	for name, req := range map[string][]byte{"data": request(1, "x", "octet"), "oack": request(1, "x", "octet", "tsize", "0")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGate(content(5000))
			close(g.leave)
			var res results
			addr := serve(t, &Server{Trace: res.trace(), Timeout: 10 * time.Millisecond, Retries: 20,
				Handler: HandlerFunc(func(context.Context, *Request) (File, error) { return g, nil })})
			w := dial(t)
			w.send(addr, req)
			got := res.next(t)
			require.ErrorIs(t, got.Err, os.ErrDeadlineExceeded)
			require.Equal(t, 2, got.Resent)
			receive(t, g.closed)
			var datagrams int
			for {
				require.NoError(t, w.conn.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
				if _, err := w.conn.Read(make([]byte, 2000)); err != nil {
					break
				}
				datagrams++
			}
			require.Equal(t, 3, datagrams, "the first one and two repetitions")
		})
	}
}

func TestClientThatDiesLater(t *testing.T) {
	for _, retries := range []int{2, -1} {
		log := new(logBuffer)
		var res results
		addr := serve(t, &Server{Trace: res.trace(), Timeout: 10 * time.Millisecond, Retries: retries,
			Logger: log.logger(slog.LevelWarn), Handler: static(content(5000))})
		w := dial(t)
		w.send(addr, request(1, "x", "octet"))
		w.recv()
		w.ack(1)
		got := res.next(t)
		require.ErrorIs(t, got.Err, os.ErrDeadlineExceeded)
		require.EqualValues(t, 1024, got.Bytes)
		require.Contains(t, log.String(), "the client stopped answering", "a machine that stops in the middle is news")
	}
}

func TestLostPacketsAreSentAgain(t *testing.T) {
	var res results
	addr := serve(t, &Server{Trace: res.trace(), Timeout: 10 * time.Millisecond, Handler: static(content(1200))})
	w := dial(t)
	w.send(addr, request(1, "x", "octet"))
	var all []byte
	seen := map[uint16]int{}
	for len(all) < 1200 {
		op, block, data := w.recv()
		require.EqualValues(t, 3, op)
		if seen[block]++; seen[block] == 2 { // the first copy "is lost"
			all = append(all, data...)
			w.ack(block)
			w.ack(block) // a delayed acknowledgement twice must not double the traffic
		}
	}
	require.Equal(t, content(1200), all)
	got := res.next(t)
	require.NoError(t, got.Err)
	require.GreaterOrEqual(t, got.Resent, 3)
}

func TestShutdownDrains(t *testing.T) {
	g := newGate(content(1000))
	s := &Server{Logger: discard(), Handler: HandlerFunc(func(context.Context, *Request) (File, error) { return g, nil })}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(conn) }()
	addr := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	w := dial(t)
	w.send(addr, request(1, "x", "octet"))
	receive(t, g.entered)

	expired, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, s.Shutdown(expired), context.Canceled, "the transfer still runs")
	require.ErrorIs(t, receive(t, ended), ErrServerClosed)
	down := make(chan error, 1)
	go func() { down <- s.Shutdown(context.Background()) }()
	close(g.leave)
	require.Equal(t, content(1000), w.rest(1, 512))
	require.NoError(t, receive(t, down))
	receive(t, g.closed)

	require.ErrorIs(t, s.Serve(conn), ErrServerClosed)
	require.ErrorIs(t, s.ListenAndServe(), ErrServerClosed)
	require.NoError(t, s.Shutdown(context.Background()))
	require.NoError(t, s.Close())
}

func TestCloseCutsTransfersShort(t *testing.T) {
	var res results
	handlerLeft := make(chan error, 1)
	s := &Server{Logger: discard(), Trace: res.trace(), Timeout: 50 * time.Millisecond, Retries: 1000,
		Handler: HandlerFunc(func(ctx context.Context, r *Request) (File, error) {
			if r.Name == "slow" {
				<-ctx.Done()
				handlerLeft <- ctx.Err()
				return nil, ctx.Err()
			}
			return NewFile(bytes.NewReader(content(5000)), 5000, ""), nil
		})}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(conn) }()
	addr := conn.LocalAddr().(*net.UDPAddr).AddrPort()

	waiting, slow := dial(t), dial(t)
	waiting.send(addr, request(1, "x", "octet"))
	waiting.recv()
	waiting.ack(1)
	waiting.recv() // and no acknowledgement comes any more
	slow.send(addr, request(1, "slow", "octet"))

	// Close must find the slow request in its handler: it is after its own
	// second copy has been called a repetition.
	slow.send(addr, request(1, "slow", "octet"))
	require.ErrorIs(t, receive(t, res.refused), ErrDuplicate)

	require.NoError(t, s.Close())
	require.ErrorIs(t, receive(t, ended), ErrServerClosed)
	require.ErrorIs(t, receive(t, handlerLeft), context.Canceled)
	require.NoError(t, s.Shutdown(context.Background()))
	for range 2 {
		require.ErrorIs(t, res.next(t).Err, ErrServerClosed)
	}
	slow.fail(CodeUndefined, "server is shutting down")
}

func TestServeEndsWithABrokenSocket(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	conn.Close() // by its owner: no spinning, no silence
	err = (&Server{Logger: discard()}).Serve(conn)
	require.ErrorIs(t, err, net.ErrClosed)
	require.NotErrorIs(t, err, ErrServerClosed)

	conn, err = net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	log := new(logBuffer)
	boom := errors.New("boom")
	err = (&Server{Logger: log.logger(slog.LevelWarn)}).Serve(&failing{conn, boom})
	require.ErrorIs(t, err, boom)
	require.Equal(t, maxReadErrors-1, strings.Count(log.String(), "boom"))
}

type failing struct {
	net.PacketConn
	err error
}

func (f *failing) ReadFrom([]byte) (int, net.Addr, error) { return 0, nil, f.err }

func TestListenAndServeErrors(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer conn.Close()
	err = (&Server{Addr: conn.LocalAddr().String()}).ListenAndServe()
	require.ErrorContains(t, err, "address already in use: another TFTP server runs there")
	require.Error(t, (&Server{Addr: "nonsense"}).ListenAndServe())
}

// wrapped is a conn that is no *net.UDPConn.
type wrapped struct{ net.PacketConn }

func TestServeOnAnyPacketConn(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	var res results
	serveConn(t, &Server{Handler: FileServerFS(fstest.MapFS{"f": {Data: content(5000)}}), Trace: res.trace()}, wrapped{conn})
	addr := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	b, err := fetch(t, addr, "f")
	require.NoError(t, err)
	require.Equal(t, content(5000), b)
	require.False(t, res.next(t).Local.IsValid())
	_, err = fetch(t, addr, "none")
	require.ErrorIs(t, err, fs.ErrNotExist)

	w := dial(t) // nothing is known of the interface: Ethernet is assumed
	w.send(addr, request(1, "f", "octet", "blksize", "9000"))
	_, _, oack := w.recv()
	require.Equal(t, "blksize\x001468\x00", string(oack))
}

func TestSeveralListenersOneServer(t *testing.T) {
	s := &Server{Handler: static(content(600))}
	one, two := serve(t, s), serve(t, s)
	for _, addr := range []netip.AddrPort{one, two} {
		b, err := fetch(t, addr, "x")
		require.NoError(t, err)
		require.Equal(t, content(600), b)
	}
}

func TestIPv6AndDualStack(t *testing.T) {
	if conn, err := net.ListenPacket("udp6", "[::1]:0"); err != nil {
		cannot(t, "no IPv6 here")
	} else {
		conn.Close()
	}
	var res results
	addr := serveOn(t, &Server{Handler: static(content(3000)), Trace: res.trace()}, ":0")
	for _, host := range []string{"::1", "127.0.0.1"} {
		b, err := fetch(t, netip.AddrPortFrom(netip.MustParseAddr(host), addr.Port()), "x")
		require.NoError(t, err, host)
		require.Equal(t, content(3000), b)
		got := res.next(t)
		require.Equal(t, host, got.Peer.Addr().String())
		require.Equal(t, host, got.Local.String())
	}
}

// A client drops what comes from an address it did not ask.
func TestAnswersFromTheAddressAsked(t *testing.T) {
	var res results
	s := &Server{Trace: res.trace(), Handler: FileServerFS(fstest.MapFS{"f": {Data: content(200_000)}})}
	port := serveOn(t, s, "0.0.0.0:0").Port()
	if conn, err := net.ListenPacket("udp", "127.0.0.2:0"); err != nil {
		cannot(t, "127.0.0.2 is no address here")
	} else {
		conn.Close()
	}
	second := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), port)

	w := dial(t)
	w.send(second, request(1, "f", "octet", "tsize", "0", "blksize", "1400"))
	op, _, _ := w.recv()
	require.EqualValues(t, 6, op)
	require.Equal(t, second.Addr(), w.tid.Addr())
	w.ack(0)
	require.True(t, bytes.Equal(content(200_000), w.rest(1, 1400)))
	require.Equal(t, second.Addr(), w.tid.Addr())
	got := res.next(t)
	require.NoError(t, got.Err)
	require.Equal(t, second.Addr(), got.Local)
	require.Equal(t, w.addr(), got.Peer, "not the relay's")

	w = dial(t)
	w.send(second, request(1, "none", "octet"))
	w.fail(CodeNotFound, "file not found")
	require.Equal(t, second.Addr(), w.tid.Addr())
	require.Error(t, res.next(t).Err)

	w = dial(t) // and the last word of a transfer is not lost on the way
	w.send(second, request(1, "f", "octet", "tsize", "0"))
	w.recv()
	w.send(w.tid, append([]byte{0, 5, 0, 8}, "enough\x00"...))
	require.True(t, res.next(t).Probe)
}

func TestTraceOrder(t *testing.T) {
	var calls []string
	t.Cleanup(func() { require.Equal(t, []string{"request x", "open", "done"}, calls) }) // when the server has ended
	addr := serve(t, &Server{
		Handler: HandlerFunc(func(context.Context, *Request) (File, error) {
			calls = append(calls, "open")
			return nil, fs.ErrNotExist
		}),
		Trace: &Trace{
			Request: func(r *Request) { calls = append(calls, "request "+r.Name) },
			Done:    func(r *Request, res Result) { calls = append(calls, "done") },
		},
	})
	_, err := fetch(t, addr, "x")
	require.ErrorIs(t, err, fs.ErrNotExist)
}
