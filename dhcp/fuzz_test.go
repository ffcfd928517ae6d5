package dhcp

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"
)

// capture takes what the server sends.
type capture struct {
	data []byte
	to   netip.AddrPort
	hw   net.HardwareAddr
}

func (c *capture) send(o outgoing) {
	c.data, c.to, c.hw = o.data, o.to, o.hw
	o.sent(o.to, nil)
}

func testSource() source {
	return source{
		peer: netip.MustParseAddrPort("0.0.0.0:68"), local: netip.MustParseAddrPort("255.255.255.255:67"),
		link: &link{iface: &net.Interface{Name: "test0"}, addrs: []netip.Addr{ip("10.0.0.1")}},
	}
}

// FuzzServe feeds datagrams to all of the path that a stranger's bytes take.
// Whatever they are, an answer is a well-formed one to the request.
func FuzzServe(f *testing.F) {
	for _, firmware := range []Firmware{bareSystem, BIOSFirmware(), UEFIFirmware(7), HTTPFirmware(16), IPXEFirmware(0), InitramfsFirmware()} {
		f.Add(message(discover, macA, firmware).ToBytes())
		f.Add(message(request, macA, firmware, requested("10.0.0.100"), serverID("10.0.0.1"), option(82, 1, 1, 'x')).ToBytes())
	}
	f.Add(message(request, macB, bareSystem, ciaddr("10.0.0.101"), option(61, make([]byte, 600)...)).ToBytes())
	f.Add(message(dhcpv4.MessageTypeDecline, macB, bareSystem, requested("10.0.0.101")).ToBytes())
	f.Add(message(dhcpv4.MessageTypeInform, macB, bareSystem, ciaddr("10.0.0.101"), relay("10.0.0.9")).ToBytes())
	f.Add(message(discover, macC, BIOSFirmware(), option(77, 255, 0), option(93, 0), option(97, 0), option(57, 0)).ToBytes())
	f.Add([]byte{1, 1, 255})
	f.Add(message(dhcpv4.MessageTypeNone, macC, bareSystem).ToBytes()[:236])
	f.Add(message(discover, macC, BIOSFirmware(), option(80), option(52, 3), option(82, 5, 4, 10, 0, 0, 9, 11, 4, 10, 0, 0, 7), relay("10.9.0.1")).ToBytes())

	rules := BootRules{
		{Match: Match{Platforms: []Platform{PlatformLinux}}, Boot: Boot{RootPath: "/srv/root"}},
		{Match: Match{Archs: []iana.Arch{7}}, Boot: Boot{File: "snponly.efi"}},
		{Match: Match{Archs: []iana.Arch{16}}, Boot: Boot{File: "http://10.0.0.1/a-file-name-that-is-so-long-that-it-only-fits-into-option-67-and-not-into-the-field-of-128-bytes-that-bootp-has-for-it/x.efi"}},
		{Match: Match{Platforms: []Platform{PlatformIPXE}}, Boot: Boot{File: "boot.ipxe"}},
	}
	pool := testPool(func(p *Pool) { p.BOOTP, p.RapidCommit = BOOTPAny, true })
	quiet := slog.New(slog.DiscardHandler)
	server := &Server{Handler: &BootPolicy{Next: pool, Boot: rules.Boot, Logger: quiet}, Logger: quiet}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > maxDatagram {
			data = data[:maxDatagram]
		}
		var out capture
		server.handle(context.Background(), &out, append(data[:len(data):len(data)], 0), testSource())
		if out.data == nil {
			return
		}
		req, err := decode(append(data[:len(data):len(data)], 0))
		require.NoError(t, err)
		reply, err := dhcpv4.FromBytes(out.data)
		require.NoError(t, err)
		require.GreaterOrEqual(t, len(out.data), 300)
		require.Equal(t, dhcpv4.OpcodeBootReply, reply.OpCode)
		require.Equal(t, req.TransactionID, reply.TransactionID)
		require.Equal(t, req.ClientHWAddr, reply.ClientHWAddr)
		if req.Options.Has(dhcpv4.OptionDHCPMessageType) && len(req.Options.Get(dhcpv4.OptionRelayAgentInformation)) == 0 {
			require.Equal(t, "10.0.0.1", reply.ServerIdentifier().String())
		}
		limit := 576
		if size, err := req.MaxMessageSize(); err == nil {
			limit = min(max(limit, int(size)), 1500)
		}
		require.LessOrEqual(t, len(out.data), limit-28)
		if addr := toAddr(reply.YourIPAddr); addr.IsValid() {
			require.True(t, pool.inRanges(addr), "gave %v", addr)
		}
		require.True(t, out.to.IsValid())
	})
}

// FuzzMarshal compares our writing of messages with the codec's.
func FuzzMarshal(f *testing.F) {
	for _, firmware := range []Firmware{bareSystem, BIOSFirmware(), UEFIFirmware(7)} {
		f.Add(message(discover, macA, firmware).ToBytes())
	}
	f.Add(message(request, macB, bareSystem, ciaddr("10.0.0.101"), relay("10.0.0.9"), option(61, make([]byte, 600)...), option(82), option(80), option(200, make([]byte, 255)...)).ToBytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := dhcpv4.FromBytes(data)
		if err != nil {
			return
		}
		require.Equal(t, m.ToBytes(), marshal(m))
		require.Equal(t, m.MessageType(), messageType(m))
	})
}

// FuzzParseOffer feeds frames to the probe.
func FuzzParseOffer(f *testing.F) {
	messages := probeMessages(macA)
	frame := offerFrame(messages[0])
	f.Add(frame)
	f.Add(frame[:50])
	f.Add(append(frame, 0, 0, 0))
	f.Fuzz(func(t *testing.T, data []byte) {
		o, ok := parseOffer(data, messages[0].TransactionID)
		if ok && len(o.HardwareAddr) != 6 {
			t.Fatalf("%+v", o)
		}
	})
}
