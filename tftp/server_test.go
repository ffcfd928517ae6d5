package tftp

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

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
	_, err := get(t, addr, "x")
	require.ErrorIs(t, err, fs.ErrNotExist)
}
