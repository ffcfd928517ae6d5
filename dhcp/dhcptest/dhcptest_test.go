package dhcptest_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/dhcp/dhcptest"
	"github.com/stretchr/testify/require"
)

func TestNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n dhcptest.Network
		server := n.Listen(netip.MustParseAddrPort("10.0.0.1:67"))
		a, b := n.Listen(netip.MustParseAddrPort("0.0.0.0:68")), n.Listen(netip.MustParseAddrPort("10.0.0.2:68"))
		send := func(c net.PacketConn, text, to string) {
			count, err := c.WriteTo([]byte(text), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)))
			require.NoError(t, err)
			require.Equal(t, len(text), count)
		}
		receive := func(c net.PacketConn) string {
			buf := make([]byte, 100)
			count, from, err := c.ReadFrom(buf)
			require.NoError(t, err)
			return fmt.Sprintf("%s from %v", buf[:count], from)
		}
		send(a, "hello", "255.255.255.255:67")
		require.Equal(t, "hello from 0.0.0.0:68", receive(server))
		send(server, "all", "255.255.255.255:68")
		require.Equal(t, "all from 10.0.0.1:67", receive(a))
		require.Equal(t, "all from 10.0.0.1:67", receive(b))
		send(server, "one", "10.0.0.2:68")
		require.Equal(t, "one from 10.0.0.1:67", receive(b))

		began := time.Now()
		require.NoError(t, a.SetDeadline(began.Add(time.Minute)))
		_, _, err := a.ReadFrom(make([]byte, 10))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, time.Minute, time.Since(began))

		require.NoError(t, a.SetReadDeadline(time.Time{}))
		ended := make(chan error)
		go func() { _, _, err := a.ReadFrom(make([]byte, 10)); ended <- err }()
		synctest.Wait()
		require.NoError(t, a.SetReadDeadline(time.Unix(1, 0))) // wakes a reader that waits
		require.ErrorIs(t, <-ended, os.ErrDeadlineExceeded)

		go func() { _, _, err := b.ReadFrom(make([]byte, 10)); ended <- err }()
		synctest.Wait()
		require.NoError(t, b.Close())
		require.ErrorIs(t, <-ended, net.ErrClosed)
		require.ErrorIs(t, b.Close(), net.ErrClosed)
		_, err = b.WriteTo(nil, server.LocalAddr())
		require.ErrorIs(t, err, net.ErrClosed)
		_, err = server.WriteTo(nil, &net.UnixAddr{})
		require.ErrorIs(t, err, errors.ErrUnsupported)
	})
}

func ExampleNetwork() {
	var network dhcptest.Network
	pool := &dhcp.Pool{
		Prefix:   netip.MustParsePrefix("198.51.100.0/24"),
		Ranges:   []dhcp.Range{{First: dhcptest.Addr(50), Last: dhcptest.Addr(50)}},
		ServerID: dhcptest.Addr(1),
	}
	server := &dhcp.Server{Handler: pool}
	go server.Serve(network.Listen(netip.MustParseAddrPort("198.51.100.1:67")))
	defer server.Close()

	client := &dhcp.Client{
		Conn:         network.Listen(netip.MustParseAddrPort("0.0.0.0:68")),
		Server:       &net.UDPAddr{IP: net.IPv4bcast, Port: 67},
		HardwareAddr: dhcptest.HardwareAddr(7),
		Retry:        10 * time.Millisecond, // the server may not be there yet
	}
	ack, err := client.Exchange(context.Background())
	fmt.Println(ack.Addr, err)
	// Output: 198.51.100.50/24 <nil>
}
