package dhcp6

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"io/fs"
	"math"
	"math/bits"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

// maxSearch is how many addresses are looked at for a free one. A pool that
// has none is not searched again for searchPause.
const (
	maxSearch   = 1 << 16
	searchPause = time.Second
)

var errNoAddress = errors.New("dhcp6: no address is free")

// assign chooses an address for the client and, with commit, makes the lease.
// It fails with errNoAddress; any other error is the store's.
func (p *Pool) assign(ctx context.Context, c *client, want netip.Addr, commit bool) (netip.Addr, error) {
	if c.MessageType == dhcpv6.MessageTypeRenew || c.MessageType == dhcpv6.MessageTypeRebind {
		c.runs = want
	}
	addr, err := p.assignOnce(ctx, c, want, commit)
	if errors.Is(err, errLate) { // it gets the one that it has
		addr, err = p.assignOnce(ctx, c, want, commit)
	}
	return addr, err
}

// assignOnce is assign, which fails with errLate when another server did the
// same a moment before.
func (p *Pool) assignOnce(ctx context.Context, c *client, want netip.Addr, commit bool) (netip.Addr, error) {
	try := func(addr netip.Addr, why string) (bool, error) {
		ok, err := p.take(ctx, c, addr, commit)
		if ok {
			c.Note("%v: %s", addr, why)
		}
		return ok, err
	}
	if a := c.res.Addr; a.IsValid() {
		ok, err := try(a, "reserved for it")
		if !ok && err == nil {
			if !c.dry() && p.taken.First(a.String()) {
				p.logger().Warn("dhcp6: a reserved address is leased to another machine or was found in use: release it there", "addr", a, "client", c.who())
			}
			err = errNoAddress
		}
		return a, err
	}
	leases, err := p.leasesOf(ctx, c)
	if err != nil {
		return netip.Addr{}, err
	}
	now := time.Now()
	// What is wanted first, then what it had last; no expiry is later than any.
	// Among servers, of several that it has the one that it renews, or the one
	// made first: see keeps.
	first := func(a, b bool) int {
		switch {
		case a == b:
			return 0
		case a:
			return -1
		}
		return 1
	}
	slices.SortStableFunc(leases, func(a, b dhcp.Lease) int {
		if p.shared != nil && (a.Active(now) || b.Active(now)) {
			return cmp.Or(first(a.Active(now), b.Active(now)), first(a.Addr == c.runs, b.Addr == c.runs))
		}
		return cmp.Or(first(a.Addr == want, b.Addr == want), first(a.Expires.IsZero(), b.Expires.IsZero()), b.Expires.Compare(a.Expires))
	})
	for _, l := range leases {
		if p.givable(l.Addr) {
			if ok, err := try(l.Addr, "what it has or had"); ok || err != nil {
				return l.Addr, err
			}
		}
	}
	if !p.admit(c, commit) {
		return netip.Addr{}, errNoAddress
	}
	if want.IsValid() && p.givable(want) {
		if ok, err := try(want, "what it asks for"); ok || err != nil {
			return want, err
		}
	}
	return p.search(c, try, ctx)
}

// search looks for a free address from the client's hash on, so that the
// choice is the same after a restart with an empty store.
func (p *Pool) search(c *client, try func(netip.Addr, string) (bool, error), ctx context.Context) (netip.Addr, error) {
	if p.size == 0 {
		return netip.Addr{}, errNoAddress
	}
	h := fnv.New64a()
	h.Write([]byte(c.owner))
	start := h.Sum64() % p.size
	var expired []netip.Addr
	now := time.Now()
	for i := range min(p.size, maxSearch) {
		if i == 256 && !c.dry() {
			if due, _ := p.exhausted.Due(searchPause); !due {
				break // it was searched through just now
			}
		}
		addr := p.nth((start + i) % p.size)
		if !p.givable(addr) {
			continue
		}
		until, known, err := p.state(ctx, c, addr)
		switch {
		case err != nil:
			return netip.Addr{}, err
		case !known:
			if ok, err := try(addr, "free"); ok || err != nil {
				return addr, err
			}
		case !holds(until, now) && len(expired) < 16:
			expired = append(expired, addr)
		}
	}
	for _, addr := range expired {
		if ok, err := try(addr, "free again"); ok || err != nil {
			return addr, err
		}
	}
	if !c.dry() {
		if ok, missed := p.full.Due(time.Minute); ok {
			p.logger().Warn("dhcp6: no address is free: give the pool more or longer ranges, or shorter leases",
				"prefix", p.Prefix, "client", c.who(), "unlogged", missed)
		}
	}
	return netip.Addr{}, errNoAddress
}

// take makes the lease, or without commit tells whether it could be made.
func (p *Pool) take(ctx context.Context, c *client, addr netip.Addr, commit bool) (bool, error) {
	if !commit || c.dry() {
		return p.advertise(ctx, c, addr)
	}
	l := dhcp.Lease{
		Addr: addr, ID: c.id, HardwareAddr: c.hw, Hostname: c.res.Hostname, ClientID: c.DUID(), UUID: c.UUID(), Expires: p.expires(time.Now()),
	}
	l.Archs = c.Options.ArchTypes()[:min(64, len(c.Options.ArchTypes()))]
	if old, err := p.store.LeaseByAddr(ctx, addr); err == nil && old.Owner() == c.owner {
		// The system tells less than the firmware did.
		if l.UUID == "" {
			l.UUID = old.UUID
		}
		if len(l.Archs) == 0 {
			l.Archs = old.Archs
		}
	}
	err := p.store.Commit(ctx, l)
	switch {
	case err == nil:
		err := p.keeps(ctx, c, addr)
		return err == nil, err
	case errors.Is(err, fs.ErrExist):
		return false, nil
	case errors.Is(err, syscall.ENOSPC):
		if ok, missed := p.full.Due(time.Minute); ok {
			p.logger().Warn("dhcp6: the lease store is full", "err", err, "unlogged", missed)
		}
		return false, errNoAddress
	}
	return false, err
}

// admit reports whether a machine that is new here may have an address.
func (p *Pool) admit(c *client, commit bool) bool {
	n := p.MaxNewPerLink
	if n == 0 {
		n = defaultNewPerLink
	}
	if n < 0 || !commit && p.shared == nil || c.dry() {
		return true
	}
	counted := &p.newcomers
	if !commit {
		counted = &p.advertised // which is work for the store too
	}
	source := c.source()
	if counted.Allow(source, n, time.Minute) {
		return true
	}
	if ok, missed := p.flooded.Due(time.Minute); ok {
		p.logger().Warn("dhcp6: more new machines than one link may have in a minute, some get no address: find who makes up identities, or raise MaxNewPerLink",
			"source", source, "client", c.who(), "unlogged", missed)
	}
	return false
}

// source names where the request came from, for limits. What a relay says of
// itself can be made up, and so can its address within its /64.
func (r *Request) source() string {
	name := ""
	if r.Interface != nil {
		name = r.Interface.Name
	}
	if len(r.Relays) == 0 {
		return name
	}
	peer, _ := r.Peer.Addr().Prefix(64) // zero where the socket cannot tell
	return name + " relays of " + peer.String()
}

// givable reports whether the address may be given to a machine that it is not
// reserved for. The prefix's first address is all its routers' (RFC 4291
// section 2.6.1).
func (p *Pool) givable(addr netip.Addr) bool {
	if _, ok := p.reserved[addr]; ok || addr == p.Prefix.Addr() {
		return false
	}
	in := func(r dhcp.Range) bool { return contains(r, addr) }
	return slices.ContainsFunc(p.Ranges, in) && !slices.ContainsFunc(p.Exclude, in)
}

// nth returns the n-th address of the ranges, counted through all of them.
func (p *Pool) nth(n uint64) netip.Addr {
	for _, r := range p.Ranges {
		size := rangeSize(r)
		if n < size {
			b := r.First.As16()
			lo, carry := bits.Add64(binary.BigEndian.Uint64(b[8:]), n, 0)
			binary.BigEndian.PutUint64(b[8:], lo)
			binary.BigEndian.PutUint64(b[:], binary.BigEndian.Uint64(b[:])+carry)
			return netip.AddrFrom16(b)
		}
		n -= size
	}
	return netip.Addr{}
}

// rangeSize is at most 2^64-1.
func rangeSize(r dhcp.Range) uint64 {
	a, b := r.First.As16(), r.Last.As16()
	lo, borrow := bits.Sub64(binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(a[8:]), 0)
	if binary.BigEndian.Uint64(b[:])-binary.BigEndian.Uint64(a[:])-borrow > 0 {
		return math.MaxUint64
	}
	return addSaturating(lo, 1)
}

func addSaturating(a, b uint64) uint64 {
	if sum, carry := bits.Add64(a, b, 0); carry == 0 {
		return sum
	}
	return math.MaxUint64
}

func contains(r dhcp.Range, a netip.Addr) bool {
	return r.First.Compare(a) <= 0 && a.Compare(r.Last) <= 0
}

// holds reports whether what lasts until then does; the zero time is for ever.
func holds(until, now time.Time) bool { return until.IsZero() || now.Before(until) }

func (p *Pool) lifetime() time.Duration {
	switch p.LeaseTime {
	case 0:
		return defaultLeaseTime
	case -1:
		return infinity
	}
	return p.LeaseTime.Truncate(time.Second)
}

func (p *Pool) expires(now time.Time) time.Time {
	if p.LeaseTime == -1 {
		return time.Time{}
	}
	return now.Add(p.lifetime())
}
