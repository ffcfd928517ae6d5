package tftp

import (
	"bytes"
	"context"
	"maps"
	"net"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A service manager keeps the socket that it hands over. While the last
// transfers run, what still arrives there wakes nobody.
func TestDrainWithASharedSocket(t *testing.T) {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	kept, err := conn.File()
	require.NoError(t, err)
	defer kept.Close()
	addr := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	s := &Server{Handler: static(content(3000))}
	serveConn(t, s, conn)
	w := dial(t)
	w.send(addr, request(1, "x", "octet"))
	_, block, first := w.recv()
	require.EqualValues(t, 1, block)
	got := bytes.Clone(first)

	s.mu.Lock()
	e := slices.Collect(maps.Keys(s.listeners))[0].transport.(*epoll)
	s.mu.Unlock()
	p := e.pollers[0]
	p.mu.Lock()
	fd := int32(e.fd)
	p.mu.Unlock()
	over, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, s.Shutdown(over), context.Canceled)

	dial(t).send(addr, request(1, "x", "octet"))
	for range 100 {
		events := make([]unix.EpollEvent, 8)
		n, _ := unix.EpollWait(p.ep, events, 0)
		for _, ev := range events[:max(0, n)] {
			require.NotEqual(t, fd, ev.Fd)
		}
	}
	w.ack(1)
	require.True(t, bytes.Equal(content(3000), append(got, w.rest(2, 512)...)))
}
