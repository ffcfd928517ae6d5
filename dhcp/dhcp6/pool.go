package dhcp6

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/rfc1035label"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

const (
	defaultLeaseTime     = 12 * time.Hour
	defaultDeclineTime   = 10 * time.Minute
	defaultNewPerLink    = 20_000
	infinity             = math.MaxUint32 * time.Second // RFC 8415 section 7.7
	hostnameLimit        = 253
	hostnameCharacters   = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
	statusTextNoAddrs    = "no address is free on this link"
	statusTextNoBinding  = "this server knows no such lease"
	statusTextNotOnLink  = "the address is not of this link"
	statusTextNoPrefixes = "this server delegates no prefixes"
)

// Reservation is a machine with a name or an address of its own. It is known
// by the first of the first three fields that is set; one is required.
type Reservation struct {
	// HardwareAddr is the machine's, see [Request.HardwareAddr].
	HardwareAddr net.HardwareAddr
	// DUID is what the client sends in option 1, as on the wire.
	DUID []byte
	// UUID is the machine's, as [Request.UUID] writes it.
	UUID string

	// Addr is its address, inside or outside of the pool's ranges; the zero
	// value leaves the choice to the pool.
	Addr netip.Addr
	// Hostname is kept in the lease; DHCPv6 does not send it.
	Hostname string
	// Options are sent to this machine; they come before all others.
	Options dhcpv6.Options
}

// Pool is a [Handler] that gives addresses of one link, to clients on that
// link only: the receiving interface must have an address in Prefix, or the
// relay's link-address must be there. It answers all that RFC 8415 has clients
// of a server with addresses (IA_NA) send: SOLICIT, also with rapid commit,
// REQUEST, CONFIRM, RENEW, REBIND, RELEASE, DECLINE, and
// INFORMATION-REQUEST. For its link it is authoritative: an address of another
// prefix is NotOnLink to a client that asks for confirmation.
//
// An address that is not reserved is chosen by, in this order: what the
// machine has or had, what it asks for, a hash of its identity, and from there
// on the next one that nobody ever had, or else whose lease has expired. An
// ADVERTISE holds nothing: where a small range runs out, the REPLY may have
// another address than the ADVERTISE, or none. A client that renews a lease
// which the store has forgotten gets it again, if it is free.
//
// Exported fields are set before use and not changed afterwards; the pool
// never writes to them. Prefix and ServerID are required. [Pool.Validate]
// tells whether they make sense; a pool where they do not answers nobody.
type Pool struct {
	// Prefix is the link's, mostly a /64.
	Prefix netip.Prefix

	// Ranges are the addresses that may be given to any machine, but for
	// those in Exclude, such as servers' and routers'. Without any, only
	// reservations with an address are served.
	Ranges  []dhcp.Range
	Exclude []dhcp.Range

	// ServerID is the server's identifier (option 2). It must be the same
	// after a restart, and for all handlers of one server: mostly a
	// [dhcpv6.DUIDLL] of the server's card.
	ServerID dhcpv6.DUID

	// Reservations are the machines that are known.
	Reservations []Reservation

	// KnownOnly serves machines that have a reservation, and keeps silent to
	// all others.
	KnownOnly bool

	// RapidCommit answers a SOLICIT that asks for it with a REPLY at once.
	// With several servers on a link every such client takes an address of
	// each.
	RapidCommit bool

	// Preference is this server's among several (option 7); clients take the
	// highest, and wait for no others at 255.
	Preference uint8

	// DNS (option 23) and Domains (option 24) are sent when they are set, and
	// Options to all clients.
	DNS     []netip.Addr
	Domains []string
	Options dhcpv6.Options

	// LeaseTime is how long an address is valid, and preferred, in whole
	// seconds; 0 is 12 hours, -1 for ever. Clients renew after half of it.
	LeaseTime time.Duration

	// DeclineTime is how long an address is left alone that a client found in
	// use by a stranger; 0 is 10 minutes.
	DeclineTime time.Duration

	// MaxNewPerLink bounds how many machines without a lease get one per
	// minute on one link: a machine that makes up identities cannot fill the
	// store. 0 is 20,000, -1 no limit.
	MaxNewPerLink int

	// Store keeps the leases, which are the same that package dhcp has, with
	// the DUID for ClientID; nil is a [dhcp.MemoryStore] of the pool's own.
	// Pools may share one, also with pools of IPv4.
	Store dhcp.LeaseStore

	// Logger gets, at Warn, what an operator must see; nil is [slog.Default].
	Logger *slog.Logger

	setup    sync.Once
	err      error
	store    dhcp.LeaseStore
	known    map[string]int     // Reservations by their keys
	reserved map[netip.Addr]int // Reservations by address
	options  dhcpv6.Options
	size     uint64 // addresses in Ranges, at most 2^64-1

	newcomers perMinute
	exhausted seldom // the next search through all ranges
	full      seldom // log lines
	flooded   seldom
	declined  seldom
	taken     onceEach
}

var _ Handler = (*Pool)(nil)

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

// LeaseByAddr returns the active lease of an address of this pool: who is this
// peer? It returns [fs.ErrNotExist] when there is none. It may be called
// concurrently, and before the pool has served anything.
func (p *Pool) LeaseByAddr(ctx context.Context, addr netip.Addr) (dhcp.Lease, error) {
	if err := p.Validate(); err != nil {
		return dhcp.Lease{}, err
	}
	addr = addr.WithZone("")
	if p.Prefix.Contains(addr) {
		l, err := p.store.LeaseByAddr(ctx, addr)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return dhcp.Lease{}, err
		}
		if err == nil && l.Active(time.Now()) {
			return l, nil
		}
	}
	return dhcp.Lease{}, fmt.Errorf("dhcp6: no lease of %v: %w", addr, fs.ErrNotExist)
}

func (p *Pool) logger() *slog.Logger { return orDefault(p.Logger) }
