package nbd_test

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/nbd/nbdtest"
)

// fromAddr is a connection from some address on which nothing is buffered.
type fromAddr struct {
	net.Conn
	addr net.Addr
}

func (c fromAddr) RemoteAddr() net.Addr { return c.addr }

// Clients that take nothing of what they asked for, as much as each may, leave
// buffers for others that need such.
func TestGreedyClientsLeaveBuffers(t *testing.T) {
	const length, each = 1 << 20, 16
	content := pattern(length)
	tests := map[string]struct {
		addrs, conns int // conns of each
		// least is for how many replies there must be buffers before it counts.
		least int32
		// near: a further client of the same address is served, too.
		near bool
	}{
		"one connection each": {addrs: 15, conns: 1, least: 30, near: true},
		"one address":         {addrs: 1, conns: 120, least: 11},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dev := &crowded{Memory: nbdtest.NewMemory(content)}
			srv := &nbd.Server{Logger: quiet, MaxBuffered: 64 << 20, Handler: always(dev)}
			addr := nbdtest.ServeServer(t, srv)
			pipe := func(ip netip.Addr) *raw {
				here, there := net.Pipe()
				t.Cleanup(func() { here.Close() })
				require.NoError(t, here.SetDeadline(time.Now().Add(time.Minute)))
				go srv.ServeConn(t.Context(), fromAddr{there, net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, 1))}) // ends with here
				r := (&raw{t, here}).greet(3)
				r.open("x")
				return r
			}
			first := netip.MustParseAddr("192.0.2.1")
			for ip, i := first, 0; i < test.addrs; ip, i = ip.Next(), i+1 {
				for range test.conns {
					pipe(ip).send(bytes.Repeat(request(0, cmdRead, 1, 0, length), each))
				}
			}
			require.Eventually(t, func() bool { return dev.reads.Load() >= test.least }, 30*time.Second, time.Millisecond)
			others := []*raw{dialRaw(t, addr).greet(3)}
			others[0].open("x")
			if test.near {
				others = append(others, pipe(first))
			}
			for _, r := range others {
				for cookie := range uint64(2 * each) {
					r.send(request(0, cmdRead, cookie, 0, length))
					require.Zero(t, r.simple(cookie))
					require.True(t, bytes.Equal(content, r.recv(length)))
				}
			}
			require.Less(t, dev.reads.Load(), int32(64+2*each*len(others)), "all of the budget was given away")
		})
	}
}

// What writes to a slow device take of the budget they give back.
func TestWritesGiveBuffersBack(t *testing.T) {
	dev := nbd.Delay{}.Filter(nbdtest.NewMemory(make([]byte, 64<<10)))
	addr := nbdtest.ServeServer(t, &nbd.Server{Logger: quiet, MaxBuffered: 1, Handler: nbd.Share(dev)})
	c, err := nbd.Dial(t.Context(), "tcp", addr, "")
	require.NoError(t, err)
	late := time.AfterFunc(30*time.Second, func() { c.Close() })
	defer late.Stop()
	for i := range 100 {
		_, err := c.WriteAt(make([]byte, 4096), 0)
		require.NoError(t, err, "write %d", i)
	}
	require.NoError(t, c.Close())
}
