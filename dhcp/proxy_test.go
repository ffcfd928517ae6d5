package dhcp

import (
	"context"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"
)

func proxyFor(rules BootRules) *Proxy {
	log, _ := logTo(0)
	return &Proxy{ServerID: ip("10.0.0.5"), Boot: rules.Boot, Logger: log}
}

var chain = BootRules{
	{Match: Match{Platforms: []Platform{PlatformIPXE, PlatformGPXE}}, Boot: Boot{File: "http://10.0.0.5/boot.ipxe"}},
	{Match: Match{Archs: []iana.Arch{0}}, Boot: Boot{File: "undionly.kpxe", NextServer: ip("10.0.0.6")}},
	{Match: Match{Archs: []iana.Arch{7}}, Boot: Boot{File: "snponly.efi"}},
	{Match: Match{Archs: []iana.Arch{16}}, Boot: Boot{File: "http://10.0.0.5/snponly.efi"}},
}

func TestProxy(t *testing.T) {
	at := func(m *dhcpv4.DHCPv4, port uint16) *Request {
		r := on(m)
		r.Local = netip.AddrPortFrom(ip("10.0.0.5"), port)
		return r
	}
	p := proxyFor(chain)
	for _, test := range []struct {
		name string
		r    *Request
		want dhcpv4.MessageType
		file string
		v43  string
	}{
		{"BIOS", at(message(discover, macA, BIOSFirmware()), 67), offered, "undionly.kpxe", "\x06\x01\x08\xff"},
		{"iPXE", at(message(discover, macA, IPXEFirmware(0)), 67), offered, "http://10.0.0.5/boot.ipxe", "\x06\x01\x08\xff"},
		{"UEFI is sent to 4011", at(message(discover, macA, UEFIFirmware(7)), 67), offered, "", ""},
		{"UEFI at 4011", at(message(request, macA, UEFIFirmware(7), ciaddr("10.0.0.77")), 4011), acked, "snponly.efi", "\x06\x01\x08\xff"},
		{"menu item at 4011", at(message(request, macA, BIOSFirmware(), option(43, 71, 4, 0, 9, 0, 0, 255)), 4011), acked, "undionly.kpxe", "\x06\x01\x08\x47\x04\x00\x09\x00\x00\xff"},
		{"HTTP", at(message(discover, macA, HTTPFirmware(16)), 67), offered, "http://10.0.0.5/snponly.efi", ""},

		{"a REQUEST on port 67 is for the other server", at(message(request, macA, BIOSFirmware(), requested("10.0.0.7"), serverID("10.0.0.5")), 67), silence, "", ""},
		{"a DISCOVER at 4011", at(message(discover, macA, BIOSFirmware()), 4011), silence, "", ""},
		{"an installed system", at(message(discover, macA, bareSystem), 67), silence, "", ""},
		{"an initramfs", at(message(discover, macA, InitramfsFirmware()), 67), silence, "", ""},
		{"an architecture without a rule", at(message(discover, macA, UEFIFirmware(11)), 67), silence, "", ""},
		{"a RELEASE", at(message(dhcpv4.MessageTypeRelease, macA, BIOSFirmware()), 67), silence, "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			kind, reply := serve(t, p, test.r)
			require.Equal(t, test.want, kind)
			if reply == nil {
				return
			}
			require.Nil(t, reply.YourIPAddr)
			require.NotContains(t, reply.Options, uint8(51), "no lease")
			require.Equal(t, "10.0.0.5", reply.ServerIdentifier().String())
			require.Equal(t, test.r.ClassIdentifier()[:9], reply.ClassIdentifier()[:min(9, len(reply.ClassIdentifier()))])
			require.Equal(t, test.file, offeredFile(reply))
			require.Equal(t, test.v43, string(reply.Options.Get(dhcpv4.OptionVendorSpecificInformation)))
			if test.r.Platform() == PlatformPXE {
				require.True(t, reply.Options.Has(dhcpv4.OptionClientMachineIdentifier))
			}
		})
	}
	p.OfferOnly = true
	_, reply := serve(t, p, at(message(discover, macA, UEFIFirmware(7)), 67))
	require.Equal(t, "snponly.efi", offeredFile(reply))
	_, err := (&Proxy{}).ServeDHCP(t.Context(), at(message(discover, macA, BIOSFirmware()), 67))
	require.ErrorIs(t, err, fs.ErrInvalid)
}

func TestPolicyCheck(t *testing.T) {
	direct := func(rules BootRules) *BootPolicy { return &BootPolicy{Boot: rules.Boot} }
	require.NoError(t, direct(chain).Check(t.Context(), false))
	require.NoError(t, proxyFor(chain).Check(t.Context(), true))
	require.ErrorContains(t, proxyFor(chain).Check(t.Context(), false), "UEFI PXE, architecture 7: it is sent to port 4011")
	p := proxyFor(chain)
	p.OfferOnly = true
	require.NoError(t, p.Check(t.Context(), false))

	for _, test := range []struct {
		name, want string
		rule       BootRule
	}{
		{"a loop", "iPXE on BIOS: it is told to load iPXE, which it is", BootRule{Match: Match{Archs: []iana.Arch{0}}, Boot: Boot{File: "undionly.kpxe"}}},
		{"a loop on UEFI", "iPXE on UEFI, architecture 7: it is told to load iPXE", BootRule{Boot: Boot{File: "boot/ipxe.efi"}}},
		{"no URL", "UEFI HTTP Boot, architecture 16", BootRule{Boot: Boot{File: "grub.efi"}}},
		{"boot servers that nobody is", "looks for a boot server", BootRule{Match: Match{Archs: []iana.Arch{7}}, Boot: Boot{File: "x", PXE: &PXE{Menu: []PXEItem{{1, "a"}}}}}},
		{"this server as boot server", "looks for a boot server", BootRule{Match: Match{Archs: []iana.Arch{7}}, Boot: Boot{File: "x", PXE: &PXE{Servers: []PXEServer{{1, []netip.Addr{ip("192.0.2.1")}}}}}}},
		{"too long", "BIOS PXE", BootRule{Boot: Boot{File: "x", PXE: &PXE{Prompt: &PXEPrompt{Text: string(make([]byte, 300))}}}}},
		{"an option that does not fit", "BIOS PXE: the reply is too long, options [200] do not fit", BootRule{Boot: Boot{File: "x", Options: dhcpv4.Options{200: make([]byte, 1400)}}}},
		{"option 60 alone", "sent to port 4011", BootRule{Match: Match{Archs: []iana.Arch{7}}, Boot: Boot{File: "x", Options: dhcpv4.Options{43: {255}}}}},
	} {
		err := direct(BootRules{test.rule}).Check(t.Context(), false)
		require.ErrorIs(t, err, fs.ErrInvalid, test.name)
		require.ErrorContains(t, err, test.want, test.name)
	}
	elsewhere := BootRules{{Match: Match{Archs: []iana.Arch{7}}, Boot: Boot{File: "x", PXE: &PXE{Servers: []PXEServer{{1, []netip.Addr{ip("10.0.0.9")}}}}}}}
	require.NoError(t, direct(elsewhere).Check(t.Context(), false))

	// A boot server with the address that the pool gives as its own is this one.
	pool := testPool(func(p *Pool) { p.ServerID = ip("10.0.0.9") })
	for _, next := range []Handler{pool, &SharedNetwork{Pools: []*Pool{pool}}} {
		p := &BootPolicy{Next: next, Boot: elsewhere.Boot}
		require.ErrorContains(t, p.Check(t.Context(), false), "looks for a boot server")
		require.NoError(t, p.Check(t.Context(), true))
	}
}

// A proxy says nothing that its client could not boot by: that may boot in
// another way then.
func TestProxySilence(t *testing.T) {
	for _, test := range []struct {
		name string
		boot Boot
		err  error
		f    Firmware
	}{
		{name: "nothing to boot", f: BIOSFirmware()},
		{name: "iPXE for iPXE", boot: Boot{File: "undionly.kpxe"}, f: IPXEFirmware(0)},
		{name: "no URL for HTTP", boot: Boot{File: "snponly.efi"}, f: HTTPFirmware(16)},
		{name: "a menu that does not fit", boot: Boot{PXE: &PXE{Menu: []PXEItem{{0, string(make([]byte, 251))}}}}, err: fs.ErrInvalid, f: BIOSFirmware()},
		{name: "a policy that fails", err: errTooLong, f: BIOSFirmware()},
	} {
		p := &Proxy{ServerID: ip("10.0.0.5"), Logger: slog.New(slog.DiscardHandler), Boot: func(context.Context, *Request) (Boot, error) {
			if test.boot.PXE != nil {
				return test.boot, nil
			}
			return test.boot, test.err
		}}
		reply, err := p.ServeDHCP(t.Context(), on(message(discover, macA, test.f)))
		require.ErrorIs(t, err, test.err, test.name)
		require.Nil(t, reply, test.name)
	}
	p := proxyFor(chain)
	nobody := message(discover, make(net.HardwareAddr, 6), BIOSFirmware())
	kind, _ := serve(t, p, on(nobody))
	require.Equal(t, silence, kind)
	kind, _ = serve(t, p, on(infiniband(discover, 1, option(93, 0, 0), func(m *dhcpv4.DHCPv4) { m.UpdateOption(dhcpv4.OptClassIdentifier(BIOSFirmware().VendorClass)) })))
	require.Equal(t, offered, kind, "without a hardware address, but known")
}

func TestChooseEDK2(t *testing.T) {
	offer := func(yiaddr, siaddr, file string, options dhcpv4.Options) *dhcpv4.DHCPv4 {
		m := &dhcpv4.DHCPv4{BootFileName: file, Options: dhcpv4.Options{54: {10, 0, 0, 1}}}
		if yiaddr != "" {
			m.YourIPAddr = toIP(ip(yiaddr))
		}
		if siaddr != "" {
			m.ServerIPAddr = toIP(ip(siaddr))
		}
		for code, v := range options {
			m.Options[code] = v
		}
		return m
	}
	pxe := []byte("PXEClient")
	plain := offer("10.0.0.5", "", "", nil)
	plainFile := offer("10.0.0.5", "", "a.efi", nil)
	pxe10 := offer("10.0.0.5", "", "b.efi", dhcpv4.Options{60: pxe, 43: {6, 1, 8, 255}})
	binl := offer("10.0.0.5", "10.0.0.7", "c.efi", dhcpv4.Options{60: pxe})
	proxy10 := offer("", "", "", dhcpv4.Options{60: pxe, 43: {6, 1, 8, 255}, 67: []byte("d.efi\x00")})
	proxyBINL := offer("", "", "", dhcpv4.Options{60: pxe})
	proxyOther := offer("", "", "e.efi", nil)
	for _, test := range []struct {
		name   string
		offers []*dhcpv4.DHCPv4
		want   EDK2Choice
		ok     bool
	}{
		{"nothing", nil, EDK2Choice{Offer: -1, Proxy: -1}, false},
		{"an address only", []*dhcpv4.DHCPv4{plain}, EDK2Choice{Offer: -1, Proxy: -1}, false},
		{"a plain file", []*dhcpv4.DHCPv4{plain, plainFile}, EDK2Choice{Offer: 1, Proxy: -1, File: "a.efi"}, true},
		{"boot information goes first", []*dhcpv4.DHCPv4{plainFile, proxy10, pxe10}, EDK2Choice{Offer: 2, Proxy: -1, File: "b.efi"}, true},
		{"a proxy", []*dhcpv4.DHCPv4{proxy10, plain}, EDK2Choice{Offer: 1, Proxy: 0, File: "d.efi"}, true},
		{"a proxy before a plain file", []*dhcpv4.DHCPv4{plainFile, proxy10}, EDK2Choice{Offer: 0, Proxy: 1, File: "d.efi"}, true},
		{"BINL goes before a plain file, and fails", []*dhcpv4.DHCPv4{plainFile, binl}, EDK2Choice{Offer: 1, Proxy: -1, Asks: ip("10.0.0.7")}, true},
		{"a proxy's BINL asks option 54", []*dhcpv4.DHCPv4{plainFile, proxyBINL}, EDK2Choice{Offer: 0, Proxy: 1, Asks: ip("10.0.0.1")}, true},
		{"a proxy without option 60", []*dhcpv4.DHCPv4{plain, proxyOther}, EDK2Choice{Offer: -1, Proxy: -1}, false},
	} {
		got, ok := ChooseEDK2(test.offers)
		require.Equal(t, test.ok, ok, test.name)
		require.Equal(t, test.want, got, test.name)
	}
}

func TestPXEOptions(t *testing.T) {
	p := &PXE{
		Control: PXEServersOnly | PXENoBroadcast, Multicast: ip("224.0.1.2"),
		Servers: []PXEServer{{1, []netip.Addr{ip("10.0.0.1"), ip("10.0.0.2")}}, {Type: 0x8000}},
		Menu:    []PXEItem{{0, "Local disk"}, {1, "Install"}}, Prompt: &PXEPrompt{5, "F8"},
	}
	b, err := p.Encode()
	require.NoError(t, err)
	require.Equal(t, "\x06\x01\x05\x07\x04\xe0\x00\x01\x02\x08\x0e\x00\x01\x02\x0a\x00\x00\x01\x0a\x00\x00\x02\x80\x00\x00"+
		"\x09\x17\x00\x00\x0aLocal disk\x00\x01\x07Install\x0a\x03\x05F8\xff", string(b))
	back, control, err := ParsePXE(b)
	require.NoError(t, err)
	require.True(t, control)
	require.Equal(t, p, back)
	for _, bad := range []string{"\x06\x02\x08\x00", "\x06\x00", "\x0a\x00", "\x06", "\x09\x03\x00\x01\x01", "\x08\x03\x00\x01\x01"} {
		_, _, err := ParsePXE([]byte(bad))
		require.Error(t, err, "%q", bad)
	}
	for _, bad := range []PXE{
		{Multicast: ip("::1")}, {Servers: []PXEServer{{1, []netip.Addr{{}}}}}, {Prompt: &PXEPrompt{Text: string(make([]byte, 255))}},
		{Menu: []PXEItem{{0, string(make([]byte, 251))}}}, {Servers: []PXEServer{{1, make([]netip.Addr, 61)}}},
	} {
		_, err := bad.Encode()
		require.ErrorIs(t, err, fs.ErrInvalid)
	}
}

func FuzzParsePXE(f *testing.F) {
	f.Add([]byte("\x06\x01\x08\xff"))
	f.Add([]byte("\x08\x07\x00\x01\x01\x0a\x00\x00\x01\x09\x04\x00\x00\x01x\x0a\x01\x00\x00\x47\x04\x00\x01\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := &Request{DHCPv4: &dhcpv4.DHCPv4{Options: dhcpv4.Options{43: data}}}
		if server, layer, ok := r.BootItem(); ok {
			r.Options[43] = PXEBootItem(server, layer)
			s, l, ok := r.BootItem()
			require.True(t, ok)
			require.Equal(t, []uint16{server, layer}, []uint16{s, l})
		}
		p, _, err := ParsePXE(data)
		if err != nil {
			return
		}
		if b, err := p.Encode(); err == nil {
			again, _, err := ParsePXE(b)
			require.NoError(t, err)
			require.Equal(t, p, again)
		}
	})
}

func TestBootForOtherFirmware(t *testing.T) {
	pi := net.HardwareAddr{0xb8, 0x27, 0xeb, 0, 0, 1}
	policy := &BootPolicy{Next: testPool(), Boot: func(context.Context, *Request) (Boot, error) {
		return Boot{
			File: "file", NextServer: ip("10.0.0.9"), KeepSAN: true, Options: dhcpv4.Options{72: {1}},
			PXELINUX: &PXELINUX{ConfigFile: "c", PathPrefix: "p/", Reboot: time.Minute},
		}, nil
	}}
	for _, test := range []struct {
		platform Platform
		m        *dhcpv4.DHCPv4
		want     map[uint8]string
	}{
		{PlatformRaspberryPi, message(discover, pi, RaspberryPiFirmware()), map[uint8]string{60: "PXEClient", 43: "\x06\x01\x03\x09\x17\x00\x00\x14Raspberry Pi Boot   \x0a\x04\x00PXE\xff"}},
		{PlatformRaspberryPi, message(discover, net.HardwareAddr{0xdc, 0xa6, 0x32, 0, 0, 1}, RaspberryPiFirmware()), map[uint8]string{43: "\x06\x01\x03\x09\x14\x00\x00\x11Raspberry Pi Boot\x0a\x04\x00PXE\xff"}},
		{PlatformEtherboot, message(discover, macA, EtherbootFirmware()), map[uint8]string{43: "\x3c\x09Etherboot\xff", 60: ""}},
		{PlatformUBoot, message(discover, macA, UBootFirmware()), map[uint8]string{60: "", 43: ""}},
		{PlatformGPXE, message(discover, macA, GPXEFirmware()), map[uint8]string{175: "\xb0\x01\x01\x08\x01\x01", 60: ""}},
		{PlatformPXE, message(discover, macA, BIOSFirmware()), map[uint8]string{208: "\xf1\x00\x74\x7e", 209: "c", 210: "p/", 211: "\x00\x00\x00\x3c", 72: "\x01"}},
	} {
		require.Equal(t, test.platform, on(test.m).Platform())
		_, reply := serve(t, policy, on(test.m))
		require.Equal(t, "10.0.0.9", reply.ServerIPAddr.String())
		require.Equal(t, "file", reply.BootFileName)
		for code, v := range test.want {
			require.Equal(t, v, string(reply.Options[code]), "%s: option %d", test.platform, code)
		}
	}
	system := message(discover, pi, bareSystem)
	require.Equal(t, PlatformNone, on(system).Platform(), "a system on a Pi is no ROM")
}
