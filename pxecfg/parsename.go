package pxecfg

import (
	"net"
	"net/netip"
	"path"
	"strconv"
	"strings"
)

// ParseName returns the machine that a requested name speaks of: the way back
// from [Client.Names], [Client.GRUBNames] and [Client.GRUBAliases], in any
// directory, and from the names mac-<address>.ipxe and uuid-<uuid>.ipxe that a
// [Tree] lets iPXE ask for (the latter in iPXE's spelling of the UUID). The
// Client holds only what the name says: a UUID, a hardware address or an IP
// address. A name that speaks of no single machine, such as default, grub.cfg
// or a shortened IP address, gives false.
//
// MAC-<address>.ipxe, with or without hyphens, and HOSTNAME-<name>.ipxe, in use
// elsewhere, are read too; a [Tree] has no files by host names, which anybody
// can claim.
func ParseName(name string) (Client, bool) {
	if host, ok := strings.CutPrefix(path.Base(name), "HOSTNAME-"); ok {
		host, ok = strings.CutSuffix(host, ".ipxe")
		if !ok || host == "" || strings.Trim(host, labelBytes) != "" {
			return Client{}, false
		}
		return Client{Hostname: host}, true
	}
	r, ok := parseRequest(name)
	return r.named, ok && r.specific()
}

type format uint8

const (
	formatPXELINUX format = iota
	formatGRUB
	formatIPXE
)

// loader is who asks for such a name; known is who that may be.
func (f format) loader(known Loader) Loader {
	switch {
	case f == formatGRUB:
		return LoaderGRUB
	case f == formatIPXE:
		return LoaderIPXE
	case known == LoaderUBoot:
		return known
	}
	return LoaderPXELINUX
}

// request is what a name of a rendered file says.
type request struct {
	format format
	prefix string // what the loader puts before each name
	base   string // the last element
	named  Client // the machine it speaks of, if it does
	ladder string // a shortened hexadecimal IP address
}

func (r *request) specific() bool {
	return r.named.UUID != "" || len(r.named.MAC) > 0 || r.named.IP.IsValid()
}

// parseRequest returns false for names that this package does not render.
func parseRequest(name string) (request, bool) {
	dir, base := path.Split(name)
	r := request{prefix: dir, base: base}
	switch {
	case strings.HasSuffix(dir, pxelinuxDir):
		// Not necessarily a whole element: see Prefix.
		r.format, r.prefix = formatPXELINUX, strings.TrimSuffix(dir, pxelinuxDir)
		return r, base == "default" || r.parseID(base)
	case base == "grub.cfg":
		r.format = formatGRUB
		return r, true
	case strings.HasPrefix(base, "grub.cfg-"):
		r.format = formatGRUB
		return r, r.parseGRUB(base[len("grub.cfg-"):])
	case base == "boot.ipxe", base == "autoexec.ipxe":
		r.format = formatIPXE
		return r, true
	case strings.HasSuffix(base, ".ipxe"):
		r.format = formatIPXE
		return r, r.parseIPXE(strings.TrimSuffix(base, ".ipxe"))
	}
	return r, false
}

// parseID reads what PXELINUX and GRUB have in common.
func (r *request) parseID(id string) bool {
	if b, ok := parseUUID(id); ok {
		r.named.UUID = FormatUUID(b)
		return true
	}
	if len(id) >= 1 && len(id) <= 8 && strings.Trim(id, "0123456789ABCDEF") == "" {
		if len(id) < 8 {
			r.ladder = id
			return true
		}
		n, err := strconv.ParseUint(id, 16, 32)
		if err != nil {
			return false
		}
		r.named.IP = netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
		return true
	}
	if len(id) < 3+17 || len(id)%3 != 2 || id[2] != '-' {
		return false
	}
	ht, ok := parseHexByte(id[:2])
	if !ok || ht == 0 {
		return false
	}
	mac, ok := parseHyphenated(id[3:])
	if !ok {
		return false
	}
	r.named.HardwareType, r.named.MAC = ht, mac
	return true
}

func (r *request) parseGRUB(id string) bool {
	// Six or eight pairs are an address; one more, and the first is its type.
	// Anything else in eight groups is IPv6.
	switch strings.Count(id, "-") {
	case 5, 7:
		if mac, ok := parseHyphenated(id); ok {
			r.named.MAC = mac
			return true
		}
		ip, err := netip.ParseAddr(strings.ReplaceAll(id, "-", ":"))
		if err == nil && ip.Is6() && ip.Zone() == "" && !ip.Is4In6() {
			r.named.IP = ip
			return true
		}
		return false
	}
	if strings.Contains(id, ":") {
		mac, ok := parseMAC(id)
		r.named.MAC = mac
		return ok
	}
	return r.parseID(id)
}

func (r *request) parseIPXE(id string) bool {
	switch {
	case strings.HasPrefix(id, "mac-"), strings.HasPrefix(id, "MAC-"):
		// iPXE's ${mac:hexhyp}, or ${mac:hexraw}.
		id = id[len("mac-"):]
		mac, ok := parseHyphenated(id)
		if !ok && strings.Trim(id, "0123456789abcdefABCDEF") == "" {
			mac, ok = parseMAC(id)
		}
		r.named.MAC = mac
		return ok
	case strings.HasPrefix(id, "uuid-"):
		id = id[len("uuid-"):]
		if _, ok := parseUUID(id); !ok {
			return false
		}
		r.named.UUID = SwapUUID(id)
		return true
	}
	return false
}

// parseHyphenated reads aa-bb-cc-..., of the lengths that net.ParseMAC knows:
// Ethernet, EUI-64, InfiniBand.
func parseHyphenated(s string) (net.HardwareAddr, bool) {
	n := (len(s) + 1) / 3
	if n != 6 && n != 8 && n != 20 || len(s) != 3*n-1 {
		return nil, false
	}
	mac := make(net.HardwareAddr, n)
	for i := range mac {
		if i > 0 && s[3*i-1] != '-' {
			return nil, false
		}
		b, ok := parseHexByte(s[3*i : 3*i+2])
		if !ok {
			return nil, false
		}
		mac[i] = b
	}
	return mac, true
}

func parseHexByte(s string) (byte, bool) {
	hi, ok := unhex(s[0])
	if !ok {
		return 0, false
	}
	lo, ok := unhex(s[1])
	return hi<<4 | lo, ok
}

func unhex(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}
