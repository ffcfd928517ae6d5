package dhcp

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/require"
)

// A server that is for one interface does not hear another, whatever socket it
// was given.
func TestSocketForeignInterface(t *testing.T) {
	lo := loopbackInterface(t)
	for _, test := range []struct {
		names   []string
		foreign bool
	}{{nil, false}, {[]string{lo}, false}, {[]string{"eth-other", lo}, false}, {[]string{"eth-other"}, true}} {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		require.NoError(t, err)
		defer conn.Close()
		sock := newSocket(conn, test.names)
		require.NotNil(t, sock.udp, "no packet information")
		_, err = conn.WriteTo([]byte("hello"), conn.LocalAddr())
		require.NoError(t, err)
		buf := make([]byte, 100)
		n, from, err := sock.read(buf)
		require.NoError(t, err)
		require.Equal(t, "hello", string(buf[:n]))
		require.Equal(t, test.foreign, from.foreign)
		require.Equal(t, lo, from.link.iface.Name)
		require.Contains(t, from.link.addrs, ip("127.0.0.1"))
		require.Same(t, from.link, sock.lookup(from.link.iface.Index), "remembered")

		asked := false
		server := &Server{Handler: HandlerFunc(func(context.Context, *Request) (*dhcpv4.DHCPv4, error) {
			asked = true
			return nil, nil
		})}
		server.handle(t.Context(), new(capture), append(message(discover, macA, bareSystem).ToBytes(), 0), from)
		require.Equal(t, !test.foreign, asked)
	}
	require.Nil(t, (&socket{links: map[int]*link{}}).lookup(1<<30), "an interface that is gone")
}

func loopbackInterface(t *testing.T) string {
	interfaces, err := net.Interfaces()
	require.NoError(t, err)
	for _, i := range interfaces {
		if i.Flags&net.FlagLoopback != 0 {
			return i.Name
		}
	}
	t.Fatal("no loopback interface")
	return ""
}

func TestTemporary(t *testing.T) {
	for err, want := range map[error]bool{
		syscall.ENETDOWN: true, syscall.ENOBUFS: true, syscall.ECONNREFUSED: true, os.ErrDeadlineExceeded: true,
		net.ErrClosed: false, io.EOF: false, syscall.EBADF: false, errors.New("other"): false,
	} {
		require.Equal(t, want, temporary(&net.OpError{Op: "read", Err: err}), err)
	}
}

func TestAddresses(t *testing.T) {
	require.Equal(t, netip.Addr{}, toAddr(nil))
	require.Equal(t, netip.Addr{}, toAddr(net.IPv4zero))
	require.Equal(t, netip.Addr{}, toAddr(net.IP{1, 2}))
	require.Equal(t, ip("10.0.0.1"), toAddr(net.IPv4(10, 0, 0, 1)))
	require.Nil(t, toIP(netip.Addr{}))
	require.Equal(t, netip.AddrPort{}, addrPort(&net.UnixAddr{}))
	require.Equal(t, "10.0.0.1:67", addrPort(&net.UDPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 67}).String())
}
