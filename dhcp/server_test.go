package dhcp_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/dhcp/dhcptest"
	"github.com/stretchr/testify/require"
)

var (
	quiet     = slog.New(slog.DiscardHandler)
	serverAt  = netip.MustParseAddrPort("198.51.100.1:67")
	noAddress = netip.MustParseAddrPort("0.0.0.0:68")
	broadcast = &net.UDPAddr{IP: net.IPv4bcast, Port: 67}
)

func examplePool() *dhcp.Pool {
	return &dhcp.Pool{
		Prefix:   netip.MustParsePrefix("198.51.100.0/24"),
		Ranges:   []dhcp.Range{{First: dhcptest.Addr(100), Last: dhcptest.Addr(199)}},
		ServerID: dhcptest.Addr(1),
		Logger:   quiet,
	}
}

// start serves conn until the test ends and returns what Serve returned.
func start(t *testing.T, s *dhcp.Server, conn net.PacketConn) <-chan error {
	done := make(chan error, 1)
	go func() { done <- s.Serve(conn) }()
	t.Cleanup(func() { s.Close() })
	return done
}

// A boot over the in-memory network, with broadcasts, as on a real one.
func TestServerInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var network dhcptest.Network
		pool := examplePool()
		server := &dhcp.Server{Handler: pool, Logger: quiet}
		done := start(t, server, network.Listen(serverAt))
		conn := network.Listen(noAddress)
		defer conn.Close()
		client := &dhcp.Client{Conn: conn, Server: broadcast, HardwareAddr: dhcptest.HardwareAddr(7), Firmware: dhcp.BIOSFirmware()}
		ack, err := client.Exchange(t.Context())
		require.NoError(t, err)
		require.True(t, pool.Prefix.Contains(ack.Addr.Addr()))
		require.Equal(t, 24, ack.Addr.Bits())
		l, err := pool.LeaseByAddr(t.Context(), ack.Addr.Addr())
		require.NoError(t, err)
		require.Equal(t, client.HardwareAddr, l.HardwareAddr)

		again, err := client.Reboot(t.Context(), ack.Addr.Addr())
		require.NoError(t, err)
		require.Equal(t, ack.Addr, again.Addr)
		_, err = client.Reboot(t.Context(), netip.MustParseAddr("192.0.2.1"))
		require.ErrorIs(t, err, dhcp.ErrNak)

		leased := network.Listen(netip.AddrPortFrom(ack.Addr.Addr(), 68))
		defer leased.Close()
		client.Conn = leased
		require.NoError(t, client.Release(ack))
		synctest.Wait()
		client.Conn = conn
		_, err = pool.LeaseByAddr(t.Context(), ack.Addr.Addr())
		require.ErrorIs(t, err, fs.ErrNotExist)

		ack, err = client.Exchange(t.Context())
		require.NoError(t, err)
		require.NoError(t, client.Decline(ack))
		synctest.Wait()
		other, err := client.Exchange(t.Context())
		require.NoError(t, err)
		require.NotEqual(t, ack.Addr, other.Addr)

		require.NoError(t, server.Shutdown(t.Context()))
		require.Equal(t, dhcp.ErrServerClosed, <-done)
	})
}

// Nobody answers, or late: the client repeats itself and gives up with ctx.
func TestClientRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var network dhcptest.Network
		conn := network.Listen(noAddress)
		defer conn.Close()
		client := &dhcp.Client{Conn: conn, Server: broadcast, HardwareAddr: dhcptest.HardwareAddr(7)}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		began := time.Now()
		_, err := client.Exchange(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 20*time.Second, time.Since(began))

		var asked atomic.Int32
		pool := examplePool()
		server := &dhcp.Server{Logger: quiet, Handler: dhcp.HandlerFunc(func(ctx context.Context, r *dhcp.Request) (*dhcpv4.DHCPv4, error) {
			if asked.Add(1)%3 != 0 {
				return nil, dhcp.ErrDrop
			}
			return pool.ServeDHCP(ctx, r)
		})}
		start(t, server, network.Listen(serverAt))
		_, err = client.Exchange(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 6, asked.Load())
		require.NoError(t, server.Shutdown(t.Context()))
	})
	_, err := (&dhcp.Client{}).Exchange(t.Context())
	require.ErrorIs(t, err, fs.ErrInvalid)
}

func loopback(t testing.TB) *net.UDPConn {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// Real sockets on loopback: the server learns where a request came in, and
// answers where it came from.
func TestServerLoopback(t *testing.T) {
	pool := examplePool()
	pool.Prefix = netip.MustParsePrefix("127.0.0.0/8")
	pool.Ranges = []dhcp.Range{{First: netip.MustParseAddr("127.1.0.10"), Last: netip.MustParseAddr("127.1.0.20")}}
	pool.ServerID = netip.MustParseAddr("127.0.0.1")
	var mu sync.Mutex
	var seen []*dhcp.Request
	var replies []netip.AddrPort
	server := &dhcp.Server{
		Handler: &dhcp.BootPolicy{Next: pool, Boot: dhcp.BootRules{{Boot: dhcp.Boot{File: "snponly.efi"}}}.Boot},
		Logger:  quiet,
		Trace: &dhcp.Trace{
			Request: func(r *dhcp.Request) { mu.Lock(); defer mu.Unlock(); seen = append(seen, r) },
			Reply: func(_ *dhcp.Request, _ *dhcpv4.DHCPv4, to netip.AddrPort) {
				mu.Lock()
				defer mu.Unlock()
				replies = append(replies, to)
			},
		},
	}
	serverConn, clientConn := loopback(t), loopback(t)
	done := start(t, server, serverConn)
	client := &dhcp.Client{
		Conn: clientConn, Server: serverConn.LocalAddr(), HardwareAddr: dhcptest.HardwareAddr(7),
		Firmware: dhcp.UEFIFirmware(iana.EFI_X86_64),
	}
	ack, err := client.Exchange(t.Context())
	require.NoError(t, err)
	require.Equal(t, "snponly.efi", ack.File)
	require.Equal(t, pool.ServerID, ack.NextServer)
	require.Equal(t, pool.ServerID, ack.ServerID)
	renewed, err := client.Renew(t.Context(), ack)
	require.NoError(t, err)
	require.Equal(t, ack.Addr, renewed.Addr)
	require.NoError(t, server.Shutdown(t.Context()))
	require.Equal(t, dhcp.ErrServerClosed, <-done)

	require.Len(t, seen, 3)
	for i, r := range seen {
		me := clientConn.LocalAddr().(*net.UDPAddr).AddrPort()
		require.Equal(t, me, r.Peer)
		require.Equal(t, me, replies[i])
		require.Equal(t, serverConn.LocalAddr().(*net.UDPAddr).AddrPort(), r.Local)
	}
	// The first one may have been queued before the server asked the kernel
	// for interfaces.
	require.NotNil(t, seen[2].Interface)
	require.NotZero(t, seen[2].Interface.Flags&net.FlagLoopback)
}

// What is no request does not reach the handler and does not stop the server.
func TestServerMalformed(t *testing.T) {
	good := func() []byte {
		m, err := dhcpv4.NewDiscovery(dhcptest.HardwareAddr(9))
		require.NoError(t, err)
		return m.ToBytes()
	}
	reply := good()
	reply[0] = 2
	options := append(bytes.Clone(good()[:240]), 53, 200, 1) // longer than there is
	datagrams := [][]byte{{}, {1}, good()[:200], reply, options, make([]byte, 5000)}

	malformed, handled := make(chan error), make(chan *dhcp.Request, 1)
	server := &dhcp.Server{
		Logger: quiet,
		Trace:  &dhcp.Trace{Malformed: func(_ netip.AddrPort, err error) { malformed <- err }},
		Handler: dhcp.HandlerFunc(func(_ context.Context, r *dhcp.Request) (*dhcpv4.DHCPv4, error) {
			handled <- r
			return nil, nil
		}),
	}
	serverConn, client := loopback(t), loopback(t)
	start(t, server, serverConn)
	for i, d := range datagrams {
		_, err := client.WriteTo(d, serverConn.LocalAddr())
		require.NoError(t, err)
		require.Error(t, <-malformed, "datagram %d", i)
	}
	// Without an End option, and without padding: read all the same.
	noEnd := bytes.TrimRight(good(), "\x00")
	_, err := client.WriteTo(noEnd[:len(noEnd)-1], serverConn.LocalAddr())
	require.NoError(t, err)
	require.Equal(t, dhcptest.HardwareAddr(9), (<-handled).ClientHWAddr)
}

func TestServerHandlerOutcomes(t *testing.T) {
	broken := errors.New("inventory is down")
	var logged lockedBuffer
	type outcome struct {
		err error
		r   *dhcp.Request
	}
	noReply, replied := make(chan outcome), make(chan *dhcpv4.DHCPv4)
	results := make(chan func(*dhcp.Request) (*dhcpv4.DHCPv4, error), 1)
	var hook atomic.Bool
	server := &dhcp.Server{
		Logger: slog.New(slog.NewTextHandler(&logged, nil)),
		Trace: &dhcp.Trace{
			Request: func(*dhcp.Request) {
				if hook.Swap(false) {
					panic("in a hook")
				}
			},
			NoReply: func(r *dhcp.Request, err error) { noReply <- outcome{err, r} },
			Reply:   func(_ *dhcp.Request, m *dhcpv4.DHCPv4, _ netip.AddrPort) { replied <- m },
		},
		Handler: dhcp.HandlerFunc(func(_ context.Context, r *dhcp.Request) (*dhcpv4.DHCPv4, error) { return (<-results)(r) }),
	}
	serverConn, client := loopback(t), loopback(t)
	start(t, server, serverConn)
	send := func() {
		m, err := dhcpv4.NewDiscovery(dhcptest.HardwareAddr(9))
		require.NoError(t, err)
		_, err = client.WriteTo(m.ToBytes(), serverConn.LocalAddr())
		require.NoError(t, err)
	}
	ask := func(f func(*dhcp.Request) (*dhcpv4.DHCPv4, error)) {
		results <- f
		send()
	}
	ask(func(*dhcp.Request) (*dhcpv4.DHCPv4, error) { return nil, nil })
	require.NoError(t, (<-noReply).err)
	ask(func(*dhcp.Request) (*dhcpv4.DHCPv4, error) { return nil, fs.ErrNotExist })
	require.NoError(t, (<-noReply).err)
	ask(func(*dhcp.Request) (*dhcpv4.DHCPv4, error) { return nil, dhcp.ErrDrop })
	require.Equal(t, dhcp.ErrDrop, (<-noReply).err)
	require.Empty(t, logged.String())

	ask(func(*dhcp.Request) (*dhcpv4.DHCPv4, error) { return nil, broken })
	require.ErrorIs(t, (<-noReply).err, broken)
	ask(func(*dhcp.Request) (*dhcpv4.DHCPv4, error) { panic("boom") })
	require.ErrorContains(t, (<-noReply).err, "boom")
	ask(func(r *dhcp.Request) (*dhcpv4.DHCPv4, error) {
		m := dhcp.NewReply(r, dhcpv4.MessageTypeOffer)
		m.YourIPAddr = net.ParseIP("2001:db8::1") // the codec would panic
		return m, nil
	})
	require.ErrorIs(t, (<-noReply).err, fs.ErrInvalid)
	require.Contains(t, logged.String(), "inventory is down")
	require.Contains(t, logged.String(), "server_test.go", "a panic is logged with its stack")

	hook.Store(true)
	send() // nobody answers, and nobody dies
	ask(func(r *dhcp.Request) (*dhcpv4.DHCPv4, error) { return dhcp.NewReply(r, dhcpv4.MessageTypeOffer), nil })
	require.Equal(t, dhcpv4.MessageTypeOffer, (<-replied).MessageType())
}

type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Shutdown waits for the request at work, whose reply is still sent; Close
// does not, and tells the handler.
func TestServerShutdownWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var network dhcptest.Network
		pool := examplePool()
		release := make(chan struct{})
		server := &dhcp.Server{Logger: quiet, Handler: dhcp.HandlerFunc(func(ctx context.Context, r *dhcp.Request) (*dhcpv4.DHCPv4, error) {
			<-release
			return pool.ServeDHCP(ctx, r)
		})}
		done := start(t, server, network.Listen(serverAt))
		conn := network.Listen(noAddress)
		defer conn.Close()
		m, err := dhcpv4.NewDiscovery(dhcptest.HardwareAddr(9))
		require.NoError(t, err)
		_, err = conn.WriteTo(m.ToBytes(), broadcast)
		require.NoError(t, err)
		synctest.Wait()

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.ErrorIs(t, server.Shutdown(ctx), context.DeadlineExceeded)
		_, err = conn.WriteTo(m.ToBytes(), broadcast) // not read any more
		require.NoError(t, err)

		finished := make(chan error, 1)
		go func() { finished <- server.Shutdown(t.Context()) }()
		synctest.Wait()
		require.Empty(t, finished)
		close(release)
		require.NoError(t, <-finished)
		require.Equal(t, dhcp.ErrServerClosed, <-done)

		buf := make([]byte, 1500)
		n, _, err := conn.ReadFrom(buf)
		require.NoError(t, err)
		offer, err := dhcpv4.FromBytes(buf[:n])
		require.NoError(t, err)
		require.Equal(t, dhcpv4.MessageTypeOffer, offer.MessageType())
		require.ErrorIs(t, server.Serve(network.Listen(serverAt)), dhcp.ErrServerClosed)
	})
}

func TestServerClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var network dhcptest.Network
		began := make(chan struct{})
		server := &dhcp.Server{Logger: quiet, Handler: dhcp.HandlerFunc(func(ctx context.Context, _ *dhcp.Request) (*dhcpv4.DHCPv4, error) {
			close(began)
			<-ctx.Done()
			return nil, ctx.Err()
		})}
		done := start(t, server, network.Listen(serverAt))
		conn := network.Listen(noAddress)
		defer conn.Close()
		m, err := dhcpv4.NewDiscovery(dhcptest.HardwareAddr(9))
		require.NoError(t, err)
		_, err = conn.WriteTo(m.ToBytes(), broadcast)
		require.NoError(t, err)
		<-began
		require.NoError(t, server.Close())
		require.Equal(t, dhcp.ErrServerClosed, <-done)
		require.NoError(t, server.Close())
		require.NoError(t, server.Shutdown(t.Context()))
	})
}

// No more requests are worked on at a time than allowed; the others wait.
func TestServerMaxInFlight(t *testing.T) {
	for _, test := range []struct{ limit, sent, want int }{{2, 10, 2}, {0, 1100, 1024}, {-1, 100, 100}} {
		synctest.Test(t, func(t *testing.T) {
			var network dhcptest.Network
			var working, handled atomic.Int32
			release := make(chan struct{})
			server := &dhcp.Server{MaxInFlight: test.limit, Logger: quiet, Handler: dhcp.HandlerFunc(func(context.Context, *dhcp.Request) (*dhcpv4.DHCPv4, error) {
				working.Add(1)
				<-release
				handled.Add(1)
				return nil, dhcp.ErrDrop
			})}
			start(t, server, network.Listen(serverAt))
			conn := network.Listen(noAddress)
			defer conn.Close()
			m, err := dhcpv4.NewDiscovery(dhcptest.HardwareAddr(9))
			require.NoError(t, err)
			for i := range test.sent {
				if i%100 == 0 {
					synctest.Wait() // or the conn's queue overflows
				}
				m.ClientHWAddr = net.HardwareAddr{2, 0, 0, 0, byte(i >> 8), byte(i)} // one machine's wait for each other
				_, err := conn.WriteTo(m.ToBytes(), broadcast)
				require.NoError(t, err)
			}
			synctest.Wait()
			require.EqualValues(t, test.want, working.Load())
			close(release)
			synctest.Wait()
			require.EqualValues(t, test.sent, handled.Load())
			require.NoError(t, server.Shutdown(t.Context()))
		})
	}
}

// flakyConn fails some reads.
type flakyConn struct {
	net.PacketConn
	errs chan error
}

func (c flakyConn) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case err := <-c.errs:
		return 0, nil, &net.OpError{Op: "read", Err: err}
	default:
		return c.PacketConn.ReadFrom(b)
	}
}

func TestServerReadErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var network dhcptest.Network
		errs := make(chan error, 10)
		for _, err := range []error{syscall.ENETDOWN, syscall.ENOBUFS, syscall.ECONNREFUSED, syscall.ENETDOWN} {
			errs <- err
		}
		server := &dhcp.Server{Handler: examplePool(), Logger: quiet}
		done := start(t, server, flakyConn{network.Listen(serverAt), errs})
		conn := network.Listen(noAddress)
		defer conn.Close()
		client := &dhcp.Client{Conn: conn, Server: broadcast, HardwareAddr: dhcptest.HardwareAddr(7)}
		_, err := client.Exchange(t.Context())
		require.NoError(t, err, "the server went on")

		errs <- syscall.EBADF
		client.Release(dhcp.Ack{}) // wakes the reader
		require.ErrorIs(t, <-done, syscall.EBADF)
	})
}

func TestServerRefusesToStart(t *testing.T) {
	conn := loopback(t)
	require.ErrorIs(t, new(dhcp.Server).Serve(conn), fs.ErrInvalid)
	_, err := conn.WriteTo([]byte{1}, conn.LocalAddr())
	require.ErrorIs(t, err, net.ErrClosed, "Serve owns the conn also then")

	taken := loopback(t)
	err = (&dhcp.Server{Addr: taken.LocalAddr().String(), Handler: examplePool()}).ListenAndServe()
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	require.ErrorContains(t, err, "another DHCP server runs on this machine")

	err = (&dhcp.Server{Interfaces: []string{"no-such-if0"}, Handler: examplePool()}).ListenAndServe()
	require.ErrorContains(t, err, `interface "no-such-if0"`)
	require.ErrorContains(t, err, "ip link")
}

func TestServerListenAndServe(t *testing.T) {
	server := &dhcp.Server{Addr: "127.0.0.1:0", Handler: examplePool(), Logger: quiet}
	done := make(chan error, 1)
	go func() { done <- server.ListenAndServe() }()
	require.NoError(t, server.Close()) // before or after it listens: it ends
	require.ErrorIs(t, <-done, dhcp.ErrServerClosed)
}

func TestFirst(t *testing.T) {
	var asked []string
	h := func(name string, reply bool, err error) dhcp.Handler {
		return dhcp.HandlerFunc(func(_ context.Context, r *dhcp.Request) (*dhcpv4.DHCPv4, error) {
			asked = append(asked, name)
			if reply {
				return dhcp.NewReply(r, dhcpv4.MessageTypeOffer), nil
			}
			return nil, err
		})
	}
	m, err := dhcpv4.NewDiscovery(dhcptest.HardwareAddr(9))
	require.NoError(t, err)
	for _, test := range []struct {
		handlers []dhcp.Handler
		asked    []string
		reply    bool
		err      error
	}{
		{nil, nil, false, nil},
		{[]dhcp.Handler{h("a", false, nil), h("b", false, fs.ErrNotExist), h("c", true, nil), h("d", true, nil)}, []string{"a", "b", "c"}, true, nil},
		{[]dhcp.Handler{h("a", false, dhcp.ErrDrop), h("b", true, nil)}, []string{"a"}, false, dhcp.ErrDrop},
		{[]dhcp.Handler{h("a", false, syscall.EIO), h("b", true, nil)}, []string{"a"}, false, syscall.EIO},
		{[]dhcp.Handler{h("a", false, nil)}, []string{"a"}, false, nil},
	} {
		asked = nil
		reply, err := dhcp.First(test.handlers...).ServeDHCP(t.Context(), &dhcp.Request{DHCPv4: m})
		require.Equal(t, test.asked, asked)
		require.Equal(t, test.reply, reply != nil)
		require.Equal(t, test.err, err)
	}
}
