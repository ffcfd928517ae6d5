package tftp

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"math"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

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

// Forged requests that nobody answers do not keep a client out.
func TestForgedRequestsMakeRoom(t *testing.T) {
	s := &Server{Handler: First(static(content(100_000)), &memUploads{}), MaxTransfers: 10, MaxTransfersPerPeer: -1}
	inBubble(t, s, func(t *testing.T, l *lab) {
		one := l.port
		l.send(request(1, "x", "octet"))
		l.send(ackPacket(1)) // this one is there
		for i := range 9 {
			l.port++
			l.send(request(byte(1+i%2), "x", "octet"))
		}
		l.sent()
		l.port++
		l.send(request(1, "x", "octet"))
		require.Empty(t, l.sent(), "they may be slow")
		require.ErrorIs(t, receive(t, l.res.refused), ErrLimit)
		l.after(defaultTimeout) // of an upload; a transfer has waited for less
		for range 9 {
			l.port++
			l.send(request(1, "x", "octet"))
			require.Equal(t, []int{1}, l.sent())
			l.send(ackPacket(1))
			require.Equal(t, []int{2}, l.sent())
			require.ErrorIs(t, l.res.next(t).Err, os.ErrDeadlineExceeded)
		}
		l.port++
		l.send(request(1, "x", "octet"))
		require.ErrorIs(t, receive(t, l.res.refused), ErrLimit, "all are there")
		l.sent()
		l.port = one
		l.send(ackPacket(2))
		require.Equal(t, []int{3}, l.sent())
		s.mu.Lock()
		require.Equal(t, 10, s.admission.total)
		s.mu.Unlock()
	})
}

func TestLimitFields(t *testing.T) {
	require.False(t, over(9, 0, 10))
	require.True(t, over(10, 0, 10))
	require.True(t, over(3, 3, 10))
	require.False(t, over(math.MaxInt, -1, 10))
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
	for {
		w.send(addr, req)
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
	w.ack(1)
	require.ErrorIs(t, res.next(t).Err, errGone, "the old transfer")
}

// The network delivers a request again when its transfer is on its way, and
// stalled for a while: the client does not want another one, and keeps the first.
func TestLateCopyOfARequest(t *testing.T) {
	var res results
	file := content(2000)
	addr := serve(t, &Server{Trace: res.trace(), Handler: static(file)})
	w := dial(t)
	req := request(1, "x", "octet")
	w.send(addr, req)
	w.recv()
	first := w.tid
	w.ack(1)
	w.recv()
	for w.tid == first {
		w.send(addr, req)
		w.recv()
	}
	w.send(w.tid, (&Error{CodeUnknownTID, "not mine"}).encode())
	require.Equal(t, &Error{CodeUnknownTID, "not mine"}, res.next(t).Err)

	w.tid = first
	for want := uint16(3); want <= 4; want++ {
		w.ack(want - 1)
		op, n, data := w.recv()
		for n < want { // sent again meanwhile
			op, n, data = w.recv()
		}
		require.EqualValues(t, opDATA, op)
		require.Equal(t, file[512*int(want-1):min(512*int(want), len(file))], data)
	}
	w.ack(4)
	require.NoError(t, res.next(t).Err)
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
