package dhcp6

import (
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

var (
	macA   = net.HardwareAddr{0x52, 0x54, 0, 1, 2, 3}
	macB   = net.HardwareAddr{0x52, 0x54, 0, 1, 2, 4}
	uuidA  = [16]byte{0x11, 0x22, 0x33, 0x44, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	self   = &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}}
	other  = &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: net.HardwareAddr{2, 0, 0, 0, 0, 9}}
	system = Firmware{}
	uefi   = UEFIFirmware(iana.EFI_X86_64)
)

const (
	solicit     = dhcpv6.MessageTypeSolicit
	request     = dhcpv6.MessageTypeRequest
	confirm     = dhcpv6.MessageTypeConfirm
	renew       = dhcpv6.MessageTypeRenew
	rebind      = dhcpv6.MessageTypeRebind
	release     = dhcpv6.MessageTypeRelease
	decline     = dhcpv6.MessageTypeDecline
	information = dhcpv6.MessageTypeInformationRequest
)

func need(t testing.TB, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if lookTool(tool) == "" {
			skip(t, tool+" is not installed")
		}
	}
}

func lookTool(tool string) string {
	for _, name := range []string{tool, filepath.Join("/usr/sbin", tool), filepath.Join("/sbin", tool)} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

func skip(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("DISKLESS_REQUIRE") == "all" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func testPool(change ...func(*Pool)) *Pool {
	p := &Pool{
		Prefix: netip.MustParsePrefix("fd00::/64"), ServerID: self,
		Ranges: []dhcp.Range{{First: ip("fd00::100"), Last: ip("fd00::1ff")}},
		Logger: slog.New(slog.DiscardHandler),
	}
	for _, c := range change {
		c(p)
	}
	return p
}

// linkLocal is the address that is made of a hardware address.
func linkLocal(hw net.HardwareAddr) netip.Addr {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: hw[0] ^ 2, hw[1], hw[2], 0xff, 0xfe, hw[3], hw[4], hw[5]})
}

// message is a request from a link of the server's, which has fd00::1 there.
func message(t dhcpv6.MessageType, hw net.HardwareAddr, f Firmware, change ...func(*dhcpv6.Message)) *Request {
	m := f.message(t, hw, uuidA)
	for _, c := range change {
		c(m)
	}
	return &Request{
		Message: m, Peer: netip.AddrPortFrom(linkLocal(hw), clientPort), Local: netip.AddrPortFrom(allServersAndRelays, serverPort),
		Interface: &net.Interface{Name: "test0"}, addrs: []netip.Addr{ip("fe80::1"), ip("fd00::1")},
	}
}

func withIA(addrs ...string) func(*dhcpv6.Message) {
	return func(m *dhcpv6.Message) {
		ia := &dhcpv6.OptIANA{IaId: [4]byte{1, 2, 3, byte(len(m.Options.IANA()))}}
		for _, a := range addrs {
			ia.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: ip(a).AsSlice()})
		}
		m.AddOption(ia)
	}
}

func to(id dhcpv6.DUID) func(*dhcpv6.Message) {
	return func(m *dhcpv6.Message) { m.AddOption(dhcpv6.OptServerID(id)) }
}

func rapid(m *dhcpv6.Message) {
	m.AddOption(&dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionRapidCommit})
}

func withDUID(id dhcpv6.DUID) func(*dhcpv6.Message) {
	return func(m *dhcpv6.Message) { m.UpdateOption(dhcpv6.OptClientID(id)) }
}

// relayed wraps a request as a relay does.
func relayed(r *Request, link string, options ...dhcpv6.Option) *Request {
	out := *r
	m := &dhcpv6.RelayMessage{
		MessageType: dhcpv6.MessageTypeRelayForward, HopCount: uint8(len(r.Relays)), LinkAddr: ip(link).AsSlice(), PeerAddr: r.Peer.Addr().AsSlice(),
	}
	for _, o := range options {
		m.AddOption(o)
	}
	out.Relays = append(append([]*dhcpv6.RelayMessage{}, r.Relays...), m)
	out.Peer, out.Local = netip.MustParseAddrPort("[fd00:9::9]:547"), netip.MustParseAddrPort("[fd00::1]:547")
	return &out
}

func ask(t testing.TB, h Handler, r *Request) *dhcpv6.Message {
	t.Helper()
	reply, err := h.ServeDHCP(t.Context(), r)
	require.NoError(t, err)
	if reply != nil {
		require.Equal(t, r.TransactionID, reply.TransactionID)
		require.Equal(t, r.Options.ClientID(), reply.Options.ClientID())
		require.Equal(t, dhcpv6.DUID(self), reply.Options.ServerID())
	}
	return reply
}

// granted is the addresses with a lifetime, and the status, of each IA_NA.
func granted(m *dhcpv6.Message) (addrs []string, codes []iana.StatusCode) {
	for _, ia := range m.Options.IANA() {
		if s := ia.Options.Status(); s != nil {
			codes = append(codes, s.StatusCode)
		}
		for _, a := range ia.Options.Addresses() {
			if a.ValidLifetime > 0 {
				addrs = append(addrs, toAddr(a.IPv6Addr).String())
			}
		}
	}
	return addrs, codes
}

// lease takes an address as a client does.
func lease(t testing.TB, p *Pool, hw net.HardwareAddr, f Firmware, change ...func(*dhcpv6.Message)) string {
	t.Helper()
	offer := ask(t, p, message(solicit, hw, f, append(change, withIA())...))
	require.Equal(t, dhcpv6.MessageTypeAdvertise, offer.MessageType)
	addrs, _ := granted(offer)
	require.Len(t, addrs, 1)
	reply := ask(t, p, message(request, hw, f, append(change, to(self), withIA(addrs[0]))...))
	require.Equal(t, dhcpv6.MessageTypeReply, reply.MessageType)
	again, _ := granted(reply)
	require.Equal(t, addrs, again)
	return addrs[0]
}
