package pxecfg

import (
	"strconv"
	"strings"
)

const pxelinuxDir = "pxelinux.cfg/"

// Names returns the configuration files that PXELINUX asks for, in its order
// and relative to its path prefix (see [Prefix]): option 209, the UUID, the
// hardware address, the IPv4 address in hexadecimal shortened digit by digit,
// default. What the client lacks is left out; a UUID that PXELINUX takes for a
// placeholder (all zero, all one ...) is left out as PXELINUX does.
func (c Client) Names() []string {
	names := make([]string, 0, 12)
	if c.ConfigFile != "" {
		names = append(names, c.ConfigFile)
	}
	if b, ok := parseUUID(c.UUID); ok && validForPXELINUX(b) {
		names = append(names, pxelinuxDir+FormatUUID(b))
	}
	if len(c.MAC) > 0 {
		names = append(names, string(c.appendTypedMAC(append(make([]byte, 0, 40), pxelinuxDir...))))
	}
	names = c.appendLadder(names, pxelinuxDir)
	return append(names, pxelinuxDir+"default")
}

// GRUBNames returns the configuration files that GRUB 2.06 and later asks for
// when it was started over TFTP, in its order and relative to $prefix. Unlike
// PXELINUX it asks for any UUID, and it writes hardware type 01 whatever the type
// is. See [Client.GRUBAliases] for loaders that do
// not search by themselves.
func (c Client) GRUBNames() []string {
	const base = "grub.cfg"
	names := make([]string, 0, 11)
	if b, ok := parseUUID(c.UUID); ok {
		names = append(names, base+"-"+FormatUUID(b))
	}
	if len(c.MAC) > 0 {
		names = append(names, string(c.ethernet().appendTypedMAC(append(make([]byte, 0, 40), "grub.cfg-"...))))
	}
	names = c.appendLadder(names, base+"-")
	if ip := c.IP.Unmap(); ip.Is6() {
		// One try with all eight groups, not the shortened text of RFC 5952.
		b := ip.As16()
		name := []byte(base)
		for i := 0; i < 16; i += 2 {
			name = append(name, '-')
			name = strconv.AppendUint(name, uint64(b[i])<<8|uint64(b[i+1]), 16)
		}
		names = append(names, string(name))
	}
	return append(names, base)
}

// GRUBAliases returns further names of the machine's own file that are in use
// with network GRUBs which only read grub.cfg, and branch there: with the
// colons of $net_default_mac, and with hyphens but without a hardware type.
func (c Client) GRUBAliases() []string {
	if len(c.MAC) == 0 {
		return nil
	}
	colons := c.MAC.String()
	return []string{
		"grub.cfg-" + colons,
		"grub.cfg-" + strings.ReplaceAll(colons, ":", "-"),
	}
}

// ethernet is the client for loaders that take any network for an Ethernet.
func (c Client) ethernet() Client {
	c.HardwareType = 1
	return c
}

func (c Client) appendTypedMAC(b []byte) []byte {
	const digits = "0123456789abcdef"
	ht := c.hardwareType()
	b = append(b, digits[ht>>4], digits[ht&15])
	for _, x := range c.MAC {
		b = append(b, '-', digits[x>>4], digits[x&15])
	}
	return b
}

// appendLadder appends prefix with 8, 7 ... 1 digits of the IPv4 address.
func (c Client) appendLadder(names []string, prefix string) []string {
	h, ok := c.hexIP()
	if !ok {
		return names
	}
	full := prefix + h // each step is a slice of this one string
	for n := len(full); n > len(prefix); n-- {
		names = append(names, full[:n])
	}
	return names
}

func (c Client) hexIP() (string, bool) {
	ip, ok := c.ip4()
	if !ok {
		return "", false
	}
	const digits = "0123456789ABCDEF"
	b := ip.As4()
	var out [8]byte
	for i, x := range b {
		out[2*i], out[2*i+1] = digits[x>>4], digits[x&15]
	}
	return string(out[:]), true
}

// Requests returns [Client.Names] as PXELINUX's requests have them when it was
// loaded from bootFile: each with the prefix, which is option 210 or that of
// the boot file, and cut where PXELINUX cuts. Names on the TFTP server are
// relative to its root, without a slash in front; others are URLs or
// host::path.
func (c Client) Requests(bootFile string) []string {
	prefix := c.PathPrefix
	if prefix == "" {
		prefix = Prefix(bootFile)
	}
	names := c.Names()
	for i, name := range names {
		names[i] = strings.TrimLeft(strings.TrimPrefix(RequestName(prefix, name), "::"), "/")
	}
	return names
}

// maxName is the longest name in a configuration that PXELINUX reads whole.
const maxName = 255

// RequestName returns the file that PXELINUX means by a name in its
// configuration, or option 209: URLs and host::path as they are, anything else
// behind the prefix, even with a slash in front. White space ends a name. What
// is beyond 255 bytes is cut off, of the name and, its "::" counted, of the
// prefix. A result on the TFTP server that PXELINUX came from begins with "::",
// its root.
func RequestName(prefix, name string) string {
	if i := strings.IndexFunc(name, func(r rune) bool { return r <= ' ' }); i >= 0 {
		name = name[:i]
	}
	if name = name[:min(len(name), maxName)]; remote(name) {
		return name
	}
	if !remote(prefix) {
		prefix = "::" + prefix
	}
	return prefix[:min(len(prefix), maxName)] + name
}

// remote tells whether PXELINUX takes a name for a URL (scheme://) or its older
// form host::path, of which an empty host is the TFTP server.
func remote(name string) bool {
	_, rest, ok := strings.Cut(name, ":")
	return ok && (strings.HasPrefix(rest, "//") || strings.HasPrefix(rest, ":"))
}

// IPXENames returns the names that iPXE is let ask for in a [Tree] when it
// cannot say who it is in a query, the machine's own first: by hardware
// address, by UUID in iPXE's spelling, then those that all machines share.
func (c Client) IPXENames() []string {
	var names []string
	if len(c.MAC) > 0 {
		names = append(names, "mac-"+strings.ReplaceAll(c.MAC.String(), ":", "-")+".ipxe")
	}
	if _, ok := parseUUID(c.UUID); ok {
		names = append(names, "uuid-"+SwapUUID(c.UUID)+".ipxe")
	}
	return append(names, "boot.ipxe", "autoexec.ipxe")
}

// Prefix returns what PXELINUX puts before every name it asks for, when DHCP
// does not say otherwise (option 210): the name of its boot file up to the last
// byte that is not a letter, a digit, '-' or '.'. That is mostly the directory,
// but "ltsp/my_pxelinux.0" gives "ltsp/my_".
func Prefix(bootFile string) string {
	n := len(bootFile)
	for n > 0 {
		c := bootFile[n-1] // bytes, not letters of UTF-8
		if !(c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c == '.' || c == '-') {
			break
		}
		n--
	}
	return bootFile[:n]
}
