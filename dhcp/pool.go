package dhcp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/seed-3ec230fa/diskless/dhcp/internal/limit"
)

const (
	defaultLeaseTime   = 12 * time.Hour
	defaultOfferTime   = 15 * time.Second
	defaultDeclineTime = 10 * time.Minute
)

// Range is the addresses from First to Last, both included.
type Range struct{ First, Last netip.Addr }

func (r Range) contains(a netip.Addr) bool {
	return r.First.Compare(a) <= 0 && a.Compare(r.Last) <= 0
}

// Reservation is a machine with a name or an address of its own. It is known
// by its hardware address, or by another of the first four fields; one of them
// is required, and the first that is set counts. Only the hardware address is
// the same from the ROM to the system.
type Reservation struct {
	// HardwareAddr is the machine's, 1 to 16 bytes.
	HardwareAddr net.HardwareAddr
	// ClientID is what the machine sends in option 61.
	ClientID []byte
	// UUID is the machine's, as [Request.UUID] writes it.
	UUID string
	// CircuitID is the port that the machine is connected to, in the words of
	// the relay or switch (option 82, sub-option 1).
	CircuitID []byte

	// Addr is its address, inside or outside of the pool's ranges; the zero
	// value leaves the choice to the pool.
	Addr netip.Addr
	// Hostname is sent in option 12; empty sends none. Letters, digits,
	// hyphen, underscore and dot, 253 bytes at most.
	Hostname string
	// Options are sent to this machine, by number; they come before all others.
	Options dhcpv4.Options
}

// Pool is a [Handler] that gives addresses of one subnet, to clients on that
// subnet only: the receiving interface must have an address in Prefix, or the
// relay must say that the client is there (giaddr, the link selection of RFC
// 3527, the subnet selection of RFC 3011). [SharedNetwork] joins the subnets
// of one link. For its subnet a pool is authoritative: a client that asks for
// an address that it cannot have gets a NAK (RFC 2131 section 4.3.2).
//
// A machine is its hardware address, if Identity does not say otherwise: the
// ROM, iPXE, the initramfs and the system get one and the same address,
// whatever client identifier each of them sends. One that has none in its
// messages, on InfiniBand (RFC 4390), is its client identifier. An address that
// is not reserved is chosen by, in this order: what the machine has or had, what
// it asks for, a hash of its identity (so that the choice is the same after a
// restart with an empty store), the next one never used, the one that expired
// longest ago, one that was offered to a machine that did not take it for
// three seconds.
//
// An option is sent with the value of the first of these that has one: the
// reservation, the classes in their order, Options (and the fields Router,
// DNS and Domain), Defaults. Clients get all of them, asked for or not, as far
// as there is room in a message.
//
// Exported fields are set before use and not changed afterwards; the pool
// never writes to them. Prefix and ServerID are required. [Pool.Validate]
// tells whether they make sense; a pool where they do not answers nobody.
type Pool struct {
	// Prefix is the subnet, such as 192.168.0.0/24.
	Prefix netip.Prefix

	// Ranges are the addresses that may be given to any machine, but for
	// those in Exclude. Without any, only reservations with an address are
	// served.
	Ranges  []Range
	Exclude []Range

	// ServerID is the address by which clients know this server (option 54):
	// the server's own address where it receives their requests. A relay may
	// replace it (RFC 5107).
	ServerID netip.Addr

	// Reservations are the machines that are known.
	Reservations []Reservation

	// KnownOnly serves machines that have a reservation, and keeps silent to
	// all others.
	KnownOnly bool

	// Identity is what makes a machine the same one as before.
	Identity Identity

	// NotAuthoritative keeps silent where a NAK would be due to a client that
	// chose no server: beside a server that knows addresses which this one
	// does not.
	NotAuthoritative bool

	// BOOTP says which clients of that protocol (RFC 951) are served.
	BOOTP BOOTP

	// RapidCommit answers a DISCOVER that asks for it with an ACK at once
	// (RFC 4039). With several servers on a link every such client takes an
	// address of each.
	RapidCommit bool

	// Peers are other servers (option 54) that may give addresses here. A
	// client that chooses any other is logged at Warn, once for each server.
	Peers []netip.Addr

	// Router (option 3), DNS (option 6) and Domain (option 15) are sent when
	// they are set.
	Router netip.Addr
	DNS    []netip.Addr
	Domain string

	// Options are sent to all clients of the subnet, Defaults too where
	// nothing else sets them (several pools may share one map), Classes to
	// those that match. [ParseOption] makes values from text. What the
	// protocol itself is made of cannot be set here (50 to 57, 61, 82).
	Options  dhcpv4.Options
	Classes  []Class
	Defaults dhcpv4.Options

	// LeaseTime is how long a lease lasts, in whole seconds; 0 is 12 hours,
	// -1 for ever. An initramfs does not renew its lease: a machine whose
	// system runs no DHCP client keeps using an address that has expired, so
	// do not make this shorter than such machines run without need.
	LeaseTime time.Duration

	// MaxLeaseTime, when it is set, lets clients choose (option 51): they get
	// what they ask for, but one minute at least and this at most (-1: any
	// time).
	MaxLeaseTime time.Duration

	// OfferTime is how long an offered address is held for the client to
	// request it; 0 is 15 seconds.
	OfferTime time.Duration

	// DeclineTime is how long an address is left alone that a client, or
	// InUse, found in use by a stranger; 0 is 10 minutes. Of one client that
	// declines address after address eight are believed within that time.
	DeclineTime time.Duration

	// InUse, when it is set, is asked before an address is offered to a
	// machine that has no lease of it: does somebody use it already? It may
	// take its time (clients wait for a second at least), and must stop when
	// ctx ends; an error is logged and means no. [Prober.InUse] fits.
	// Reserved addresses are not asked for.
	InUse func(ctx context.Context, r *Request, addr netip.Addr) (bool, error)

	// MaxNewPerPort bounds how many machines that have no lease yet are made an
	// offer, or granted what they ask for, per minute for one port of a relay or
	// switch (option 82), and MaxNewPerLink for one interface or relay, whatever
	// this calls itself: a machine that makes up hardware addresses cannot take
	// the whole pool. 0 is 120 for a port and 20,000 for a link, -1 no limit.
	MaxNewPerPort, MaxNewPerLink int

	// Store keeps the leases; nil is a [MemoryStore] of the pool's own. Pools
	// may share one; those of several servers need a [SharedStore] for that.
	Store LeaseStore

	// Logger gets, at Warn, what an operator must see: no address left, an
	// address in use by a stranger, a foreign server. nil is [slog.Default].
	Logger *slog.Logger

	setup      sync.Once
	err        error
	store      LeaseStore
	shared     SharedStore        // store, if it is one
	link       []*Pool            // of its SharedNetwork
	known      map[string]int     // Reservations by reservationKey
	kinds      uint8              // of keys that are in known
	reserved   map[netip.Addr]int // Reservations by address
	options    dhcpv4.Options     // Defaults, Options and fields in one
	optionList []optionValue      // the same
	ranges     []Range            // Ranges without Exclude
	size       uint64             // addresses in ranges

	machines    keyLock
	offers      offers
	search      searchState
	newOnPort   limit.Sources // apart from newOnLink: made-up ports do not empty that
	newOnLink   limit.Sources
	declines    limit.Sources // of each machine
	exhausted   limit.Seldom
	declined    limit.Seldom
	disbelieved limit.Seldom
	flooded     limit.Seldom
	probing     limit.Seldom
	taken       limit.Once
	rogues      limit.Once
}

var _ Handler = (*Pool)(nil)

// Identity is what makes a machine the same one as before.
type Identity string

const (
	// ByHardwareAddr knows a machine by its hardware address, and by its client
	// identifier where its messages have no such address.
	ByHardwareAddr Identity = ""
	// ByClientID knows a machine by its client identifier (option 61), as
	// RFC 2131 has it, and by its hardware address where it sends none. ROM,
	// iPXE, initramfs and system send different ones: each has an address of
	// its own then.
	ByClientID Identity = "client-id"
	// ByUUID knows a machine by its UUID (option 97), which firmware sends,
	// but most systems do not, and by its hardware address where it sends none.
	ByUUID Identity = "uuid"
)

// BOOTP says which clients of the old protocol are served: those cannot renew
// a lease, so that what they get is theirs for ever.
type BOOTP string

const (
	BOOTPNone     BOOTP = ""         // none
	BOOTPReserved BOOTP = "reserved" // machines with a reserved address
	BOOTPAny      BOOTP = "any"      // all, from Ranges
)

// ServeDHCP implements [Handler].
func (p *Pool) ServeDHCP(ctx context.Context, r *Request) (*dhcpv4.DHCPv4, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	c, ok := p.client(r)
	if !ok {
		return nil, nil
	}
	onLink := r.onLink(p.Prefix) && !p.fromElsewhere(c)
	return p.serve(ctx, c, onLink)
}

// serve is ServeDHCP for a client of which is known whether it is on the link.
func (p *Pool) serve(ctx context.Context, c client, onLink bool) (*dhcpv4.DHCPv4, error) {
	// One message of a machine at a time: of two DISCOVERs that came at once,
	// the second sees what the first was offered.
	defer p.machines.unlock(c.owner, p.machines.lock(c.owner))

	switch t := messageType(c.DHCPv4); {
	case t == dhcpv4.MessageTypeDiscover && onLink:
		return p.discover(ctx, c)
	case t == dhcpv4.MessageTypeRequest && (onLink || p.routed(ctx, c)):
		return p.request(ctx, c, onLink)
	case t == dhcpv4.MessageTypeInform && p.Prefix.Contains(c.ciaddr) && (onLink || c.ciaddr == c.Peer.Addr()):
		return p.inform(c), nil
	case t == dhcpv4.MessageTypeRelease && p.Prefix.Contains(c.ciaddr) && (c.ciaddr == c.Peer.Addr() || !c.Peer.IsValid()):
		// It comes from the address that it gives back (RFC 2131 section
		// 4.4.6); anybody could write another's into the message.
		return p.release(ctx, c)
	case t == dhcpv4.MessageTypeDecline && onLink:
		return p.decline(ctx, c)
	case c.isBOOTP() && onLink && p.BOOTP != BOOTPNone:
		return p.bootp(ctx, c)
	}
	return nil, nil
}

// client is a request with what the pool reads out of it.
type client struct {
	*Request
	hw        net.HardwareAddr
	owner     string      // see LeaseStore
	id        string      // owner, where that is not hw
	res       Reservation // zero for a machine without one
	self      netip.Addr  // what the client knows this server by
	requested netip.Addr  // option 50
	ciaddr    netip.Addr
	server    netip.Addr // option 54
	serverSet bool
}

// client reads the request. ok is false for one that the pool does not serve.
func (p *Pool) client(r *Request) (c client, ok bool) {
	c = client{
		Request: r, hw: r.hardwareAddr(), self: r.serverIDOr(p.ServerID),
		requested: toAddr(r.Options.Get(dhcpv4.OptionRequestedIPAddress)), ciaddr: toAddr(r.ClientIPAddr),
	}
	if !r.identified() {
		return c, false
	}
	res, id := p.reservation(r)
	if res >= 0 {
		c.res = p.Reservations[res]
	} else if p.KnownOnly {
		r.notef("subnet %v serves known machines only, and this one has no reservation", p.Prefix)
		return c, false
	}
	if id == "" {
		id = p.Identity.id(r)
	}
	if id == "" && c.hw == nil {
		id = ByClientID.id(r)
	}
	c.id, c.owner = id, id
	if id == "" {
		c.owner = string(c.hw)
	}
	if sid := r.Options.Get(dhcpv4.OptionServerIdentifier); sid != nil {
		c.server, _ = netip.AddrFromSlice(sid)
		c.serverSet = true
	}
	return c, true
}

// renews reports whether a REQUEST is of a machine in the states RENEWING or
// REBINDING, which runs on its ciaddr (RFC 2131 section 4.3.2).
func (c client) renews() bool {
	return messageType(c.DHCPv4) == dhcpv4.MessageTypeRequest && !c.requested.IsValid() && !c.serverSet
}

// routed reports whether the request renews a lease from behind a relay: such
// a client talks to the server directly (RFC 2131 section 4.4.5), so neither a
// relay nor the interface tells its subnet. Only an active lease does.
func (p *Pool) routed(ctx context.Context, c client) bool {
	if c.ciaddr != c.Peer.Addr() || !p.Prefix.Contains(c.ciaddr) || toAddr(c.GatewayIPAddr).IsValid() {
		return false
	}
	l, err := p.store.LeaseByAddr(ctx, c.ciaddr)
	return err == nil && l.heldBy(c.owner) && l.Active(time.Now())
}

// fromElsewhere reports whether the request was routed here from another
// subnet: the interface it came in by then says nothing, and refusing it would
// take the address from a client of another pool.
func (p *Pool) fromElsewhere(c client) bool {
	return c.ciaddr.IsValid() && c.ciaddr == c.Peer.Addr() && !p.Prefix.Contains(c.ciaddr) &&
		c.Local.Addr() != broadcastAddr
}

// LeaseByAddr returns the active lease of an address of this pool: who is this
// peer? It returns [fs.ErrNotExist] when there is none, also for a reserved
// address whose machine has not asked for it yet. It may be called
// concurrently, and before the pool has served anything.
func (p *Pool) LeaseByAddr(ctx context.Context, addr netip.Addr) (Lease, error) {
	if err := p.Validate(); err != nil {
		return Lease{}, err
	}
	addr = addr.Unmap()
	if !p.Prefix.Contains(addr) {
		return Lease{}, fmt.Errorf("dhcp: no lease of %v: %w", addr, fs.ErrNotExist)
	}
	l, err := p.lookup(ctx, addr)
	if errors.Is(err, fs.ErrNotExist) && p.shared != nil {
		// Another server may have given it a moment ago.
		if err := p.shared.Sync(ctx); err != nil {
			return Lease{}, err
		}
		return p.lookup(ctx, addr)
	}
	return l, err
}

// LeaseByHardwareAddr returns the active lease of a machine in this pool, or
// [fs.ErrNotExist]. It may be called concurrently. Where machines are known by
// something else than their hardware address it looks at all leases.
func (p *Pool) LeaseByHardwareAddr(ctx context.Context, hw net.HardwareAddr) (Lease, error) {
	if err := p.Validate(); err != nil {
		return Lease{}, err
	}
	if len(hw) == 0 {
		return Lease{}, fmt.Errorf("dhcp: no hardware address: %w", fs.ErrNotExist)
	}
	leases, err := p.store.LeasesByOwner(ctx, string(hw))
	if err != nil {
		return Lease{}, err
	}
	for _, l := range leases {
		if p.Prefix.Contains(l.Addr) && l.Active(time.Now()) {
			return l, nil
		}
	}
	if p.Identity != ByHardwareAddr || p.kinds&^(1<<keyHardware) != 0 {
		for l, err := range p.store.Leases(ctx) {
			if err != nil {
				return Lease{}, err
			}
			if p.Prefix.Contains(l.Addr) && bytes.Equal(l.HardwareAddr, hw) && l.Active(time.Now()) {
				return l, nil
			}
		}
	}
	return Lease{}, fmt.Errorf("dhcp: no lease of %v: %w", hw, fs.ErrNotExist)
}

func (p *Pool) logger() *slog.Logger { return orDefault(p.Logger) }
