package dhcp6

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/rfc1035label"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

// Validate reports, as an error that is [fs.ErrInvalid], what in the pool's
// fields does not make sense. It looks at them once: later calls return the
// same.
func (p *Pool) Validate() error {
	p.setup.Do(func() {
		if err := p.index(); err != nil {
			p.err = fmt.Errorf("dhcp6: pool %v: %w: %w", p.Prefix, err, fs.ErrInvalid)
		}
	})
	return p.err
}

func (p *Pool) index() error {
	p.store = p.Store
	if p.store == nil {
		p.store = &dhcp.MemoryStore{}
	}
	p.shared, _ = p.store.(dhcp.SharedStore)
	switch {
	case !p.Prefix.IsValid() || !p.Prefix.Addr().Is6() || p.Prefix.Addr().Is4In6():
		return errors.New("field Prefix is no IPv6 prefix")
	case p.Prefix != p.Prefix.Masked():
		return fmt.Errorf("field Prefix has host bits set, the prefix is %v", p.Prefix.Masked())
	case p.Prefix.Addr().IsLinkLocalUnicast() || p.Prefix.Addr().IsMulticast():
		return errors.New("field Prefix is not of addresses that a server gives")
	case p.LeaseTime != -1 && p.LeaseTime != 0 && (p.LeaseTime < time.Second || p.LeaseTime >= infinity):
		return fmt.Errorf("field LeaseTime %v is neither 0, -1 nor between 1 second and 136 years", p.LeaseTime)
	case p.DeclineTime < 0:
		return errors.New("field DeclineTime is negative")
	}
	if err := checkServerID(p.ServerID); err != nil {
		return err
	}
	for i, r := range p.Ranges {
		if !p.Prefix.Contains(r.First) || !p.Prefix.Contains(r.Last) {
			return fmt.Errorf("range %v-%v is not inside of the prefix", r.First, r.Last)
		}
		if r.Last.Less(r.First) {
			return fmt.Errorf("range %v-%v ends before it begins", r.First, r.Last)
		}
		for _, o := range p.Ranges[:i] {
			if contains(o, r.First) || contains(r, o.First) {
				return fmt.Errorf("ranges %v-%v and %v-%v overlap", o.First, o.Last, r.First, r.Last)
			}
		}
		p.size = addSaturating(p.size, rangeSize(r))
	}
	for _, r := range p.Exclude {
		if !r.First.Is6() || !r.Last.Is6() || r.Last.Less(r.First) {
			return fmt.Errorf("exclusion %v-%v is no range", r.First, r.Last)
		}
	}
	var err error
	if p.options, err = commonOptions(p.DNS, p.Domains, p.Options); err != nil {
		return err
	}
	return p.indexReservations()
}

func (p *Pool) indexReservations() error {
	p.known = make(map[string]int, len(p.Reservations))
	p.reserved = make(map[netip.Addr]int, len(p.Reservations))
	for i := range p.Reservations {
		r := &p.Reservations[i]
		key := r.key()
		switch {
		case key == "":
			return fmt.Errorf("reservation %q %v names no machine: set HardwareAddr, DUID or UUID", r.Hostname, r.Addr)
		case len(r.HardwareAddr) > 0 && !usable(r.HardwareAddr):
			return fmt.Errorf("reservation %q %v: hardware address %q has not 6 to 16 bytes", r.Hostname, r.Addr, r.HardwareAddr)
		case len(r.HardwareAddr) == 0 && len(r.DUID) > maxDUID:
			return fmt.Errorf("reservation %q %v: a DUID has at most %d bytes", r.Hostname, r.Addr, maxDUID)
		case len(r.Hostname) > hostnameLimit || strings.Trim(r.Hostname, hostnameCharacters) != "":
			return fmt.Errorf("reservation for %v: %q is no host name", r, r.Hostname)
		}
		if _, ok := p.known[key]; ok {
			return fmt.Errorf("two reservations for %v", r)
		}
		p.known[key] = i
		if err := checkOptions(r.Options); err != nil {
			return fmt.Errorf("reservation for %v: %w", r, err)
		}
		if !r.Addr.IsValid() {
			continue
		}
		if !p.Prefix.Contains(r.Addr) || r.Addr == p.Prefix.Addr() {
			return fmt.Errorf("reservation for %v: %v is not an address for a machine of this link", r, r.Addr)
		}
		if other, ok := p.reserved[r.Addr]; ok {
			return fmt.Errorf("%v is reserved for both %v and %v", r.Addr, &p.Reservations[other], r)
		}
		p.reserved[r.Addr] = i
	}
	return nil
}

// key is what the reservation is found by.
func (r *Reservation) key() string {
	switch {
	case len(r.HardwareAddr) > 0:
		return "mac=" + string(r.HardwareAddr)
	case len(r.DUID) > 0:
		return "duid=" + string(r.DUID)
	case r.UUID != "":
		return "uuid=" + strings.ToLower(r.UUID)
	}
	return ""
}

// String names the machine.
func (r *Reservation) String() string {
	switch {
	case len(r.HardwareAddr) > 0:
		return r.HardwareAddr.String()
	case len(r.DUID) > 0:
		return fmt.Sprintf("duid %x", r.DUID)
	}
	return "uuid " + r.UUID
}

func checkServerID(id dhcpv6.DUID) error {
	if id == nil {
		return errors.New("field ServerID is missing: a DUID, mostly of the server's card")
	}
	if b := id.ToBytes(); len(b) < 3 || len(b) > maxDUID {
		return fmt.Errorf("field ServerID has %d bytes, a DUID has 3 to %d", len(b), maxDUID)
	}
	return nil
}

// commonOptions puts together what all clients get.
func commonOptions(dns []netip.Addr, domains []string, more dhcpv6.Options) (dhcpv6.Options, error) {
	var options dhcpv6.Options
	if len(dns) > 0 {
		var list []net.IP
		for _, a := range dns {
			if !a.Is6() || a.Is4In6() {
				return nil, fmt.Errorf("DNS server %v is no IPv6 address", a)
			}
			list = append(list, a.AsSlice())
		}
		options.Add(dhcpv6.OptDNS(list...))
	}
	if len(domains) > 0 {
		for _, d := range domains {
			for label := range strings.SplitSeq(strings.TrimSuffix(d, "."), ".") {
				if len(d) > 253 || label == "" || len(label) > 63 {
					return nil, fmt.Errorf("%q is no domain", d)
				}
			}
		}
		options.Add(dhcpv6.OptDomainSearchList(&rfc1035label.Labels{Labels: domains}))
	}
	if err := checkOptions(more); err != nil {
		return nil, err
	}
	for _, o := range more {
		options.Update(o)
	}
	return options, nil
}

// checkOptions refuses those that the protocol itself is made of.
func checkOptions(list dhcpv6.Options) error {
	for _, o := range list {
		switch c := o.Code(); {
		case c >= dhcpv6.OptionClientID && c <= dhcpv6.OptionRapidCommit, c == dhcpv6.OptionInterfaceID,
			c == dhcpv6.OptionReconfMessage, c == dhcpv6.OptionReconfAccept, c == dhcpv6.OptionIAPD, c == dhcpv6.OptionIAPrefix:
			return fmt.Errorf("option %d (%v) is the protocol's own and cannot be set", uint16(c), c)
		}
		if len(o.ToBytes()) > math.MaxUint16 {
			return fmt.Errorf("option %d is longer than 65535 bytes", uint16(o.Code()))
		}
	}
	return nil
}
