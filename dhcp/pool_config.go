package dhcp

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
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
	p.shared, _ = p.store.(SharedStore)
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
	case p.MaxLeaseTime > 0 && p.MaxLeaseTime < time.Minute:
		return fmt.Errorf("field MaxLeaseTime %v is shorter than a minute", p.MaxLeaseTime)
	case p.Identity != ByHardwareAddr && p.Identity != ByClientID && p.Identity != ByUUID:
		return fmt.Errorf("field Identity %q is neither empty, %q nor %q", p.Identity, ByClientID, ByUUID)
	case p.BOOTP != BOOTPNone && p.BOOTP != BOOTPReserved && p.BOOTP != BOOTPAny:
		return fmt.Errorf("field BOOTP %q is neither empty, %q nor %q", p.BOOTP, BOOTPReserved, BOOTPAny)
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
	}
	for _, r := range p.Exclude {
		if !r.First.Is4() || !r.Last.Is4() || r.Last.Less(r.First) {
			return fmt.Errorf("exclusion %v-%v is no range", r.First, r.Last)
		}
	}
	p.ranges = without(p.Ranges, p.Exclude)
	for _, r := range p.ranges {
		p.size += r.size()
	}
	for i := range p.Classes {
		class := &p.Classes[i]
		if err := class.validate(); err != nil {
			return fmt.Errorf("class %q: %w", class.Name, err)
		}
		if err := checkOptions(class.Options); err != nil {
			return fmt.Errorf("class %q: %w", class.Name, err)
		}
	}
	if err := p.indexOptions(); err != nil {
		return err
	}
	p.reserved = make(map[netip.Addr]int, len(p.Reservations))
	return p.indexReservations()
}

// indexOptions puts together what all clients of the subnet get.
func (p *Pool) indexOptions() error {
	p.options = maps.Clone(p.Defaults)
	if p.options == nil {
		p.options = make(dhcpv4.Options)
	}
	fields := dhcpv4.Options{}
	set := func(code dhcpv4.OptionCode, v []byte) { fields[code.Code()] = v }
	if p.Router.IsValid() {
		set(dhcpv4.OptionRouter, p.Router.AsSlice())
	}
	if len(p.DNS) > 0 {
		var list []byte
		for _, a := range p.DNS {
			list = append(list, a.AsSlice()...)
		}
		set(dhcpv4.OptionDomainNameServer, list)
	}
	if p.Domain != "" {
		set(dhcpv4.OptionDomainName, []byte(p.Domain))
	}
	for code := range fields {
		if _, twice := p.Options[code]; twice {
			return fmt.Errorf("option %d (%v) is in Options and in a field of its own", code, dhcpv4.GenericOptionCode(code))
		}
	}
	set(dhcpv4.OptionSubnetMask, net.CIDRMask(p.Prefix.Bits(), 32))
	if p.Prefix.Bits() < 31 {
		set(dhcpv4.OptionBroadcastAddress, lastAddr(p.Prefix).AsSlice())
	}
	maps.Copy(p.options, fields)
	maps.Copy(p.options, p.Options)
	for code, v := range p.options { // a list is quicker to go through
		p.optionList = append(p.optionList, optionValue{code, v})
	}
	if err := checkOptions(p.Defaults); err != nil {
		return err
	}
	return checkOptions(p.Options)
}

// checkOptions refuses those that the protocol itself is made of.
func checkOptions(o dhcpv4.Options) error {
	for code := range o {
		switch {
		case code == 0 || code == 255 || code >= 50 && code <= 57 || code == 61 || code == 80 || code == 82 || code == 97 || code == 118:
			return fmt.Errorf("option %d is the protocol's own and cannot be set", code)
		}
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
	return slices.ContainsFunc(p.ranges, func(r Range) bool { return r.contains(a) })
}

// nth returns the n-th address of the ranges, counted through all of them.
func (p *Pool) nth(n uint64) netip.Addr {
	for _, r := range p.ranges {
		if n < r.size() {
			return numberAddr(addrNumber(r.First) + uint32(n))
		}
		n -= r.size()
	}
	return netip.Addr{}
}

func (r Range) size() uint64 { return uint64(addrNumber(r.Last)-addrNumber(r.First)) + 1 }

// without takes the excluded addresses out of the ranges.
func without(ranges, exclude []Range) []Range {
	left := slices.Clone(ranges)
	for _, x := range exclude {
		var next []Range
		for _, r := range left {
			if r.Last.Less(x.First) || x.Last.Less(r.First) {
				next = append(next, r)
				continue
			}
			if r.First.Less(x.First) {
				next = append(next, Range{r.First, x.First.Prev()})
			}
			if x.Last.Less(r.Last) {
				next = append(next, Range{x.Last.Next(), r.Last})
			}
		}
		left = next
	}
	return left
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
