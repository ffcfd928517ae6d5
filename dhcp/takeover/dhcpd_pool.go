package takeover

import (
	"context"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

// build makes pools and policies of the declarations.
func (t *taker) build(global *scope) {
	if t.subnets == nil {
		t.note(token{line: 1, col: 1}, "there is no subnet: nobody is served")
	}
	placed := make(map[*hostDecl]bool)
	byGroup := make(map[int]*Network)
	chains := make(map[*Network][]*subnetDecl)
	for _, d := range t.subnets {
		n := byGroup[d.group]
		if n == nil {
			n = &Network{Name: d.name}
			byGroup[d.group] = n
			t.config.Networks = append(t.config.Networks, n)
		}
		n.Pools = append(n.Pools, t.pool(d, placed))
		chains[n] = append(chains[n], d)
	}
	for _, h := range t.hosts {
		if !placed[h] {
			t.note(h.at, "host %s is not taken over: it has no hardware address or client identifier, or its fixed address is in no subnet", h.name)
		}
	}
	for _, n := range t.config.Networks {
		subnets := chains[n]
		hosts := t.hostTable()
		t.restrictPools(n, subnets, hosts)
		n.finish(func(i int, r *dhcp.Request, reply *dhcpv4.DHCPv4) error {
			res, _ := t.evaluate(subnets[i], hosts, r)
			for code, v := range res.options {
				if v.conditional {
					reply.Options[code] = v.data
				}
			}
			return nil
		}, func(i int) func(context.Context, *dhcp.Request) (dhcp.Boot, error) { return t.boot(subnets[i], hosts) }, t.o)
	}
}

// param is the innermost value of a parameter.
func (s *scope) param(name string) (token, bool) {
	for ; s != nil; s = s.parent {
		if v, ok := s.params[name]; ok {
			return v, true
		}
	}
	return token{}, false
}

func (t *taker) pool(d *subnetDecl, placed map[*hostDecl]bool) *dhcp.Pool {
	p := &dhcp.Pool{
		Prefix: d.prefix, Ranges: d.ranges, ServerID: t.o.ServerID, Store: t.o.Store, Logger: t.o.Logger,
		// dhcpd's own defaults.
		NotAuthoritative: true, LeaseTime: 12 * time.Hour, MaxLeaseTime: 24 * time.Hour,
	}
	text := func(name string) string { v, _ := d.scope.param(name); return v.text }
	p.NotAuthoritative = text("authoritative") != "true"
	p.KnownOnly = text("unknown-clients") == "false"
	if text("bootp") != "false" {
		p.BOOTP = dhcp.BOOTPReserved // which is dhcpd's default
		if d.bootp {
			p.BOOTP = dhcp.BOOTPAny
		}
	}
	p.LeaseTime = t.leaseTime(d.scope, "default-lease-time", p.LeaseTime)
	p.MaxLeaseTime = t.leaseTime(d.scope, "max-lease-time", p.MaxLeaseTime)
	if p.MaxLeaseTime > 0 {
		p.MaxLeaseTime = max(p.MaxLeaseTime, time.Minute)
		if p.LeaseTime > p.MaxLeaseTime {
			p.LeaseTime = p.MaxLeaseTime
		}
	}
	if v, ok := d.scope.param("server-identifier"); ok {
		a, err := t.o.resolve(t.ctx, v.text)
		if err != nil {
			t.note(v, "the server-identifier %q cannot be found: %v", v.text, err)
		} else {
			p.ServerID = a
		}
	}
	if text("ping-check") != "false" && text("ping-check") != "off" {
		p.InUse = new(dhcp.Prober).InUse
	}
	res := outside(d.scope)
	p.Options = res.plain()
	// Its routers' addresses are no client's.
	for routers := p.Options[3]; len(routers) >= 4; routers = routers[4:] {
		a := netip.AddrFrom4([4]byte(routers))
		p.Exclude = append(p.Exclude, dhcp.Range{First: a, Last: a})
	}
	names := on(text("use-host-decl-names"))
	taken := make(map[string]bool) // machines and addresses
	for _, h := range t.hosts {
		r := dhcp.Reservation{HardwareAddr: h.hw}
		if r.HardwareAddr == nil {
			r.ClientID = h.id
		}
		if r.HardwareAddr == nil && r.ClientID == nil {
			continue
		}
		for _, a := range h.addrs {
			if d.prefix.Contains(a) {
				r.Addr = a
				break
			}
		}
		if len(h.addrs) > 0 && !r.Addr.IsValid() {
			continue // another subnet's
		}
		own := outside(h.scope)
		r.Options = own.own(outside(outermost(h.scope)))
		if v, ok := h.scope.param("use-host-decl-names"); names || ok && on(v.text) {
			r.Hostname = h.name
		}
		if name, ok := r.Options[12]; ok {
			r.Hostname = string(name)
			delete(r.Options, 12)
		}
		if r.Hostname != "" && !validName(r.Hostname) {
			t.note(h.at, "host %s: %q is no host name and is not sent", h.name, r.Hostname)
			r.Hostname = ""
		}
		if taken[r.String()] || r.Addr.IsValid() && taken[r.Addr.String()] {
			t.note(h.at, "host %s has the machine or the address of an earlier host and is not taken over", h.name)
			placed[h] = true
			continue
		}
		taken[r.String()], taken[r.Addr.String()] = true, true
		placed[h] = true
		p.Reservations = append(p.Reservations, r)
	}
	return p
}

// validName is what package dhcp takes for a host name.
func validName(s string) bool {
	return len(s) <= 253 && !strings.HasPrefix(s, "-") && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r))
	})
}

func outermost(s *scope) *scope {
	for s.parent != nil {
		s = s.parent
	}
	return s
}

func (t *taker) leaseTime(s *scope, name string, def time.Duration) time.Duration {
	v, ok := s.param(name)
	if !ok {
		return def
	}
	n, err := strconv.ParseInt(v.text, 10, 64)
	switch {
	case err != nil || n == 0 || n < -1 || n > 1<<32-1:
		t.note(v, "%s %q is no number of seconds", name, v.text)
		return def
	case n == -1 || n == 1<<32-1:
		return -1
	}
	return time.Duration(n) * time.Second
}
