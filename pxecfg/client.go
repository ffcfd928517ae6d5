package pxecfg

import (
	"bytes"
	"encoding/hex"
	"net"
	"net/netip"
	"strings"

	"github.com/insomniacslk/dhcp/iana"
)

// Client is what is known about one booting machine. Every field may be
// missing; the zero Client is a machine about which nothing is known. A Client
// is a plain value: functions of this package never change the MAC they are
// handed, and callers should not change it afterwards either.
type Client struct {
	// UUID is the machine's UUID in the spelling of the wire: the 16 bytes of
	// DHCP option 97 in their order, lower case, as [FormatUUID] writes it.
	// dmidecode and iPXE show the first three groups byte-swapped; see
	// [SwapUUID].
	UUID string
	// HardwareType is the ARP hardware type of MAC. 0 means 1, Ethernet.
	HardwareType uint8
	// MAC is the hardware address that the machine boots from.
	MAC net.HardwareAddr
	// IP is the machine's address.
	IP netip.Addr
	// Peer is where the request came from, when that is only evidence and not
	// the machine's identity: beside a foreign DHCP server a machine is who
	// the requested name says, from whatever address it asks. Invalid where
	// IP says it already.
	Peer netip.Addr
	// Hostname is the name that DHCP gives the machine, without a domain.
	Hostname string
	// Arch is the client architecture (RFC 4578 section 2.1), valid only if
	// ArchKnown is set, since 0 is a BIOS PC.
	Arch      iana.Arch
	ArchKnown bool
	// Platform is "pcbios" or "efi" as iPXE's ${platform} has it; empty when
	// it is not known.
	Platform string
	// Loader is the program that asks; empty when it is not known. A [Tree]
	// tells it from the name that is asked for; only that it is U-Boot Lookup
	// has to say.
	Loader Loader
	// ConfigFile is the value of DHCP option 209 sent to the machine
	// (RFC 5071 section 4). PXELINUX asks for it before any other name.
	ConfigFile string
	// PathPrefix is the value of DHCP option 210 sent to the machine (RFC
	// 5071 section 5). PXELINUX puts it before each name in place of the
	// directory of its boot file, so it ends with a slash.
	PathPrefix string
}

// Loader is a boot loader.
type Loader string

// The loaders.
const (
	LoaderPXELINUX Loader = "pxelinux"
	LoaderIPXE     Loader = "ipxe"
	LoaderGRUB     Loader = "grub"
	// LoaderUBoot asks for PXELINUX's names: only who knows the machine, such
	// as a DHCP server, can tell the two apart.
	LoaderUBoot Loader = "u-boot"
	// LoaderHTTP is firmware that boots over HTTP (the vendor class
	// HTTPClient). It asks for a program, and no configuration of its own.
	LoaderHTTP Loader = "http"
)

// String names the client in logs: by hardware address, host name and IP
// address, or by UUID when there is nothing better.
func (c Client) String() string {
	var parts []string
	if len(c.MAC) > 0 {
		parts = append(parts, c.MAC.String())
	} else if c.UUID != "" {
		parts = append(parts, c.UUID)
	}
	if c.Hostname != "" {
		parts = append(parts, c.Hostname)
	}
	if c.IP.IsValid() {
		parts = append(parts, c.IP.String())
	} else if c.Peer.IsValid() {
		parts = append(parts, "from "+c.Peer.String())
	}
	if len(parts) == 0 {
		return "unknown client"
	}
	return strings.Join(parts, " ")
}

func (c Client) hardwareType() uint8 {
	if c.HardwareType == 0 {
		return 1
	}
	return c.HardwareType
}

// ip4 returns the client's IPv4 address, unmapped.
func (c Client) ip4() (netip.Addr, bool) {
	ip := c.IP.Unmap()
	return ip, ip.Is4()
}

// platform is Platform, or what the architecture says of it.
func (c Client) platform() string {
	switch {
	case c.Platform != "" || !c.ArchKnown:
		return c.Platform
	case c.Arch == iana.INTEL_X86PC:
		return "pcbios"
	}
	switch c.Arch {
	case iana.EFI_ITANIUM, iana.EFI_IA32, iana.EFI_BC, iana.EFI_XSCALE, iana.EFI_X86_64, iana.EFI_ARM32, iana.EFI_ARM64,
		iana.EFI_X86_HTTP, iana.EFI_X86_64_HTTP, iana.EFI_BC_HTTP, iana.EFI_ARM32_HTTP, iana.EFI_ARM64_HTTP:
		return "efi"
	}
	return ""
}

// FormatUUID writes 16 bytes, in the order of DHCP option 97 (after its type
// byte, RFC 4578 section 2.3), as the text that PXELINUX and GRUB ask for.
func FormatUUID(b [16]byte) string {
	var out [36]byte
	hex.Encode(out[0:8], b[0:4])
	out[8] = '-'
	hex.Encode(out[9:13], b[4:6])
	out[13] = '-'
	hex.Encode(out[14:18], b[6:8])
	out[18] = '-'
	hex.Encode(out[19:23], b[8:10])
	out[23] = '-'
	hex.Encode(out[24:], b[10:])
	return string(out[:])
}

// SwapUUID turns the spelling of the wire into the one that dmidecode and
// iPXE's ${uuid} show (SMBIOS 2.6 and later: the first three groups are
// little-endian), and back. Text that is not a UUID is returned unchanged.
func SwapUUID(uuid string) string {
	b, ok := parseUUID(uuid)
	if !ok {
		return uuid
	}
	b[0], b[1], b[2], b[3] = b[3], b[2], b[1], b[0]
	b[4], b[5] = b[5], b[4]
	b[6], b[7] = b[7], b[6]
	return FormatUUID(b)
}

// parseUUID reads the 8-4-4-4-12 form in either case.
func parseUUID(s string) (b [16]byte, ok bool) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return b, false
	}
	var digits [32]byte
	n := copy(digits[:], s[:8])
	n += copy(digits[n:], s[9:13])
	n += copy(digits[n:], s[14:18])
	n += copy(digits[n:], s[19:23])
	copy(digits[n:], s[24:])
	_, err := hex.Decode(b[:], digits[:])
	return b, err == nil
}

// sameUUID compares two UUIDs whose byte order may differ.
func sameUUID(a, b string) bool {
	x, ok := parseUUID(a)
	if !ok {
		return false
	}
	y, ok := parseUUID(b)
	if !ok {
		return false
	}
	return x == y || FormatUUID(x) == SwapUUID(b)
}

// validForPXELINUX is PXELINUX's own test of a UUID: byte 6 holds the version
// in its upper half, which rules out all-zero, all-one and the usual
// placeholders of board vendors.
func validForPXELINUX(b [16]byte) bool { return b[6] >= 0x10 && b[6] < 0xf0 }

// parseMAC reads a hardware address with colons, hyphens or dots, or as bare
// hex digits.
func parseMAC(s string) (net.HardwareAddr, bool) {
	if mac, err := net.ParseMAC(s); err == nil {
		return mac, true
	}
	if len(s) == 12 || len(s) == 16 || len(s) == 40 {
		if mac, err := hex.DecodeString(s); err == nil {
			return mac, true
		}
	}
	return nil, false
}

func sameMAC(a, b net.HardwareAddr) bool { return len(a) > 0 && bytes.Equal(a, b) }
