package tftp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// peer answers the datagrams of one client with a script.
func peer(t *testing.T, script ...string) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 2000)
		for _, answer := range script {
			_, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = conn.WriteToUDPAddrPort([]byte(answer), from)
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

func TestGet(t *testing.T) {
	ctx := context.Background()
	var b bytes.Buffer

	// A server without options.
	n, err := Get(ctx, peer(t, "\x00\x03\x00\x01hello").String(), "x", &b)
	require.NoError(t, err)
	require.EqualValues(t, 5, n)
	require.Equal(t, "hello", b.String())

	// One that sends less than it said.
	_, err = Get(ctx, peer(t, "\x00\x06tsize\x005000\x00blksize\x00600\x00", "\x00\x03\x00\x01hello").String(), "x", io.Discard)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)

	// One that changes its mind.
	_, err = Get(ctx, peer(t, "\x00\x06tsize\x005000\x00", "\x00\x05\x00\x02no: \x1b[1mreally\x00").String(), "x", io.Discard)
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, Error{CodeAccessViolation, "no: [1mreally"}, *e)
	require.ErrorIs(t, err, fs.ErrPermission)
	require.ErrorContains(t, err, `get "x" from 127.0.0.1:`)

	// One that does not know the protocol.
	for _, junk := range []string{"", "\x00", "\x00\x03", "\x00\x05\x00\x00", "\x09\x09\x00\x00", "\x00\x06\x00\x00"} {
		_, err = Get(ctx, peer(t, junk, "\x00\x05\x00\x00end\x00", "\x00\x05\x00\x00end\x00").String(), "x", io.Discard)
		require.Error(t, err, "%q", junk)
	}
}

type broken struct{ err error }

func (b broken) Write([]byte) (int, error) { return 0, b.err }

func TestGetRefuses(t *testing.T) {
	addr := serve(t, &Server{Handler: static(content(5000))})
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := Get(canceled, addr.String(), "x", io.Discard)
	require.ErrorIs(t, err, context.Canceled)

	ctx, cancel := context.WithCancel(context.Background())
	var b bytes.Buffer
	n, err := Get(ctx, addr.String(), "x", writerFunc(func(p []byte) (int, error) { cancel(); return b.Write(p) }))
	require.ErrorIs(t, err, context.Canceled)
	require.EqualValues(t, clientBlock, n)

	full := errors.New("disk full, error code: 5, message: not from the peer")
	_, err = Get(context.Background(), addr.String(), "x", broken{full})
	require.ErrorIs(t, err, full)

	for _, name := range []string{strings.Repeat("x", 449), "a\x00octet\x00b"} {
		_, err = Get(context.Background(), addr.String(), name, io.Discard)
		require.ErrorIs(t, err, fs.ErrInvalid)
	}
	_, err = Get(context.Background(), "a host with spaces", "x", io.Discard)
	require.Error(t, err)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// A server that knows its clients by their addresses is asked from the right
// one.
func TestClientLocal(t *testing.T) {
	local := netip.MustParseAddr("127.0.67.1")
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	require.NoError(t, err)
	s := &Server{Handler: HandlerFunc(func(_ context.Context, r *Request) (File, error) {
		from := r.Peer.Addr().String()
		return NewFile(strings.NewReader(from), int64(len(from)), ""), nil
	})}
	go func() { _ = s.Serve(conn) }()
	defer s.Close()
	var got strings.Builder
	_, err = Client{Local: local}.Get(t.Context(), conn.LocalAddr().String(), "who", &got)
	require.NoError(t, err)
	require.Equal(t, local.String(), got.String())
}
