package dhcp

import (
	"bytes"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

// Request is one message of a client, and how it arrived. Everything in it is
// read-only for handlers and trace hooks, and may be kept.
type Request struct {
	// DHCPv4 is the message. Its options are as the client sent them: of any
	// length, with any content.
	*dhcpv4.DHCPv4

	// Peer is the source of the datagram: 0.0.0.0:68 for a client without an
	// address. Local is where it was sent to, which may be the broadcast
	// address. Either is the zero value when the socket cannot tell.
	Peer, Local netip.AddrPort

	// Interface is where the datagram came in, nil when that is unknown (see
	// [Server.Serve]).
	Interface *net.Interface

	// addrs are the addresses of Interface, when the server already knew them.
	addrs []netip.Addr

	// platform is what Platform returns, when known says so: rules ask for it
	// again and again.
	platform Platform
	known    bool

	trail *trail // of Explain; nil otherwise
}

// Platform says what kind of program sent a request, as far as it matters for
// what it must be told. The values are stable and fit for configuration files.
type Platform string

const (
	// PlatformNone is a client that does not ask to boot: an installed
	// system, a printer.
	PlatformNone Platform = ""
	// PlatformPXE is a PXE ROM or a UEFI PXE client (option 60 "PXEClient"),
	// or another one that tells its architecture in option 93.
	PlatformPXE Platform = "pxe"
	// PlatformIPXE is iPXE (option 77 "iPXE", or option 175).
	PlatformIPXE Platform = "ipxe"
	// PlatformGPXE is gPXE, iPXE's ancestor (option 77 "gPXE").
	PlatformGPXE Platform = "gpxe"
	// PlatformHTTP is UEFI HTTP Boot (option 60 "HTTPClient").
	PlatformHTTP Platform = "http"
	// PlatformEtherboot is Etherboot 5 (option 60 "Etherboot-5..."), which
	// loads images made for it (nbi.img) or ELF.
	PlatformEtherboot Platform = "etherboot"
	// PlatformUBoot is U-Boot (option 60 "U-Boot..."), which looks for
	// PXELINUX's configuration at its next server.
	PlatformUBoot Platform = "uboot"
	// PlatformRaspberryPi is the boot ROM of a Raspberry Pi, which says that
	// it is a BIOS PC and is known by its maker's addresses (or by
	// architecture 41).
	PlatformRaspberryPi Platform = "rpi"
	// PlatformBOOTP is a client of that protocol.
	PlatformBOOTP Platform = "bootp"
	// PlatformLinux is a kernel or an initramfs that is past the boot file
	// and looks for its root: klibc's ipconfig (option 60 "Linux ipconfig"),
	// or a client that lists the root path (17) in option 55.
	PlatformLinux Platform = "linux"
)

// WantsFile reports whether a client of this platform asks for a boot file.
func (p Platform) WantsFile() bool {
	return p != PlatformNone && p != PlatformLinux
}

// HTTP Boot and PXE class identifiers (option 60) are told by their beginning;
// what follows describes the client ("PXEClient:Arch:00007:UNDI:003016").
const (
	classPXE       = "PXEClient"
	classHTTP      = "HTTPClient"
	classEtherboot = "Etherboot"
	classUBoot     = "U-Boot"
	classIPConfig  = "Linux ipconfig"

	archRaspberryPi iana.Arch = 41
)

// The hardware addresses of Raspberry Pis begin with these; the first are
// those of the Pi 3 and before.
var (
	raspberryPi3 = [3]byte{0xb8, 0x27, 0xeb}
	raspberryPis = [...][3]byte{
		raspberryPi3, {0xdc, 0xa6, 0x32}, {0xe4, 0x5f, 0x01}, {0x28, 0xcd, 0xc1}, {0xd8, 0x3a, 0xdd}, {0x2c, 0xcf, 0x67},
	}
)

// isRaspberryPi tells a Pi's ROM from a PC and from a system on a Pi.
func (r *Request) isRaspberryPi(class string) bool {
	arch, ok := r.Arch()
	if ok && arch == archRaspberryPi {
		return true
	}
	return ok && arch == iana.INTEL_X86PC && strings.HasPrefix(class, classPXE) && len(r.ClientHWAddr) == 6 &&
		slices.Contains(raspberryPis[:], [3]byte(r.ClientHWAddr[:3]))
}

// Platform tells what sent the request. iPXE sends option 77 as the bare
// string, others in the length-coded form of RFC 3004; both are understood.
// Under the cover of another user class iPXE is still known by option 175.
func (r *Request) Platform() Platform {
	if r.known {
		return r.platform
	}
	return r.tellPlatform()
}

func (r *Request) tellPlatform() Platform {
	userClass := r.Options.Get(dhcpv4.OptionUserClassInformation)
	class := string(r.Options.Get(dhcpv4.OptionClassIdentifier))
	switch {
	case hasUserClass(userClass, "gPXE"):
		return PlatformGPXE
	case hasUserClass(userClass, "iPXE"), len(r.Options.Get(dhcpv4.OptionEtherboot)) > 0:
		return PlatformIPXE
	case strings.HasPrefix(class, classHTTP):
		return PlatformHTTP
	case strings.HasPrefix(class, classEtherboot):
		return PlatformEtherboot
	case strings.HasPrefix(class, classUBoot):
		return PlatformUBoot
	case r.isRaspberryPi(class):
		return PlatformRaspberryPi
	case strings.HasPrefix(class, classPXE):
		return PlatformPXE
	}
	if _, ok := r.Arch(); ok {
		return PlatformPXE
	}
	if r.isBOOTP() {
		return PlatformBOOTP
	}
	if strings.HasPrefix(class, classIPConfig) || r.asksFor(dhcpv4.OptionRootPath) {
		return PlatformLinux
	}
	return PlatformNone
}

// hasUserClass looks for name in option 77: alone, or as one of the
// length-coded strings of RFC 3004. A list that lies about its lengths counts
// as far as it can be read.
func hasUserClass(data []byte, name string) bool {
	if string(bytes.TrimRight(data, "\x00")) == name {
		return true
	}
	for len(data) > 0 {
		n := int(data[0])
		data = data[1:]
		if n == 0 || n > len(data) {
			return false
		}
		if string(data[:n]) == name {
			return true
		}
		data = data[n:]
	}
	return false
}

// Arch returns the client's architecture (option 93, RFC 4578 section 2.1),
// the first one if it names several, and whether it told any.
func (r *Request) Arch() (iana.Arch, bool) {
	data := r.Options.Get(dhcpv4.OptionClientSystemArchitectureType)
	if len(data) < 2 {
		return 0, false
	}
	return iana.Arch(uint16(data[0])<<8 | uint16(data[1])), true
}

// UUID returns the machine's UUID (option 97, RFC 4578 section 2.3) as lower
// case text, bytes in the order of the wire, which is also the order that
// PXELINUX uses in file names. It is "" when the client sent none, a malformed
// one, or one of all zeros or all ones, as unprogrammed boards do.
func (r *Request) UUID() string {
	data := r.Options.Get(dhcpv4.OptionClientMachineIdentifier)
	if len(data) != 17 || data[0] != 0 {
		return ""
	}
	id := data[1:]
	if bytes.Count(id, []byte{0}) == 16 || bytes.Count(id, []byte{0xff}) == 16 {
		return ""
	}
	return formatUUID(id)
}

// isBOOTP reports whether the client speaks BOOTP (RFC 951): DHCP messages
// have a type.
func (r *Request) isBOOTP() bool {
	return !r.Options.Has(dhcpv4.OptionDHCPMessageType)
}

// UserClasses returns the user classes (option 77): the strings of a list as
// RFC 3004 has it, or the one that iPXE and others send bare.
func (r *Request) UserClasses() []string {
	data := r.Options.Get(dhcpv4.OptionUserClassInformation)
	var list []string
	for rest := data; len(rest) > 0; {
		n := int(rest[0])
		if n == 0 || n > len(rest)-1 {
			return []string{string(bytes.TrimRight(data, "\x00"))}
		}
		list, rest = append(list, string(rest[1:1+n])), rest[1+n:]
	}
	return list
}

// asksFor reports whether the client lists the option in option 55. Unlike
// [dhcpv4.DHCPv4.IsOptionRequested] it takes a missing list for "no".
func (r *Request) asksFor(code dhcpv4.OptionCode) bool {
	return bytes.IndexByte(r.Options.Get(dhcpv4.OptionParameterRequestList), code.Code()) >= 0
}

// hardwareAddr returns the client's hardware address, or nil for one that
// cannot identify a client: absent, or all zeros.
func (r *Request) hardwareAddr() net.HardwareAddr {
	if len(bytes.Trim(r.ClientHWAddr, "\x00")) == 0 {
		return nil
	}
	return r.ClientHWAddr
}

// byIDOnly reports whether the client has no hardware address in its messages
// and is known by its client identifier, as RFC 4390 has it for InfiniBand. One
// of zeroes is a broken machine, of which there may be many.
func (r *Request) byIDOnly() bool {
	return len(r.ClientHWAddr) == 0 && ByClientID.id(r) != ""
}

// identified reports whether a client can be told from all others.
func (r *Request) identified() bool { return r.hardwareAddr() != nil || r.byIDOnly() }

// machine names the client in logs: its hardware address, or what there is in
// its place.
func (r *Request) machine() string {
	if id := r.Options.Get(dhcpv4.OptionClientIdentifier); len(r.ClientHWAddr) == 0 && len(id) > 0 {
		return "client-id " + net.HardwareAddr(id[:min(len(id), 64)]).String()
	}
	return r.ClientHWAddr.String()
}

// onLink reports whether the client is on the subnet: its relay says so (see
// linkAddr), or
// the interface that the request came in by (without one, the address that it
// was sent to) has an address there.
func (r *Request) onLink(subnet netip.Prefix) bool {
	if link := r.linkAddr(); link.IsValid() {
		return subnet.Contains(link)
	}
	if r.Interface == nil {
		return subnet.Contains(r.Local.Addr())
	}
	addrs := r.addrs
	if addrs == nil {
		addrs = interfaceAddrs(r.Interface)
	}
	for _, a := range addrs {
		if subnet.Contains(a) {
			return true
		}
	}
	return false
}

// toAddr converts an address of a message; unset and 0.0.0.0 are the zero Addr.
func toAddr(ip net.IP) netip.Addr {
	a, ok := netip.AddrFromSlice(ip)
	if a = a.Unmap(); !ok || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

// toIP converts the other way; the zero Addr becomes nil, which is 0.0.0.0 on
// the wire.
func toIP(a netip.Addr) net.IP {
	return net.IP(a.AsSlice())
}
