package dhcp6

import (
	"log/slog"
	"net"
	"net/netip"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

// FuzzServe feeds datagrams to all of the path that a stranger's bytes take.
// Whatever they are, an answer is a well-formed one to the request.
func FuzzServe(f *testing.F) {
	wrap := func(d dhcpv6.DHCPv6, n int) []byte {
		for range n {
			m := &dhcpv6.RelayMessage{MessageType: dhcpv6.MessageTypeRelayForward, LinkAddr: ip("fd00::9").AsSlice(), PeerAddr: ip("fe80::7").AsSlice()}
			m.AddOption(dhcpv6.OptInterfaceID([]byte("x")))
			m.AddOption(dhcpv6.OptRelayMessage(d))
			d = m
		}
		return d.ToBytes()
	}
	for _, firmware := range []Firmware{system, uefi, HTTPFirmware(16), IPXEFirmware(0)} {
		f.Add(message(solicit, macA, firmware, withIA(), rapid).ToBytes())
		f.Add(message(request, macA, firmware, to(self), withIA("fd00::100")).ToBytes())
		f.Add(wrap(message(solicit, macA, firmware, withIA()).Message, 1))
	}
	for _, kind := range []dhcpv6.MessageType{renew, release, decline} {
		f.Add(message(kind, macA, system, to(self), withIA("fd00::100", "fd01::1"), withIA("fd00::101")).ToBytes())
	}
	f.Add(message(confirm, macA, system, withIA("fd00::100")).ToBytes())
	f.Add(message(rebind, macA, system, withIA("fd00::100")).ToBytes())
	f.Add(message(information, macA, system).ToBytes())
	f.Add(wrap(message(solicit, macA, uefi, withIA()).Message, 40))
	f.Add([]byte{12, 0})
	f.Add([]byte{1, 0, 0, 0, 0, 3, 0xff, 0xff})

	quiet := slog.New(slog.DiscardHandler)
	pool := testPool(func(p *Pool) { p.RapidCommit = true; p.Store = &dhcp.MemoryStore{MaxLeases: 64} })
	server := &Server{Handler: &BootPolicy{Next: pool, Boot: rules.Boot, Logger: quiet}, Logger: quiet}
	f.Fuzz(func(t *testing.T, data []byte) {
		msg, relays, err := decode(data)
		if err != nil {
			return
		}
		r := &Request{
			Message: msg, Relays: relays, Peer: netip.AddrPortFrom(linkLocal(macA), clientPort), Local: netip.AddrPortFrom(allServersAndRelays, serverPort),
			Interface: &net.Interface{Name: "test0"}, addrs: []netip.Addr{ip("fd00::1")},
		}
		e := Explain(t.Context(), server.Handler, r)
		reply, err := server.Handler.ServeDHCP(t.Context(), r)
		require.NoError(t, err)
		require.Equal(t, reply == nil, e.Reply == nil)
		if reply == nil {
			return
		}
		out, err := dhcpv6.FromBytes(encode(r, reply))
		require.NoError(t, err)
		for range relays {
			m, ok := out.(*dhcpv6.RelayMessage)
			require.True(t, ok)
			require.Equal(t, dhcpv6.MessageTypeRelayReply, m.MessageType)
			out = m.Options.RelayMessage()
		}
		m := out.(*dhcpv6.Message)
		require.Equal(t, msg.TransactionID, m.TransactionID)
		addrs, _ := granted(m)
		require.LessOrEqual(t, len(addrs), 1)
		for _, a := range addrs {
			require.True(t, pool.givable(ip(a)))
		}
	})
}

func BenchmarkServe(b *testing.B) {
	pool := testPool(func(p *Pool) {
		p.Ranges = []dhcp.Range{{First: ip("fd00::1:0"), Last: ip("fd00::ffff:ffff:ffff:ffff")}}
		p.MaxNewPerLink = -1
	})
	h := &BootPolicy{Next: pool, Boot: rules.Boot}
	data := message(request, macA, UEFIFirmware(iana.EFI_X86_64), to(self), withIA()).ToBytes()
	from := message(request, macA, uefi)
	b.ReportAllocs()
	for b.Loop() {
		msg, relays, err := decode(data)
		if err != nil {
			b.Fatal(err)
		}
		r := &Request{Message: msg, Relays: relays, Peer: from.Peer, Local: from.Local, Interface: from.Interface, addrs: from.addrs}
		reply, err := h.ServeDHCP(b.Context(), r)
		if err != nil || reply == nil {
			b.Fatal(reply, err)
		}
		encode(r, reply)
	}
}
