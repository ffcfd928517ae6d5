package dhcp

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"math"
	"net"
	"net/netip"
	"strings"
	"time"
)

// Validate reports, as an error that is [fs.ErrInvalid], what in the pool's
// fields does not make sense. It looks at them once: later calls return the
// same.
func (p *Pool) Validate() error {
	p.setup.Do(func() {
		if err := p.index(); err != nil {
			p.err = fmt.Errorf("dhcp: pool %v: %w: %w", p.Prefix, err, fs.ErrInvalid)
		}
	})
	return p.err
}

// index checks the fields and makes the tables that requests are looked up in.
func (p *Pool) index() error {
	p.store = p.Store
	if p.store == nil {
		p.store = &MemoryStore{}
	}
	switch {
	case !p.Prefix.IsValid() || !p.Prefix.Addr().Is4():
		return fmt.Errorf("field Prefix is no IPv4 subnet")
	case p.Prefix != p.Prefix.Masked():
		return fmt.Errorf("field Prefix has host bits set, the subnet is %v", p.Prefix.Masked())
	case !p.ServerID.Is4() || p.ServerID.IsUnspecified():
		return fmt.Errorf("field ServerID %v is no IPv4 address", p.ServerID)
	case p.Router.IsValid() && !p.Prefix.Contains(p.Router):
		return fmt.Errorf("field Router %v is outside of the subnet", p.Router)
	case len(p.Domain) > 253:
		return fmt.Errorf("field Domain is longer than 253 bytes")
	case p.LeaseTime != -1 && p.LeaseTime != 0 && (p.LeaseTime < time.Second || p.LeaseTime/time.Second >= math.MaxUint32):
		return fmt.Errorf("field LeaseTime %v is neither 0, -1 nor between 1 second and 136 years", p.LeaseTime)
	case p.OfferTime < 0 || p.DeclineTime < 0:
		return fmt.Errorf("field OfferTime or DeclineTime is negative")
	}
	for _, a := range p.DNS {
		if !a.Is4() {
			return fmt.Errorf("DNS server %v is no IPv4 address", a)
		}
	}
	for i, r := range p.Ranges {
		if !p.Prefix.Contains(r.First) || !p.Prefix.Contains(r.Last) {
			return fmt.Errorf("range %v-%v is not inside of the subnet", r.First, r.Last)
		}
		if r.Last.Less(r.First) {
			return fmt.Errorf("range %v-%v ends before it begins", r.First, r.Last)
		}
		for _, o := range p.Ranges[:i] {
			if o.contains(r.First) || r.contains(o.First) {
				return fmt.Errorf("ranges %v-%v and %v-%v overlap", o.First, o.Last, r.First, r.Last)
			}
		}
		p.size += uint64(addrNumber(r.Last)-addrNumber(r.First)) + 1
	}
	return p.indexReservations()
}

func (p *Pool) indexReservations() error {
	p.known = make(map[string]Reservation, len(p.Reservations))
	p.reserved = make(map[netip.Addr]net.HardwareAddr, len(p.Reservations))
	for _, r := range p.Reservations {
		if len(r.HardwareAddr) == 0 || len(r.HardwareAddr) > 16 {
			return fmt.Errorf("reservation %q %v: hardware address %q has not 1 to 16 bytes", r.Hostname, r.Addr, r.HardwareAddr)
		}
		if _, ok := p.known[string(r.HardwareAddr)]; ok {
			return fmt.Errorf("two reservations for %v", r.HardwareAddr)
		}
		if !validHostname(r.Hostname) {
			return fmt.Errorf("reservation for %v: %q is no host name", r.HardwareAddr, r.Hostname)
		}
		p.known[string(r.HardwareAddr)] = r
		if !r.Addr.IsValid() {
			continue
		}
		if !p.Prefix.Contains(r.Addr) || p.excluded(r.Addr) {
			return fmt.Errorf("reservation for %v: %v is not an address for a machine of this subnet", r.HardwareAddr, r.Addr)
		}
		if other := p.reserved[r.Addr]; other != nil {
			return fmt.Errorf("%v is reserved for both %v and %v", r.Addr, other, r.HardwareAddr)
		}
		p.reserved[r.Addr] = r.HardwareAddr
	}
	return nil
}

// validHostname takes what RFC 1123 does, and the underscore that people use.
// It is there because the name ends up in boot scripts.
func validHostname(s string) bool {
	return len(s) <= 253 && !strings.HasPrefix(s, "-") && strings.Trim(s,
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == ""
}

// excluded reports whether no machine may have the address: the server's, the
// router's, the network's and the broadcast address.
func (p *Pool) excluded(a netip.Addr) bool {
	return a == p.ServerID || a == p.Router ||
		p.Prefix.Bits() < 31 && (a == p.Prefix.Addr() || a == lastAddr(p.Prefix))
}

func (p *Pool) inRanges(a netip.Addr) bool {
	for _, r := range p.Ranges {
		if r.contains(a) {
			return true
		}
	}
	return false
}

// nth returns the n-th address of the ranges, counted through all of them.
func (p *Pool) nth(n uint64) netip.Addr {
	for _, r := range p.Ranges {
		size := uint64(addrNumber(r.Last)-addrNumber(r.First)) + 1
		if n < size {
			return numberAddr(addrNumber(r.First) + uint32(n))
		}
		n -= size
	}
	return netip.Addr{}
}

func addrNumber(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

func numberAddr(n uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}

// lastAddr returns the broadcast address of the subnet.
func lastAddr(p netip.Prefix) netip.Addr {
	return numberAddr(addrNumber(p.Addr()) | uint32(uint64(1)<<(32-p.Bits())-1))
}
