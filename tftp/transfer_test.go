package tftp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

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
			require.Equal(t, errRead.Message+"\x00", string(msg))
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
	b, err := get(t, addr, "x")
	require.NoError(t, err)
	require.Equal(t, content(1000), b)
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
