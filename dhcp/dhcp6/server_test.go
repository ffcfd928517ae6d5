package dhcp6

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/dhcp/dhcptest"
)

// loopback serves a socket on the loopback interface, and returns a client's.
func loopback(t *testing.T, s *Server) (server net.Addr, client net.PacketConn, done chan error) {
	conn, err := net.ListenPacket("udp6", "[::1]:0")
	require.NoError(t, err)
	client, err = net.ListenPacket("udp6", "[::1]:0")
	require.NoError(t, err)
	done = make(chan error, 1)
	go func() { done <- s.Serve(conn) }()
	t.Cleanup(func() { s.Close(); client.Close() })
	return conn.LocalAddr(), client, done
}

// loopbackPool is of the only address that the loopback interface has.
func loopbackPool() *Pool {
	return testPool(func(p *Pool) {
		p.Prefix = netip.MustParsePrefix("::/64")
		p.Ranges = []dhcp.Range{{First: ip("::1:0"), Last: ip("::1:ffff")}}
	})
}

// All that a machine asks for on its way, over a socket.
func TestServer(t *testing.T) {
	pool := loopbackPool()
	var mu sync.Mutex
	var traced []string
	note := func(s string) {
		mu.Lock()
		defer mu.Unlock()
		traced = append(traced, s)
	}
	s := &Server{
		Handler: &BootPolicy{Next: pool, Boot: rules.Boot}, Logger: slog.New(slog.DiscardHandler),
		Trace: &Trace{
			Malformed: func(netip.AddrPort, error) { note("malformed") },
			Request:   func(r *Request) { note(r.MessageType.String()) },
			Reply:     func(_ *Request, m *dhcpv6.Message, _ netip.AddrPort) { note(m.MessageType.String()) },
			NoReply:   func(*Request, error) { note("nothing") },
		},
	}
	addr, conn, done := loopback(t, s)
	// A hardware address that only the DUID tells.
	c := &Client{Conn: conn, Server: addr, HardwareAddr: macA, UUID: uuidA, Firmware: Firmware{Archs: []iana.Arch{7}}}
	got, err := c.Exchange(t.Context())
	require.NoError(t, err)
	require.Equal(t, "tftp://[fd00::1]/snponly.efi", got.URL)
	require.Equal(t, 12*time.Hour, got.ValidLifetime)
	l, err := pool.LeaseByAddr(t.Context(), got.Addr)
	require.NoError(t, err)
	require.Equal(t, macA, l.HardwareAddr)
	renewed, err := c.Renew(t.Context(), got)
	require.NoError(t, err)
	require.Equal(t, got.Addr, renewed.Addr)
	require.NoError(t, c.Release(t.Context(), got))
	_, err = pool.LeaseByAddr(t.Context(), got.Addr)
	require.ErrorIs(t, err, fs.ErrNotExist)

	_, err = conn.WriteTo([]byte{1, 2}, addr)
	require.NoError(t, err)
	_, err = conn.WriteTo(message(solicit, macA, uefi, to(other)).ToBytes(), addr)
	require.NoError(t, err)
	c.Firmware = IPXEFirmware(iana.EFI_X86_64)
	info, err := c.Information(t.Context())
	require.NoError(t, err)
	require.Equal(t, "http://[fd00::1]/boot.ipxe", info.URL)
	require.Equal(t, []string{"a=1", "b c"}, info.Params)

	require.NoError(t, s.Shutdown(t.Context()))
	require.Equal(t, ErrServerClosed, <-done)
	require.Equal(t, ErrServerClosed, s.ListenAndServe())
	require.ElementsMatch(t, []string{
		"SOLICIT", "ADVERTISE", "REQUEST", "REPLY", "RENEW", "REPLY", "RELEASE", "REPLY",
		"malformed", "SOLICIT", "nothing", "INFORMATION-REQUEST", "REPLY",
	}, traced)
	require.ErrorIs(t, new(Server).Serve(conn), fs.ErrInvalid)
}

// Each relay gets its own envelope back.
func TestServerRelays(t *testing.T) {
	s := &Server{Handler: loopbackPool(), Logger: slog.New(slog.DiscardHandler)}
	addr, conn, _ := loopback(t, s)
	var d dhcpv6.DHCPv6 = message(solicit, macA, uefi, withIA()).Message
	for i, link := range []string{"::7", "::", "fd09::1"} {
		m := &dhcpv6.RelayMessage{MessageType: dhcpv6.MessageTypeRelayForward, HopCount: uint8(i), LinkAddr: ip(link).AsSlice(), PeerAddr: ip("fe80::7").AsSlice()}
		if i != 1 {
			m.AddOption(dhcpv6.OptInterfaceID([]byte{byte(i), 0xff}))
		}
		if i == 2 {
			m.AddOption(dhcpv6.OptRelayPort(0))
		}
		m.AddOption(dhcpv6.OptRelayMessage(d))
		d = m
	}
	_, err := conn.WriteTo(d.ToBytes(), addr)
	require.NoError(t, err)
	var buf [4096]byte
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
	n, _, err := conn.ReadFrom(buf[:])
	require.NoError(t, err)
	d, err = dhcpv6.FromBytes(buf[:n])
	require.NoError(t, err)
	for i := 2; i >= 0; i-- {
		m := d.(*dhcpv6.RelayMessage)
		require.Equal(t, dhcpv6.MessageTypeRelayReply, m.MessageType)
		require.EqualValues(t, i, m.HopCount)
		require.Equal(t, "fe80::7", m.PeerAddr.String())
		if i != 1 {
			require.Equal(t, []byte{byte(i), 0xff}, m.Options.InterfaceID())
		} else {
			require.Nil(t, m.Options.InterfaceID())
		}
		require.Equal(t, i == 2, m.Options.RelayPort() != nil)
		d = m.Options.RelayMessage()
	}
	require.Equal(t, dhcpv6.MessageTypeAdvertise, d.Type())
}

// RFC 8415 sections 7.2 and 19.3, RFC 8357.
func TestDestination(t *testing.T) {
	r := message(solicit, macA, uefi)
	r.Peer = netip.AddrPortFrom(r.Peer.Addr(), 1234)
	require.EqualValues(t, 546, destination(r, 547).Port())
	require.EqualValues(t, 1234, destination(r, 5470).Port())
	r = relayed(r, "fd00::9")
	r.Peer = netip.AddrPortFrom(r.Peer.Addr(), 1234)
	require.EqualValues(t, 547, destination(r, 547).Port())
	r.Relays[0].AddOption(dhcpv6.OptRelayPort(0))
	require.EqualValues(t, 1234, destination(r, 547).Port())
}

// What a handler does is its own affair.
func TestServerHandlers(t *testing.T) {
	var log strings.Builder
	var mu sync.Mutex
	answers := make(chan error, 4)
	answers <- errors.New("disk is gone")
	answers <- dhcp.ErrDrop
	answers <- fs.ErrNotExist
	s := &Server{
		MaxInFlight: 1,
		Logger:      slog.New(slog.NewTextHandler(writer(func(p []byte) { mu.Lock(); log.Write(p); mu.Unlock() }), nil)),
		Handler: First(HandlerFunc(func(_ context.Context, r *Request) (*dhcpv6.Message, error) {
			select {
			case err := <-answers:
				return nil, err
			default:
			}
			if r.MessageType == rebind {
				panic("broken")
			}
			return NewReply(r, dhcpv6.MessageTypeReply, self), nil
		})),
	}
	addr, conn, _ := loopback(t, s)
	for range 3 {
		_, err := conn.WriteTo(message(solicit, macA, uefi).ToBytes(), addr)
		require.NoError(t, err)
	}
	_, err := conn.WriteTo(message(rebind, macA, uefi).ToBytes(), addr)
	require.NoError(t, err)
	c := &Client{Conn: conn, Server: addr, HardwareAddr: macA}
	_, err = c.Information(t.Context())
	require.NoError(t, err)
	mu.Lock()
	defer mu.Unlock()
	require.Contains(t, log.String(), "disk is gone")
	require.Contains(t, log.String(), "panic=broken")
	require.Equal(t, 2, strings.Count(log.String(), "\n"), log.String())
}

type writer func(p []byte)

func (w writer) Write(p []byte) (int, error) { w(p); return len(p), nil }

// Shutdown waits for what is being worked on, Close does not let it go on.
func TestShutdown(t *testing.T) {
	begun, end := make(chan struct{}), make(chan struct{})
	s := &Server{Handler: HandlerFunc(func(ctx context.Context, r *Request) (*dhcpv6.Message, error) {
		close(begun)
		select {
		case <-end:
		case <-ctx.Done():
		}
		return nil, ctx.Err()
	}), Logger: slog.New(slog.DiscardHandler)}
	addr, conn, done := loopback(t, s)
	_, err := conn.WriteTo(message(solicit, macA, uefi).ToBytes(), addr)
	require.NoError(t, err)
	<-begun
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, s.Shutdown(ctx), context.Canceled)
	require.NoError(t, s.Close())
	require.Equal(t, ErrServerClosed, <-done)
	require.NoError(t, s.Shutdown(t.Context()))
}

// Any conn will do, and a client asks again.
func TestMemoryNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var network dhcptest.Network
		drop := 2
		s := &Server{Logger: slog.New(slog.DiscardHandler), Handler: HandlerFunc(func(ctx context.Context, r *Request) (*dhcpv6.Message, error) {
			if drop--; drop >= 0 {
				return nil, dhcp.ErrDrop
			}
			m := NewReply(r, dhcpv6.MessageTypeReply, self)
			m.AddOption(dhcpv6.OptBootFileURL("tftp://[fd00::1]/x"))
			return m, nil
		})}
		done := make(chan error, 1)
		listening := network.Listen(netip.MustParseAddrPort("[fd00::1]:547"))
		go func() { done <- s.Serve(listening) }()
		conn := network.Listen(netip.MustParseAddrPort("[fd00::2]:546"))
		c := &Client{Conn: conn, Server: net.UDPAddrFromAddrPort(netip.MustParseAddrPort("[fd00::1]:547")), HardwareAddr: macA}
		began := time.Now()
		l, err := c.Information(t.Context())
		require.NoError(t, err)
		require.Equal(t, "tftp://[fd00::1]/x", l.URL)
		require.Equal(t, 3*time.Second, time.Since(began))
		_, err = c.Exchange(ctxFor(t, time.Minute))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NoError(t, s.Shutdown(t.Context()))
		require.Equal(t, ErrServerClosed, <-done)
		conn.Close()
	})
}

func ctxFor(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestListenErrors(t *testing.T) {
	_, err := Listen("", "no-such-interface")
	require.ErrorContains(t, err, "ip link")
	conn, err := net.ListenPacket("udp6", "[::1]:0")
	require.NoError(t, err)
	defer conn.Close()
	_, err = Listen(conn.LocalAddr().String())
	require.ErrorContains(t, err, "another DHCPv6 server")
}
