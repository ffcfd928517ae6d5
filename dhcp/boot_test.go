package dhcp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"
)

// site is what a site with BIOS, UEFI and HTTP machines would configure.
var site = BootRules{
	{Match: Match{HardwareAddrs: []net.HardwareAddr{{2, 0, 0, 0, 0, 0xc}}}, Boot: Boot{}}, // boots from its disk
	{Match: Match{Platforms: []Platform{PlatformLinux}}, Boot: Boot{RootPath: "10.0.0.3:/srv/root", NextServer: ip("10.0.0.3")}},
	{Match: Match{Platforms: []Platform{PlatformIPXE, PlatformGPXE}}, Boot: Boot{File: "http://10.0.0.1/boot.ipxe"}},
	{Match: Match{Archs: []iana.Arch{iana.INTEL_X86PC}}, Boot: Boot{File: "undionly.kpxe"}},
	{Match: Match{Archs: []iana.Arch{iana.EFI_X86_64}}, Boot: Boot{File: "snponly.efi", NextServer: ip("10.0.0.9"), ServerName: "boot"}},
	{Match: Match{Archs: []iana.Arch{iana.EFI_X86_64_HTTP}}, Boot: Boot{File: "http://10.0.0.1/snponly.efi"}},
}

func TestBootPolicy(t *testing.T) {
	policy := func() *BootPolicy {
		return &BootPolicy{Next: testPool(), Boot: site.Boot, Logger: slog.New(slog.DiscardHandler)}
	}
	type answer struct {
		file, file67, next, sname, name66, class, root string
		vendor, ipxe                                   []byte
	}
	read := func(m *dhcpv4.DHCPv4) answer {
		a := answer{
			file: m.BootFileName, file67: m.BootFileNameOption(), sname: m.ServerHostName, name66: m.TFTPServerName(),
			class: m.ClassIdentifier(), root: m.RootPath(),
			vendor: m.Options.Get(dhcpv4.OptionVendorSpecificInformation), ipxe: m.Options.Get(dhcpv4.OptionEtherboot),
		}
		if next := toAddr(m.ServerIPAddr); next.IsValid() {
			a.next = next.String()
		}
		return a
	}
	pxe := []byte{6, 1, 8, 255}
	noProxy := []byte{176, 1, 1}
	uboot := Firmware{VendorClass: "U-Boot.armv8", Archs: []iana.Arch{iana.INTEL_X86PC}}
	gpxe := IPXEFirmware(0)
	gpxe.UserClass = "gPXE"
	gpxe.Params = nil

	for _, test := range []struct {
		name string
		f    Firmware
		mac  net.HardwareAddr
		want answer
	}{
		{"BIOS", BIOSFirmware(), macA, answer{file: "undionly.kpxe", file67: "undionly.kpxe", next: "10.0.0.1", class: "PXEClient", vendor: pxe}},
		{"UEFI", UEFIFirmware(7), macA, answer{file: "snponly.efi", file67: "snponly.efi", next: "10.0.0.9", sname: "boot", name66: "boot", class: "PXEClient", vendor: pxe}},
		{"UEFI, architecture 9", UEFIFirmware(9), macA, answer{file: "snponly.efi", file67: "snponly.efi", next: "10.0.0.9", sname: "boot", name66: "boot", class: "PXEClient", vendor: pxe}},
		{"HTTP", HTTPFirmware(16), macA, answer{file: "http://10.0.0.1/snponly.efi", file67: "http://10.0.0.1/snponly.efi", next: "10.0.0.1", class: "HTTPClient"}},
		{"iPXE", IPXEFirmware(7), macA, answer{file: "http://10.0.0.1/boot.ipxe", file67: "http://10.0.0.1/boot.ipxe", next: "10.0.0.1", name66: "10.0.0.1", ipxe: noProxy}},
		{"gPXE that asks for nothing", gpxe, macA, answer{file: "http://10.0.0.1/boot.ipxe", next: "10.0.0.1", ipxe: noProxy}},
		{"another with an architecture", uboot, macA, answer{file: "undionly.kpxe", next: "10.0.0.1"}},
		{"initramfs", InitramfsFirmware(), macA, answer{next: "10.0.0.3", root: "10.0.0.3:/srv/root"}},
		{"a system", bareSystem, macA, answer{}},
		{"boots from its disk", BIOSFirmware(), macC, answer{}},
		{"no rule", UEFIFirmware(iana.EFI_ARM64), macA, answer{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := policy()
			kind, offer := serve(t, p, on(message(discover, test.mac, test.f)))
			require.Equal(t, offered, kind, "an address is given in any case")
			require.Equal(t, test.want, read(offer))
			kind, ack := serve(t, p, on(message(request, test.mac, test.f, requested(offer.YourIPAddr.String()), serverID("10.0.0.1"))))
			require.Equal(t, acked, kind)
			require.Equal(t, test.want, read(ack), "OFFER and ACK say the same")
		})
	}
	kind, nak := serve(t, policy(), on(message(request, macA, BIOSFirmware(), requested("192.168.0.1"))))
	require.Equal(t, naked, kind)
	require.Equal(t, answer{}, read(nak))
}

func TestBootPolicyLongURL(t *testing.T) {
	url := "http://10.0.0.1/" + strings.Repeat("x", 200)
	p := &BootPolicy{Next: testPool(), Boot: func(context.Context, *Request) (Boot, error) { return Boot{File: url, Hostname: "n1"}, nil }}
	r := on(message(discover, macA, Firmware{UserClass: "iPXE", Params: []byte{1}, MaxSize: 1472})) // does not ask for 67
	_, reply := serve(t, p, r)
	data, left, err := encode(r, reply)
	require.NoError(t, err)
	require.Empty(t, left)
	got, err := dhcpv4.FromBytes(data)
	require.NoError(t, err)
	require.Empty(t, got.BootFileName)
	require.Equal(t, url, got.BootFileNameOption())
	require.Equal(t, "n1", got.HostName())
}

// An HTTP client that is told a TFTP server has nothing from that.
func TestBootPolicyNoServerName(t *testing.T) {
	p := &BootPolicy{Next: testPool(), Boot: func(context.Context, *Request) (Boot, error) { return Boot{File: "http://10.0.0.1/x.efi"}, nil }}
	for _, f := range []Firmware{HTTPFirmware(16), UEFIFirmware(7)} {
		f.Params = []byte{66, 67}
		r := on(message(discover, macA, f))
		_, reply := serve(t, p, r)
		require.Equal(t, r.Platform() != PlatformHTTP, reply.Options.Has(dhcpv4.OptionTFTPServerName))
		require.Equal(t, "http://10.0.0.1/x.efi", strings.TrimRight(reply.BootFileNameOption(), "\x00"))
	}
}

func TestBootPolicySANBoot(t *testing.T) {
	p := &BootPolicy{Next: testPool(), Boot: func(context.Context, *Request) (Boot, error) {
		return Boot{RootPath: "iscsi:10.0.0.1::::iqn.2001-04.com.example:disk"}, nil
	}}
	_, reply := serve(t, p, on(message(discover, macA, IPXEFirmware(0))))
	require.Equal(t, []byte{176, 1, 1}, reply.Options.Get(dhcpv4.OptionEtherboot))
	require.Equal(t, "iscsi:10.0.0.1::::iqn.2001-04.com.example:disk", reply.RootPath())
	require.False(t, reply.Options.Has(dhcpv4.OptionBootfileName))
	_, reply = serve(t, p, on(message(discover, macA, BIOSFirmware())))
	require.Empty(t, reply.ClassIdentifier(), "nothing to boot for a ROM")

	p.Next = testPool(func(p *Pool) { p.Options = dhcpv4.Options{175: {1, 1, 9, 255}} }) // of the site
	_, reply = serve(t, p, on(message(discover, macA, IPXEFirmware(0))))
	require.Equal(t, []byte{1, 1, 9, 176, 1, 1}, reply.Options.Get(dhcpv4.OptionEtherboot))
}

func TestBootPolicyWarnings(t *testing.T) {
	logger, logged := logTo(slog.LevelWarn)
	p := &BootPolicy{Next: testPool(), Boot: site.Boot, Logger: logger}
	for range 3 {
		serve(t, p, on(message(discover, macA, UEFIFirmware(iana.EFI_ARM64))))
	}
	require.Equal(t, 1, strings.Count(logged.String(), "\n"), logged)
	require.Contains(t, logged.String(), "add a rule for its architecture")
	require.Contains(t, logged.String(), "arch=11")
	serve(t, p, on(message(discover, macB, UEFIFirmware(iana.EFI_ARM64))))
	require.Equal(t, 2, strings.Count(logged.String(), "\n"), "another machine")

	logger, logged = logTo(slog.LevelWarn)
	p = &BootPolicy{Next: testPool(), Logger: logger, Boot: func(context.Context, *Request) (Boot, error) { return Boot{File: "snponly.efi"}, nil }}
	_, reply := serve(t, p, on(message(discover, macA, HTTPFirmware(16))))
	require.Contains(t, logged.String(), "no URL for a UEFI HTTP client")
	require.Empty(t, reply.BootFileName)
	require.Empty(t, reply.ClassIdentifier())

	// By a rule of this machine's, which Check does not know of, iPXE would load itself for ever.
	logger, logged = logTo(slog.LevelWarn)
	p = &BootPolicy{Next: testPool(), Logger: logger, Boot: func(context.Context, *Request) (Boot, error) { return Boot{File: "http://10.0.0.1/ipxe.efi"}, nil }}
	_, reply = serve(t, p, on(message(discover, macA, IPXEFirmware(iana.EFI_X86_64))))
	require.Contains(t, logged.String(), "load iPXE again and again")
	require.Empty(t, reply.BootFileName)
	require.Empty(t, reply.BootFileNameOption())
	_, reply = serve(t, p, on(message(discover, macA, UEFIFirmware(iana.EFI_X86_64))))
	require.Equal(t, "http://10.0.0.1/ipxe.efi", reply.BootFileName)

	logger, logged = logTo(slog.LevelWarn)
	p = &BootPolicy{Next: testPool(), Logger: logger, Boot: func(context.Context, *Request) (Boot, error) { return Boot{}, fs.ErrNotExist }}
	serve(t, p, on(message(discover, macA, InitramfsFirmware())))
	require.Empty(t, logged.String(), "an initramfs does not need to be told anything")
}

// Each architecture is told its own file, HTTP clients a URL with their class;
// of one that nobody has a rule for the log says what to do.
func TestArchitectures(t *testing.T) {
	var rules BootRules
	file := func(arch iana.Arch) string { return fmt.Sprintf("http://10.0.0.1/%d", arch) }
	// What firmware sends, with the 9 and 17 of an erratum.
	told := map[iana.Arch]iana.Arch{
		0: 0, 6: 6, 7: 7, 9: 7, 10: 10, 11: 11, 15: 15, 16: 16, 17: 16, 18: 18, 19: 19, 27: 27, 28: 28, 37: 37, 39: 39, 41: 41,
	}
	for sent, rule := range told {
		if sent == rule {
			rules = append(rules, BootRule{Match: Match{Archs: []iana.Arch{rule}}, Boot: Boot{File: file(rule)}})
		}
	}
	logger, logged := logTo(slog.LevelWarn)
	p := &BootPolicy{Next: testPool(), Boot: rules.Boot, Logger: logger}
	for sent, rule := range told {
		f := UEFIFirmware(sent)
		class := "PXEClient"
		switch sent {
		case 15, 16, 17, 18, 19, 28:
			f, class = HTTPFirmware(sent), "HTTPClient"
		}
		_, reply := serve(t, p, on(message(discover, macA, f)))
		require.Equal(t, file(rule), reply.BootFileName, "architecture %d", sent)
		require.Equal(t, class, reply.ClassIdentifier(), "architecture %d", sent)
	}
	require.Empty(t, logged.String())
	_, reply := serve(t, p, on(message(discover, macA, UEFIFirmware(0x4242))))
	require.Empty(t, reply.BootFileName)
	require.Contains(t, logged.String(), "arch=16962")
	require.Contains(t, logged.String(), "add a rule for its architecture or platform")
	require.Contains(t, logged.String(), "class=PXEClient:Arch:16962:")
}

func TestBootPolicyErrors(t *testing.T) {
	broken := errors.New("inventory is down")
	p := &BootPolicy{Next: testPool(), Boot: func(context.Context, *Request) (Boot, error) { return Boot{}, broken }}
	reply, err := p.ServeDHCP(t.Context(), on(message(discover, macA, BIOSFirmware())))
	require.Nil(t, reply, "a machine that is told of no file would give up instead of trying again")
	require.ErrorIs(t, err, broken)
	kind, _ := serve(t, p, on(message(discover, macA, bareSystem)))
	require.Equal(t, offered, kind)

	p.Next = HandlerFunc(func(context.Context, *Request) (*dhcpv4.DHCPv4, error) { return nil, ErrDrop })
	_, err = p.ServeDHCP(t.Context(), on(message(discover, macA, BIOSFirmware())))
	require.ErrorIs(t, err, ErrDrop)
}

func TestBootRuleMatches(t *testing.T) {
	bios := on(message(discover, net.HardwareAddr{0xb8, 0x27, 0xeb, 1, 2, 3}, BIOSFirmware()))
	for _, test := range []struct {
		rule BootRule
		want bool
	}{
		{BootRule{}, true},
		{BootRule{Match: Match{Archs: []iana.Arch{6, 0}}}, true},
		{BootRule{Match: Match{Archs: []iana.Arch{7}}}, false},
		{BootRule{Match: Match{Platforms: []Platform{PlatformIPXE}}}, false},
		{BootRule{Match: Match{Platforms: []Platform{PlatformIPXE, PlatformRaspberryPi}}}, true},
		{BootRule{Match: Match{HardwareAddrs: []net.HardwareAddr{{0xdc, 0xa6, 0x32}, {0xb8, 0x27, 0xeb}}}}, true},
		{BootRule{Match: Match{HardwareAddrs: []net.HardwareAddr{{0xdc, 0xa6, 0x32}}}}, false},
		{BootRule{Match: Match{HardwareAddrs: []net.HardwareAddr{{0xb8, 0x27, 0xeb, 1, 2, 3, 4}}}}, false},
		{BootRule{Match: Match{Archs: []iana.Arch{0}, Platforms: []Platform{PlatformRaspberryPi}, HardwareAddrs: []net.HardwareAddr{{0xb8}}}}, true},
		{BootRule{Match: Match{Archs: []iana.Arch{0}, Platforms: []Platform{PlatformHTTP}}}, false},
	} {
		require.Equal(t, test.want, test.rule.Matches(bios), "%+v", test.rule)
	}
	require.False(t, (&BootRule{Match: Match{Archs: allArchs}}).Matches(on(message(discover, macA, bareSystem))), "no architecture told")
	_, err := BootRules{}.Boot(t.Context(), bios)
	require.ErrorIs(t, err, fs.ErrNotExist)
}
