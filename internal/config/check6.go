package config

import (
	"net"
	"net/netip"
	"time"
)

// dhcp6 checks the section dhcp.v6 and the machines' addresses of it.
func (c *checker) dhcp6(d *DHCPv6) {
	if !d.Address.IsValid() {
		c.errorf(d, "dhcp.v6.address is missing: the IPv6 address at which clients reach this server")
	} else if d.Address.IsLinkLocalUnicast() {
		c.errorf(&d.Address, "dhcp.v6.address: firmware needs an address that is not link-local, such as fd00:67::1")
	}
	for _, l := range []struct {
		key    string
		listen *string
	}{{"tftp", c.tftpListen()}, {"http", c.httpListen()}} {
		if l.listen == nil {
			continue
		}
		host, _, _ := net.SplitHostPort(*l.listen)
		if a, err := netip.ParseAddr(host); err == nil && a.Is4() {
			c.errorf(l.listen, "%s.listen: %s is not an IPv6 address, and dhcp.v6 sends machines to %s; leave the address out", l.key, host, d.Address)
		}
	}
	if d.Stateless {
		for _, f := range []struct {
			key   string
			field any
			set   bool
		}{
			{"subnet", &d.Subnet, d.Subnet.IsValid()}, {"ranges", &d.Ranges, len(d.Ranges) > 0}, {"lease", &d.Lease, d.Lease.Duration != 0},
		} {
			if f.set {
				c.errorf(f.field, "dhcp.v6.%s: with stateless: true no addresses are given; remove one of the two", f.key)
			}
		}
	} else {
		c.addresses6(d)
	}
	taken := map[netip.Addr]string{}
	for i := range c.Machines {
		m := &c.Machines[i]
		a := m.Address6.Addr
		if !a.IsValid() {
			continue
		}
		switch {
		case d.Stateless:
			c.errorf(&m.Address6, "machine %s: with dhcp.v6.stateless no addresses are given; remove address6", m.Name)
		case !d.Subnet.Contains(a):
			c.errorf(&m.Address6, "machine %s: address6 %s is not in dhcp.v6.subnet %s", m.Name, a, d.Subnet)
		case a == d.Address.Addr:
			c.errorf(&m.Address6, "machine %s: %s is the server's own address", m.Name, a)
		case m.MAC.HardwareAddr == nil:
			c.errorf(&m.Address6, "machine %s: an address is given to a hardware address; write its `mac` too", m.Name)
		case taken[a] != "":
			c.errorf(&m.Address6, "machine %s: address6 %s is machine %s's already", m.Name, a, taken[a])
		}
		taken[a] = m.Name
	}
}

// addresses6 checks what is said about addresses.
func (c *checker) addresses6(d *DHCPv6) {
	if !d.Subnet.IsValid() {
		c.errorf(d, "dhcp.v6.subnet is missing: the subnet whose addresses are served, such as fd00:67::/64; or write stateless: true")
		return
	}
	in := func(field any, what string, a netip.Addr) {
		if a.IsValid() && !d.Subnet.Contains(a) {
			c.errorf(field, "%s %s is not in dhcp.v6.subnet %s", what, a, d.Subnet)
		}
	}
	in(&d.Address, "dhcp.v6.address", d.Address.Addr)
	if d.Lease.Duration < time.Minute {
		c.errorf(&d.Lease, "a lease of %s is too short to boot with; write at least 1m", d.Lease)
	}
	ranges(c, d.Ranges, in)
}

func (c *checker) tftpListen() *string {
	if !c.ServesTFTP() {
		return nil
	}
	return &c.TFTP.Listen
}

func (c *checker) httpListen() *string {
	if !c.ServesHTTP() {
		return nil
	}
	return &c.HTTP.Listen
}
