package dhcp

import (
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/require"
)

// Of replies that are sent together one that cannot be sent costs no other.
func TestBatchOneFails(t *testing.T) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer conn.Close()
	client, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer client.Close()
	sock := newSocket(conn, nil)
	require.NotNil(t, sock.outBatch)
	var sent, failed int
	server := &Server{Logger: slog.New(slog.DiscardHandler), Trace: &Trace{
		Reply:   func(*Request, *dhcpv4.DHCPv4, netip.AddrPort) { sent++ },
		NoReply: func(_ *Request, err error) { require.Error(t, err); failed++ },
	}}
	r := on(message(discover, macA, bareSystem))
	const n = 3*batchSize + 1
	var list []outgoing
	for i := range n {
		to := client.LocalAddr().(*net.UDPAddr).AddrPort()
		if i%batchSize == 5 {
			to = netip.AddrPortFrom(to.Addr(), 0) // which nothing can be sent to
		}
		list = append(list, outgoing{s: server, request: r, reply: r.DHCPv4, data: []byte{byte(i)}, to: to})
	}
	sock.writeAll(list)
	require.Equal(t, 3, failed)
	require.Equal(t, n-3, sent)
	got := make(map[byte]bool)
	require.NoError(t, client.SetReadDeadline(time.Now().Add(30*time.Second)))
	for range n - 3 {
		var b [10]byte
		_, _, err := client.ReadFrom(b[:])
		require.NoError(t, err)
		got[b[0]] = true
	}
	require.Len(t, got, n-3)
}

// Many that come at once are all read, in whatever pieces.
func TestBatchReads(t *testing.T) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer conn.Close()
	sock := newSocket(conn, nil)
	require.NotNil(t, sock.inBatch)
	const n = batchSize + 5
	for i := range n {
		_, err := conn.WriteTo([]byte{byte(i), 1}[:1+i%2], conn.LocalAddr())
		require.NoError(t, err)
	}
	batch := make([]*datagram, batchSize)
	for i := range batch {
		batch[i] = new(datagram)
	}
	for got := 0; got < n; {
		m, err := sock.receive(batch)
		require.NoError(t, err)
		for _, d := range batch[:m] {
			require.Equal(t, 1+got%2, d.n)
			require.Equal(t, byte(got), d.buf[0])
			require.Equal(t, conn.LocalAddr().String(), d.from.peer.String())
			require.Equal(t, conn.LocalAddr().String(), d.from.local.String())
			require.NotNil(t, d.from.link)
			got++
		}
	}
	require.NoError(t, conn.SetReadDeadline(time.Unix(1, 0)))
	_, err = sock.receive(batch)
	require.True(t, temporary(err), "%v", err)
}

// Each reply is sent once, by whoever does so, and never more wait than may.
func TestOutbox(t *testing.T) {
	var box outbox
	var sent, at atomic.Int32
	var all sync.WaitGroup
	const n = 4 * maxQueued
	first := make(chan struct{})
	for range n {
		all.Go(func() {
			box.put(outgoing{}, func(list []outgoing) {
				require.EqualValues(t, 1, at.Add(1), "two are sending")
				require.LessOrEqual(t, len(list), maxQueued)
				if sent.Load() == 0 {
					<-first
				}
				sent.Add(int32(len(list)))
				at.Add(-1)
			})
		})
	}
	require.Eventually(t, func() bool {
		box.mu.Lock()
		defer box.mu.Unlock()
		return len(box.queue) >= maxQueued
	}, time.Minute, time.Millisecond)
	close(first)
	all.Wait()
	require.EqualValues(t, n, sent.Load())
	require.Empty(t, box.queue)
	require.False(t, box.busy)
}
