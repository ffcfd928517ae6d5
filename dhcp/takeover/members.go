package takeover

import (
	"bytes"
	"context"
	"net/netip"
	"slices"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

// Members are the ranges that only some clients may have addresses of:
// dhcpd's pools with permissions, dnsmasq's ranges with tags, Kea's pools with a
// client class.
type Members struct {
	// Name says whom they are for, in the words of the file.
	Name string
	// Allowed reports whether a client is one of them.
	Allowed func(r *dhcp.Request) bool
	// Pools are the network's subnets once more, with these ranges alone.
	Pools []*dhcp.Pool

	shared dhcp.SharedNetwork
	last   bool // for all but some: tried after those for all
}

// has reports whether the address is in the ranges.
func has(pools []*dhcp.Pool, addr netip.Addr) bool {
	return slices.ContainsFunc(pools, func(p *dhcp.Pool) bool {
		return slices.ContainsFunc(p.Ranges, func(r dhcp.Range) bool {
			return r.First.Compare(addr) <= 0 && addr.Compare(r.Last) <= 0
		})
	})
}

// serve asks the ranges that the client may use: for a new address one after
// the other, and about an address those that have it. Where others have it the
// first that the client may use refuse it, as its server would.
func (n *Network) serve(ctx context.Context, r *dhcp.Request) (*dhcpv4.DHCPv4, error) {
	var mine, last []dhcp.Handler
	var about dhcp.Handler
	addr := about4(r)
	for _, m := range n.Members {
		if !m.Allowed(r) {
			// A system may not say what its firmware did, and keeps its address.
			if has(m.Pools, addr) && holds(ctx, m.Pools, addr, r) {
				about = &m.shared
			}
			continue
		}
		r.Note("ranges for %s", m.Name)
		if m.last {
			last = append(last, &m.shared)
		} else {
			mine = append(mine, &m.shared)
		}
		if has(m.Pools, addr) {
			about = &m.shared
		}
	}
	mine = append(append(mine, &n.shared), last...)
	if t := r.MessageType(); t == dhcpv4.MessageTypeDiscover || t == dhcpv4.MessageTypeNone {
		return dhcp.First(mine...).ServeDHCP(ctx, r)
	}
	switch {
	case about != nil:
	case has(n.Pools, addr):
		about = &n.shared
	default:
		about = mine[0]
		if mine[0] == dhcp.Handler(&n.shared) && len(mine) > 1 {
			about = mine[1] // the rest may be for known machines only
		}
	}
	return about.ServeDHCP(ctx, r)
}

// holds reports whether the machine has the lease of the address.
func holds(ctx context.Context, pools []*dhcp.Pool, addr netip.Addr, r *dhcp.Request) bool {
	return slices.ContainsFunc(pools, func(p *dhcp.Pool) bool {
		l, err := p.LeaseByAddr(ctx, addr)
		if len(r.ClientHWAddr) == 0 {
			return err == nil && bytes.Equal(l.ClientID, r.Options.Get(dhcpv4.OptionClientIdentifier))
		}
		return err == nil && bytes.Equal(l.HardwareAddr, r.ClientHWAddr)
	})
}

// about4 is the address that a message is about.
func about4(r *dhcp.Request) netip.Addr {
	if b := r.Options.Get(dhcpv4.OptionRequestedIPAddress); len(b) == 4 {
		return netip.AddrFrom4([4]byte(b))
	}
	a, _ := netip.AddrFromSlice(r.ClientIPAddr.To4())
	return a
}

// restrict adds ranges for some clients to a network whose Pools are complete.
// All of its pools share a store: a machine that changes sides is the same.
func (n *Network) restrict(name string, subnet int, ranges []dhcp.Range, last bool, allowed func(r *dhcp.Request) bool) {
	if n.Pools[subnet].Store == nil {
		store := new(dhcp.MemoryStore)
		for _, p := range n.Pools {
			p.Store = store
		}
	}
	m := &Members{Name: name, Allowed: allowed, last: last}
	for i, p := range n.Pools {
		c := &dhcp.Pool{
			Prefix: p.Prefix, Exclude: p.Exclude, ServerID: p.ServerID, Reservations: p.Reservations, KnownOnly: p.KnownOnly,
			Identity: p.Identity, NotAuthoritative: p.NotAuthoritative, BOOTP: p.BOOTP, RapidCommit: p.RapidCommit, Peers: p.Peers,
			Router: p.Router, DNS: p.DNS, Domain: p.Domain, Options: p.Options, Classes: p.Classes, Defaults: p.Defaults,
			LeaseTime: p.LeaseTime, MaxLeaseTime: p.MaxLeaseTime, OfferTime: p.OfferTime, DeclineTime: p.DeclineTime, InUse: p.InUse,
			MaxNewPerPort: p.MaxNewPerPort, MaxNewPerLink: p.MaxNewPerLink, Store: p.Store, Logger: p.Logger,
		}
		if i == subnet {
			c.Ranges = ranges
		}
		m.Pools = append(m.Pools, c)
	}
	n.Members = append(n.Members, m)
}

// keepRest closes the subnets that have ranges for some clients only to others
// that are not known.
func (n *Network) keepRest() {
	for i, p := range n.Pools {
		if len(p.Ranges) == 0 && slices.ContainsFunc(n.Members, func(m *Members) bool { return len(m.Pools[i].Ranges) > 0 }) {
			p.KnownOnly = true
		}
	}
}
