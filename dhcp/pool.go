package dhcp

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
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

// Reservation is a machine with a name or an address of its own.
type Reservation struct {
	// HardwareAddr is the machine, 1 to 16 bytes.
	HardwareAddr net.HardwareAddr
	// Addr is its address, inside or outside of the pool's ranges; the zero
	// value leaves the choice to the pool.
	Addr netip.Addr
	// Hostname is sent in option 12; empty sends none. Letters, digits,
	// hyphen, underscore and dot, 253 bytes at most.
	Hostname string
}

// Pool is a [Handler] that gives addresses of one subnet, to clients on that
// subnet only: the receiving interface, or the relay (giaddr), must have an
// address in Prefix. For its subnet it is authoritative: a client that asks
// for an address that it cannot have gets a NAK (RFC 2131 section 4.3.2).
//
// A machine is its hardware address: the ROM, iPXE, the initramfs and the
// system get one and the same address, whatever client identifier each of them
// sends. An address that is not reserved is chosen by, in this order: what the
// machine has or had, what it asks for, a hash of its hardware address (so
// that the choice is the same after a restart with an empty store), the next
// one never used, the one that expired longest ago.
//
// Exported fields are set before use and not changed afterwards; the pool
// never writes to them. Prefix and ServerID are required. [Pool.Validate]
// tells whether they make sense; a pool where they do not answers nobody.
type Pool struct {
	// Prefix is the subnet, such as 192.168.0.0/24.
	Prefix netip.Prefix

	// Ranges are the addresses that may be given to any machine. Without
	// any, only reservations with an address are served.
	Ranges []Range

	// ServerID is the address by which clients know this server (option 54):
	// the server's own address where it receives their requests.
	ServerID netip.Addr

	// Reservations are the machines that are known.
	Reservations []Reservation

	// KnownOnly serves machines that have a reservation, and keeps silent to
	// all others.
	KnownOnly bool

	// Router (option 3), DNS (option 6) and Domain (option 15) are sent when
	// they are set.
	Router netip.Addr
	DNS    []netip.Addr
	Domain string

	// LeaseTime is how long a lease lasts, in whole seconds; 0 is 12 hours,
	// -1 for ever. An initramfs does not renew its lease: a machine whose
	// system runs no DHCP client keeps using an address that has expired, so
	// do not make this shorter than such machines run without need.
	LeaseTime time.Duration

	// OfferTime is how long an offered address is held for the client to
	// request it; 0 is 15 seconds.
	OfferTime time.Duration

	// DeclineTime is how long an address is left alone that a client found in
	// use by a stranger; 0 is 10 minutes.
	DeclineTime time.Duration

	// Store keeps the leases; nil is a [MemoryStore] of the pool's own. Pools
	// may share one.
	Store LeaseStore

	// Logger gets, at Warn, what an operator must see: no address left, an
	// address in use by a stranger. nil is [slog.Default].
	Logger *slog.Logger

	setup sync.Once
	err   error
	store LeaseStore
	// Reservations by hardware address and by address.
	known    map[string]Reservation
	reserved map[netip.Addr]net.HardwareAddr
	size     uint64 // addresses in Ranges

	machines  keyLock
	offers    offers
	search    searchState
	exhausted limiter
	declined  limiter
	taken     onceSet
}

var _ Handler = (*Pool)(nil)

// ServeDHCP implements [Handler].
func (p *Pool) ServeDHCP(ctx context.Context, r *Request) (*dhcpv4.DHCPv4, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	hw := r.hardwareAddr()
	if hw == nil {
		return nil, nil
	}
	res, known := p.known[string(hw)]
	if p.KnownOnly && !known {
		return nil, nil
	}
	c := client{Request: r, hw: hw, res: res, requested: toAddr(r.RequestedIPAddress()), ciaddr: toAddr(r.ClientIPAddr)}
	if sid := r.Options.Get(dhcpv4.OptionServerIdentifier); sid != nil {
		c.server, _ = netip.AddrFromSlice(sid)
		c.serverSet = true
	}
	// One message of a machine at a time: of two DISCOVERs that came at once,
	// the second sees what the first was offered.
	defer p.machines.lock(string(hw))()

	onLink := r.onLink(p.Prefix) && !p.fromElsewhere(c)
	switch t := r.MessageType(); {
	case t == dhcpv4.MessageTypeDiscover && onLink:
		return p.discover(ctx, c)
	case t == dhcpv4.MessageTypeRequest && (onLink || p.routed(ctx, c)):
		return p.request(ctx, c)
	case t == dhcpv4.MessageTypeInform && p.Prefix.Contains(c.ciaddr) && (onLink || c.ciaddr == r.Peer.Addr()):
		return p.inform(c), nil
	case t == dhcpv4.MessageTypeRelease && p.Prefix.Contains(c.ciaddr) && (c.ciaddr == r.Peer.Addr() || !r.Peer.IsValid()):
		// It comes from the address that it gives back (RFC 2131 section
		// 4.4.6); anybody could write another's into the message.
		return p.release(ctx, c)
	case t == dhcpv4.MessageTypeDecline && onLink:
		return p.decline(ctx, c)
	}
	return nil, nil
}

// client is a request with what the pool reads out of it.
type client struct {
	*Request
	hw        net.HardwareAddr
	res       Reservation // zero for a machine without one
	requested netip.Addr  // option 50
	ciaddr    netip.Addr
	server    netip.Addr // option 54
	serverSet bool
}

// routed reports whether the request renews a lease from behind a relay: such
// a client talks to the server directly (RFC 2131 section 4.4.5), so neither a
// relay nor the interface tells its subnet. Only an active lease does.
func (p *Pool) routed(ctx context.Context, c client) bool {
	if c.ciaddr != c.Peer.Addr() || !p.Prefix.Contains(c.ciaddr) || toAddr(c.GatewayIPAddr).IsValid() {
		return false
	}
	l, err := p.store.LeaseByAddr(ctx, c.ciaddr)
	return err == nil && l.heldBy(c.hw) && l.Active(time.Now())
}

// fromElsewhere reports whether the request was routed here from another
// subnet: the interface it came in by then says nothing, and refusing it would
// take the address from a client of another pool.
func (p *Pool) fromElsewhere(c client) bool {
	return c.ciaddr.IsValid() && c.ciaddr == c.Peer.Addr() && !p.Prefix.Contains(c.ciaddr) &&
		c.Local.Addr() != broadcastAddr
}

func (p *Pool) discover(ctx context.Context, c client) (*dhcpv4.DHCPv4, error) {
	addr, err := p.allocate(ctx, c)
	if err != nil || !addr.IsValid() {
		return nil, err
	}
	reply := p.reply(c, dhcpv4.MessageTypeOffer)
	p.setLease(reply, addr)
	return reply, nil
}

func (p *Pool) request(ctx context.Context, c client) (*dhcpv4.DHCPv4, error) {
	if c.serverSet && c.server != p.ServerID {
		// The client chose another server's offer.
		if p.offers.drop(c.hw) {
			p.search.freed()
		}
		return nil, nil
	}
	addr, renewing := c.requested, false
	if !addr.IsValid() {
		// RENEWING and REBINDING put it in ciaddr (RFC 2131 section 4.3.2).
		addr, renewing = c.ciaddr, true
	}
	if !addr.IsValid() {
		return nil, ErrDrop
	}
	ok, err := p.mayHave(ctx, c, addr, renewing)
	if err != nil {
		return nil, err
	}
	if !ok {
		return p.nak(c), nil
	}
	err = p.commit(ctx, c, addr)
	if errors.Is(err, fs.ErrExist) {
		return p.nak(c), nil
	}
	if err != nil {
		return nil, err
	}
	reply := p.reply(c, dhcpv4.MessageTypeAck)
	p.setLease(reply, addr)
	reply.ClientIPAddr = c.ClientIPAddr
	return reply, nil
}

func (p *Pool) nak(c client) *dhcpv4.DHCPv4 {
	p.offers.drop(c.hw)
	reply := NewReply(c.Request, dhcpv4.MessageTypeNak)
	setOption(reply, dhcpv4.OptionServerIdentifier, p.ServerID.AsSlice())
	setOption(reply, dhcpv4.OptionMessage, []byte("address not available"))
	return reply
}

// commit makes the lease, and ends others that the machine has here.
func (p *Pool) commit(ctx context.Context, c client, addr netip.Addr) error {
	old, err := p.store.LeasesByHardwareAddr(ctx, c.hw)
	if err != nil {
		return err
	}
	l := Lease{
		Addr: addr, HardwareAddr: c.hw, UUID: c.UUID(), Archs: c.ClientArch(), Expires: p.expires(),
		ClientID: c.Options.Get(dhcpv4.OptionClientIdentifier),
		Hostname: c.res.Hostname,
	}
	// A client chooses these: nothing long, and no name that is none.
	l.Archs = l.Archs[:min(len(l.Archs), 16)]
	l.ClientID = l.ClientID[:min(len(l.ClientID), 255)]
	if name := c.HostName(); validHostname(name) {
		l.ClientHostname = name
	}
	slices.SortFunc(old, func(a, b Lease) int { return b.Expires.Compare(a.Expires) })
	for _, o := range old {
		l.UUID = cmp.Or(l.UUID, o.UUID)
		if l.Archs == nil {
			l.Archs = o.Archs
		}
	}
	if err := p.store.Commit(ctx, l); err != nil {
		return err
	}
	p.offers.drop(c.hw)
	for _, o := range old {
		if o.Addr != addr && p.Prefix.Contains(o.Addr) && o.Active(time.Now()) {
			if err := p.store.Release(ctx, o.Addr, c.hw); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			p.search.freed()
		}
	}
	return nil
}

func (p *Pool) inform(c client) *dhcpv4.DHCPv4 {
	// RFC 2131 section 4.3.5: parameters only, neither address nor lease time.
	reply := p.reply(c, dhcpv4.MessageTypeAck)
	reply.ClientIPAddr = c.ClientIPAddr
	return reply
}

func (p *Pool) release(ctx context.Context, c client) (*dhcpv4.DHCPv4, error) {
	if c.serverSet && c.server != p.ServerID {
		return nil, nil
	}
	switch err := p.store.Release(ctx, c.ciaddr, c.hw); {
	case err == nil:
		p.search.freed()
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	return nil, ErrDrop
}

// decline takes an address out of use that the client, by ARP, found to be
// somebody else's. Only the machine that was given it is believed.
func (p *Pool) decline(ctx context.Context, c client) (*dhcpv4.DHCPv4, error) {
	if c.serverSet && c.server != p.ServerID || !p.Prefix.Contains(c.requested) {
		return nil, nil
	}
	l, err := p.store.LeaseByAddr(ctx, c.requested)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if !(err == nil && l.heldBy(c.hw)) && p.offers.addr(c.hw) != c.requested {
		return nil, ErrDrop
	}
	p.offers.drop(c.hw)
	reserved := p.reserved[c.requested] != nil
	if ok, missed := p.declined.allow(time.Second); ok {
		p.logger().Warn("dhcp: a client found its address in use by a machine that did not get it here: find that one (arping) and move it, or change the range or the reservation",
			"addr", c.requested, "mac", c.hw.String(), "reserved", reserved, "unlogged", missed)
	}
	if reserved {
		// Quarantine would leave the machine without any address.
		return nil, ErrDrop
	}
	if err := p.store.Decline(ctx, c.requested, c.hw, time.Now().Add(p.declineTime())); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return nil, ErrDrop
}

// reply starts an OFFER or ACK with the parameters of the subnet.
func (p *Pool) reply(c client, t dhcpv4.MessageType) *dhcpv4.DHCPv4 {
	reply := NewReply(c.Request, t)
	setOption(reply, dhcpv4.OptionServerIdentifier, p.ServerID.AsSlice())
	setOption(reply, dhcpv4.OptionSubnetMask, net.CIDRMask(p.Prefix.Bits(), 32))
	if p.Prefix.Bits() < 31 {
		setOption(reply, dhcpv4.OptionBroadcastAddress, lastAddr(p.Prefix).AsSlice())
	}
	if p.Router.IsValid() {
		setOption(reply, dhcpv4.OptionRouter, p.Router.AsSlice())
	}
	if len(p.DNS) > 0 {
		var list []byte
		for _, a := range p.DNS {
			list = append(list, a.AsSlice()...)
		}
		setOption(reply, dhcpv4.OptionDomainNameServer, list)
	}
	if p.Domain != "" {
		setOption(reply, dhcpv4.OptionDomainName, []byte(p.Domain))
	}
	if c.res.Hostname != "" {
		setOption(reply, dhcpv4.OptionHostName, []byte(c.res.Hostname))
	}
	return reply
}

func (p *Pool) setLease(reply *dhcpv4.DHCPv4, addr netip.Addr) {
	reply.YourIPAddr = toIP(addr)
	seconds := uint32(0xffffffff) // RFC 2131 section 3.3: infinity
	if t := p.leaseTime(); t > 0 {
		seconds = uint32(t / time.Second)
	}
	setOption(reply, dhcpv4.OptionIPAddressLeaseTime,
		[]byte{byte(seconds >> 24), byte(seconds >> 16), byte(seconds >> 8), byte(seconds)})
}

func setOption(m *dhcpv4.DHCPv4, code dhcpv4.OptionCode, value []byte) {
	m.Options[code.Code()] = value
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
	if p.Prefix.Contains(addr) {
		l, err := p.store.LeaseByAddr(ctx, addr)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Lease{}, err
		}
		if err == nil && l.Active(time.Now()) {
			return l, nil
		}
	}
	return Lease{}, fmt.Errorf("dhcp: no lease of %v: %w", addr, fs.ErrNotExist)
}

// LeaseByHardwareAddr returns the active lease of a machine in this pool, or
// [fs.ErrNotExist]. It may be called concurrently.
func (p *Pool) LeaseByHardwareAddr(ctx context.Context, hw net.HardwareAddr) (Lease, error) {
	if err := p.Validate(); err != nil {
		return Lease{}, err
	}
	leases, err := p.store.LeasesByHardwareAddr(ctx, hw)
	if err != nil {
		return Lease{}, err
	}
	for _, l := range leases {
		if p.Prefix.Contains(l.Addr) && bytes.Equal(l.HardwareAddr, hw) && l.Active(time.Now()) {
			return l, nil
		}
	}
	return Lease{}, fmt.Errorf("dhcp: no lease of %v: %w", hw, fs.ErrNotExist)
}

func (p *Pool) leaseTime() time.Duration { return cmp.Or(p.LeaseTime, defaultLeaseTime) }

func (p *Pool) offerTime() time.Duration { return cmp.Or(p.OfferTime, defaultOfferTime) }

func (p *Pool) declineTime() time.Duration { return cmp.Or(p.DeclineTime, defaultDeclineTime) }

func (p *Pool) expires() time.Time {
	if t := p.leaseTime(); t > 0 {
		return time.Now().Add(t)
	}
	return time.Time{}
}

func (p *Pool) logger() *slog.Logger { return orDefault(p.Logger) }
