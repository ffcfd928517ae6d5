package tftp

import (
	"bytes"
	"io/fs"
	"net"
	"net/netip"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

// wrapped is a conn that is no *net.UDPConn.
type wrapped struct{ net.PacketConn }

func TestServeOnAnyPacketConn(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	var res results
	serveConn(t, &Server{Handler: FileServerFS(fstest.MapFS{"f": {Data: content(5000)}}), Trace: res.trace()}, wrapped{conn})
	addr := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	b, err := get(t, addr, "f")
	require.NoError(t, err)
	require.Equal(t, content(5000), b)
	require.False(t, res.next(t).Local.IsValid())
	_, err = get(t, addr, "none")
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
		b, err := get(t, addr, "x")
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
		b, err := get(t, netip.AddrPortFrom(netip.MustParseAddr(host), addr.Port()), "x")
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
