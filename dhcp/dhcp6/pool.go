package dhcp6

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/dhcp/internal/limit"
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
// ADVERTISE holds nothing, if the store is no [dhcp.SharedStore]: where a small
// range runs out, the REPLY may have another address than the ADVERTISE, or
// none. A client that renews a lease which the store has forgotten gets it
// again, if it is free.
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
	// use by a stranger; 0 is 10 minutes. Of one client that declines address
	// after address eight are believed within that time, and none that is
	// reserved for it.
	DeclineTime time.Duration

	// MaxNewPerLink bounds how many machines without a lease get one per
	// minute through one interface, or from relays of one /64, whatever link
	// these name: a machine that makes up identities, or relays, cannot fill
	// the store. 0 is 20,000, -1 no limit.
	MaxNewPerLink int

	// Store keeps the leases, which are the same that package dhcp has, with
	// the DUID for ClientID; nil is a [dhcp.MemoryStore] of the pool's own.
	// Pools may share one, also with pools of IPv4; those of several servers
	// need a [dhcp.SharedStore] for that, which also keeps what they advertise.
	Store dhcp.LeaseStore

	// Logger gets, at Warn, what an operator must see; nil is [slog.Default].
	Logger *slog.Logger

	setup    sync.Once
	err      error
	store    dhcp.LeaseStore
	shared   dhcp.SharedStore   // store, if it is one
	known    map[string]int     // Reservations by their keys
	reserved map[netip.Addr]int // Reservations by address
	options  dhcpv6.Options
	size     uint64 // addresses in Ranges, at most 2^64-1

	newcomers   limit.Sources
	advertised  limit.Sources // newcomers that an address is held for
	declines    limit.Sources // of each machine
	exhausted   limit.Seldom  // the next search through all ranges
	full        limit.Seldom  // log lines
	flooded     limit.Seldom
	declined    limit.Seldom
	disbelieved limit.Seldom
	taken       limit.Once
}

var _ Handler = (*Pool)(nil)

// LeaseByAddr returns the active lease of an address of this pool: who is this
// peer? It returns [fs.ErrNotExist] when there is none. It may be called
// concurrently, and before the pool has served anything.
func (p *Pool) LeaseByAddr(ctx context.Context, addr netip.Addr) (dhcp.Lease, error) {
	if err := p.Validate(); err != nil {
		return dhcp.Lease{}, err
	}
	addr = addr.WithZone("")
	if !p.Prefix.Contains(addr) {
		return dhcp.Lease{}, fmt.Errorf("dhcp6: no lease of %v: %w", addr, fs.ErrNotExist)
	}
	return p.lookup(ctx, addr)
}

func (p *Pool) logger() *slog.Logger { return orDefault(p.Logger) }
