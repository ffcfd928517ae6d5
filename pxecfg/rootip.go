package pxecfg

import (
	"net"
	"net/netip"
	"strings"
)

// StaticIP is a fixed address for the interface that an initramfs configures.
// Each initramfs has its own form of ip=, with room for a part of this only:
// what it has no room for is an error of the [Root].
//
//	initramfs-tools, LTSP  ip=client:server:gateway:mask:host:interface:off:dns:dns
//	dracut                 ip=client::gateway:mask:host:interface:none:dns:dns
//	casper                 ip=interface,client,mask,gateway
//	live-boot              ip=interface:client:mask:gateway:dns
//
// The last two configure the system that is booted; their initramfs asks DHCP
// before it.
type StaticIP struct {
	// Addr is the machine's address and its network: "192.0.2.5/24". IPv6 is
	// possible with dracut only.
	Addr netip.Prefix
	// Gateway is the default route, in the network of Addr. The zero Addr
	// means none.
	Gateway netip.Addr
	// Hostname is the machine's name, of up to 64 bytes. It may be empty.
	Hostname string
	// Interface is the interface's name as the initramfs sees it. Where it may
	// be empty, initramfs-tools takes the one that BOOTIF= names (an Entry's
	// SysAppend 2); otherwise every interface gets the address.
	Interface string
	// DNS are up to two name servers.
	DNS []netip.Addr
}

// check refuses what nobody can express.
func (s *StaticIP) check(six bool) error {
	addr := s.Addr.Addr()
	switch {
	case !s.Addr.IsValid() || addr.IsUnspecified() || addr.Is4In6():
		return rootError("static address %s: write address and network, such as 192.0.2.5/24", s.Addr)
	case addr.Is6() && !six:
		return rootError("static address %s: only dracut can set up IPv6", s.Addr)
	case s.Gateway.IsValid() && s.Gateway.Is4() != addr.Is4():
		return rootError("gateway %s: it is not of the same IP version as %s", s.Gateway, s.Addr)
	case s.Gateway.IsUnspecified():
		return rootError("gateway %s: leave it out for none", s.Gateway)
	case s.Gateway.IsValid() && !s.Addr.Contains(s.Gateway) && !(s.Gateway.Is6() && s.Gateway.IsLinkLocalUnicast()):
		return rootError("gateway %s: it is not in the network %s, and no initramfs would reach it", s.Gateway, s.Addr.Masked())
	case len(s.Hostname) > 64:
		return rootError("host name %q: kernels and klibc cut it off after 64 bytes", s.Hostname)
	case s.Hostname != "" && strings.Trim(s.Hostname, hostBytes) != "":
		return rootError("host name %q: only letters, digits, - and . are possible", s.Hostname)
	case s.Interface != "" && (strings.Trim(s.Interface, hostBytes+"_@") != "" || len(s.Interface) > 15):
		return rootError("interface %q: it is not the name of a network interface", s.Interface)
	case len(s.DNS) > 2:
		return rootError("%d name servers: there is room for two", len(s.DNS))
	}
	for _, a := range append([]netip.Addr{s.Gateway}, s.DNS...) {
		if a.Zone() != "" || a.Is6() && !six {
			return rootError("address %s: only dracut knows IPv6, and none a zone", a)
		}
	}
	for _, a := range s.DNS {
		if !a.IsValid() {
			return rootError("a name server's address is missing")
		}
	}
	return nil
}

const hostBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-"

// klibc is the form of the kernel and of klibc's ipconfig, which
// initramfs-tools and LTSP use. The server is what they take for the boot
// server if nothing else says.
func (s *StaticIP) klibc(server netip.Addr) (string, error) {
	if s == nil {
		return "ip=dhcp", nil
	}
	if err := s.check(false); err != nil {
		return "", err
	}
	if bits := s.Addr.Bits(); bits == 0 || bits == 32 {
		return "", rootError("static address %s: klibc's ipconfig takes this mask for none and guesses another", s.Addr)
	}
	boot := ""
	if server = server.Unmap(); server.Is4() {
		boot = server.String()
	}
	return "ip=" + s.Addr.Addr().String() + ":" + boot + ":" + addrText(s.Gateway) + ":" + s.mask() + ":" +
		s.Hostname + ":" + s.Interface + ":off" + s.dns(), nil
}

// dracut leaves out the second field, which it takes for the peer of a
// point-to-point link.
func (s *StaticIP) dracut() (string, error) {
	if s == nil {
		return "ip=dhcp", nil
	}
	if err := s.check(true); err != nil {
		return "", err
	}
	return "ip=" + addrText(s.Addr.Addr()) + "::" + addrText(s.Gateway) + ":" + s.mask() + ":" +
		s.Hostname + ":" + s.Interface + ":none" + s.dns(), nil
}

func (s *StaticIP) casper() (string, error) {
	if s == nil {
		return "ip=dhcp", nil
	}
	if err := s.check(false); err != nil {
		return "", err
	}
	switch {
	case s.Interface == "":
		return "", rootError("static address %s: casper needs the name of the interface", s.Addr)
	case s.Hostname != "" || len(s.DNS) > 0:
		return "", rootError("static address %s: casper's ip= has no room for a host name or name servers", s.Addr)
	case strings.ContainsAny(s.Interface, ":,"):
		return "", rootError("interface %q: casper splits its argument there", s.Interface)
	}
	return strings.TrimSuffix("ip="+s.Interface+","+s.Addr.Addr().String()+","+s.mask()+","+addrText(s.Gateway), ","), nil
}

// liveBoot has nothing to say for DHCP: live-boot would take ip=dhcp for an
// interface of that name.
func (s *StaticIP) liveBoot() ([]string, error) {
	if s == nil {
		return nil, nil
	}
	if err := s.check(false); err != nil {
		return nil, err
	}
	switch {
	case s.Interface == "":
		return nil, rootError("static address %s: live-boot needs the name of the interface", s.Addr)
	case s.Hostname != "" || len(s.DNS) > 1:
		return nil, rootError("static address %s: live-boot's ip= has no room for a host name or a second name server", s.Addr)
	}
	dns := ""
	if len(s.DNS) > 0 {
		dns = ":" + s.DNS[0].String()
	}
	return []string{"ip=" + s.Interface + ":" + s.Addr.Addr().String() + ":" + s.mask() + ":" + addrText(s.Gateway) + dns}, nil
}

// mask is dotted for IPv4 and the number of bits for IPv6.
func (s *StaticIP) mask() string {
	if s.Addr.Addr().Is4() {
		return net.IP(net.CIDRMask(s.Addr.Bits(), 32)).String()
	}
	_, bits, _ := strings.Cut(s.Addr.String(), "/")
	return bits
}

func (s *StaticIP) dns() string {
	list := ""
	for _, a := range s.DNS {
		// dracut knows an address by its first digit.
		list += ":" + strings.Replace(addrText(a), "[::", "[0::", 1)
	}
	return list
}

// addrText puts IPv6 in brackets; the zero Addr is an empty field.
func addrText(a netip.Addr) string {
	switch {
	case !a.IsValid():
		return ""
	case a.Unmap().Is6():
		return "[" + a.String() + "]"
	}
	return a.Unmap().String()
}
