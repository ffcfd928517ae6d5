package dhcp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"path"
	"slices"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

// Check plays the DISCOVER of every firmware that this package knows against
// the policy, and returns an error, [fs.ErrInvalid], that names each that
// would not boot by what it is told: one that is sent to port 4011, or to look
// for a boot server, where nobody answers (see [ChooseEDK2]); iPXE that is
// told to load iPXE again; UEFI HTTP Boot without a URL; options that do not
// fit. It is for when a policy is loaded. Firmware for which the policy has
// nothing is no error. Boot is asked, for machines with made-up hardware
// addresses; Next is not, but of a Pool or SharedNetwork it is known that its
// ServerID is this server. port4011 says whether that port is served.
func (p *BootPolicy) Check(ctx context.Context, port4011 bool) error {
	// An address from somewhere, and the policy's say.
	self := netip.AddrFrom4([4]byte{192, 0, 2, 1})
	pool, _ := p.Next.(*Pool)
	if n, ok := p.Next.(*SharedNetwork); ok && len(n.Pools) > 0 {
		pool = n.Pools[0]
	}
	if pool != nil && pool.ServerID.Is4() {
		self = pool.ServerID
	}
	policy := &BootPolicy{Boot: p.Boot, Logger: p.Logger, Next: HandlerFunc(func(_ context.Context, r *Request) (*dhcpv4.DHCPv4, error) {
		return addressOffer(r, self), nil
	})}
	return checkPolicy(ctx, policy, self, false, port4011)
}

// Check is [BootPolicy.Check] for a proxy, beside a server that gives
// addresses and nothing else.
func (p *Proxy) Check(ctx context.Context, port4011 bool) error {
	return checkPolicy(ctx, p, p.ServerID, true, port4011)
}

func addressOffer(r *Request, self netip.Addr) *dhcpv4.DHCPv4 {
	offer := NewReply(r, dhcpv4.MessageTypeOffer)
	offer.YourIPAddr = net.IPv4(192, 0, 2, 100).To4()
	setOption(offer, dhcpv4.OptionServerIdentifier, self.AsSlice())
	setOption(offer, dhcpv4.OptionSubnetMask, []byte{255, 255, 255, 0})
	return offer
}

type checkedFirmware struct {
	name string
	f    Firmware
	hw   net.HardwareAddr
}

func checkedFirmwares() []checkedFirmware {
	hw := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	list := []checkedFirmware{
		{"BIOS PXE", BIOSFirmware(), hw}, {"gPXE", GPXEFirmware(), hw}, {"Etherboot", EtherbootFirmware(), hw},
		{"U-Boot", UBootFirmware(), hw}, {"Raspberry Pi", RaspberryPiFirmware(), net.HardwareAddr{0xdc, 0xa6, 0x32, 0, 0, 1}},
		{"iPXE on BIOS", IPXEFirmware(iana.INTEL_X86PC), hw},
	}
	for _, arch := range []iana.Arch{iana.EFI_IA32, iana.EFI_X86_64, iana.EFI_BC, iana.EFI_ARM64, iana.EFI_RISCV64} {
		list = append(list, checkedFirmware{fmt.Sprintf("UEFI PXE, architecture %d", arch), UEFIFirmware(arch), hw},
			checkedFirmware{fmt.Sprintf("iPXE on UEFI, architecture %d", arch), IPXEFirmware(arch), hw})
	}
	for _, arch := range []iana.Arch{iana.EFI_X86_HTTP, iana.EFI_X86_64_HTTP, iana.EFI_ARM64_HTTP, iana.EFI_RISCV64_HTTP} {
		list = append(list, checkedFirmware{fmt.Sprintf("UEFI HTTP Boot, architecture %d", arch), HTTPFirmware(arch), hw})
	}
	return list
}

func checkPolicy(ctx context.Context, h Handler, self netip.Addr, proxy, port4011 bool) error {
	var problems []error
	add := func(f checkedFirmware, format string, args ...any) {
		problems = append(problems, fmt.Errorf("%s: %s", f.name, fmt.Sprintf(format, args...)))
	}
	for _, f := range checkedFirmwares() {
		client := Client{HardwareAddr: f.hw, UUID: [16]byte{1}, Firmware: f.f}
		r := &Request{
			DHCPv4: client.message(dhcpv4.MessageTypeDiscover), trail: new(trail),
			Local: netip.AddrPortFrom(broadcastAddr, serverPort),
		}
		reply, err := h.ServeDHCP(ctx, r)
		if err != nil {
			if ctx.Err() != nil {
				return err
			}
			add(f, "%v", err)
			continue
		}
		withheld := func(why string) bool {
			return slices.ContainsFunc(r.trail.steps, func(step string) bool { return strings.Contains(step, why) })
		}
		if withheld(loadItself) {
			add(f, "it is told to load iPXE, which it is, again and again: put a rule with the script for platform %q before the one that loads iPXE", PlatformIPXE)
		}
		if withheld(noURL) {
			add(f, "its boot file is no URL that begins with http:// or https://")
		}
		if reply == nil {
			continue
		}
		if _, left, err := encode(r, reply); err != nil {
			add(f, "%v", err)
			continue
		} else if len(left) > 0 {
			add(f, "the reply is too long, options %v do not fit", left)
		}
		file := offeredFile(reply)
		if r.Platform() == PlatformPXE {
			offers := []*dhcpv4.DHCPv4{reply}
			if proxy {
				offers = append(offers, addressOffer(r, netip.AddrFrom4([4]byte{192, 0, 2, 9})))
			}
			choice, ok := ChooseEDK2(offers)
			bootable := file != "" || len(reply.Options.Get(dhcpv4.OptionClassIdentifier)) > 0
			switch {
			case !ok && bootable:
				add(f, "it finds nothing to boot in its offers")
			case choice.Asks.IsValid() && choice.Asks == self && !port4011:
				add(f, "it is sent to port 4011 of this server, which is not served: serve it (Server.ProxyPort), or tell it everything in the offer")
			case choice.Discover && !port4011 && asksHere(reply, self):
				add(f, "it looks for a boot server on port 4011, and this server does not serve it: set PXEDirect, list other boot servers, or serve the port")
			}
		}
	}
	if problems == nil {
		return nil
	}
	return fmt.Errorf("dhcp: boot policy: %w: %w", errors.Join(problems...), fs.ErrInvalid)
}

// asksHere reports whether a client that looks for boot servers would come to
// this one: it is listed, or none is.
func asksHere(reply *dhcpv4.DHCPv4, self netip.Addr) bool {
	pxe, _, err := ParsePXE(reply.Options.Get(dhcpv4.OptionVendorSpecificInformation))
	if err != nil {
		return true
	}
	listed := false
	for _, s := range pxe.Servers {
		for _, a := range s.Addrs {
			listed = true
			if a == self {
				return true
			}
		}
	}
	return !listed
}

// isIPXE tells by the names that builds of iPXE have.
func isIPXE(file string) bool {
	name := strings.ToLower(path.Base(file))
	switch path.Ext(name) {
	case ".kpxe", ".kkpxe", ".kkkpxe", ".pxe", ".efi":
		return strings.Contains(name, "ipxe") || strings.HasPrefix(name, "undionly") || strings.HasPrefix(name, "snponly") || strings.HasPrefix(name, "snp.")
	}
	return false
}
