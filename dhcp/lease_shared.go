package dhcp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"time"
)

// SharedStore is a [LeaseStore] that several servers use at the same time for
// the same subnets, all of them answering. A [Pool] that has one also keeps
// its offers there, so that two servers do not offer one address to two
// machines, and refuses nobody before it has seen what the others did.
//
// Such a store answers what is asked of it often (LeaseByAddr, LeasesByOwner,
// AddrState) from a copy, which other servers' changes reach a little later.
// While it cannot tell how old the copy is, these, and Hold, return an error,
// and the pool keeps silent: the other servers answer.
type SharedStore interface {
	LeaseStore

	// Hold keeps addr for the owner, for d at least, against the Hold and
	// Commit of others. It is refused with [fs.ErrExist] while somebody else
	// has a lease of the address or holds it, or it is in quarantine; but the
	// owner of its last lease, though expired, goes before who merely holds
	// it. Commit ends the hold.
	Hold(ctx context.Context, addr netip.Addr, owner string, d time.Duration) error

	// AddrState tells until when addr is leased to, held for or in
	// quarantine from anybody but the owner; the zero time is for ever, one
	// that is past means that it was. known is false for an address of which
	// nothing of that kind is known. It is asked for many addresses at once.
	AddrState(addr netip.Addr, owner string) (until time.Time, known bool)

	// Sync returns when all that any server changed before the call is seen by
	// the methods that read.
	Sync(ctx context.Context) error
}

// maxHolds is how often another server may be quicker with an address before
// a client is left to send its DISCOVER again.
const maxHolds = 8

// choose finds the address to offer and holds it for the client, among all
// servers that share the store. The zero Addr means that there is none.
func (p *Pool) choose(ctx context.Context, c client) (netip.Addr, error) {
	if p.shared == nil || c.dry() {
		return p.chooseHere(ctx, c)
	}
	leases, err := p.store.LeasesByOwner(ctx, c.owner)
	if err != nil {
		return netip.Addr{}, err
	}
	now := time.Now()
	behind := !slices.ContainsFunc(leases, func(l Lease) bool { return l.Active(now) })
	for range maxHolds {
		if behind {
			// It may have one since a moment, from another server: it keeps that.
			if err := p.shared.Sync(ctx); err != nil {
				return netip.Addr{}, err
			}
		}
		addr, err := p.chooseHere(ctx, c)
		if err != nil || !addr.IsValid() {
			return addr, err
		}
		err = p.shared.Hold(ctx, addr, c.owner, p.offerTime())
		if err == nil {
			return addr, nil
		}
		p.offers.drop(c.owner)
		if !errors.Is(err, fs.ErrExist) {
			return netip.Addr{}, err
		}
		c.notef("another server was quicker with %v", addr)
		behind = true
	}
	return netip.Addr{}, nil
}

// elsewhere reports whether a machine that takes the offer of addr has got
// another address since, from another server: the REQUEST waited for this one,
// that was stopped or overloaded, and the machine did not.
func (p *Pool) elsewhere(ctx context.Context, c client, addr netip.Addr) (bool, error) {
	if p.shared == nil || !c.serverSet || addr == c.res.Addr || c.dry() {
		return false, nil
	}
	has := func() (this, other bool, err error) {
		leases, err := p.store.LeasesByOwner(ctx, c.owner)
		now := time.Now()
		for _, l := range leases {
			this = this || l.Addr == addr && l.Active(now)
			other = other || l.Addr != addr && l.Active(now) && p.givable(l.Addr)
		}
		return this, other, err
	}
	if this, _, err := has(); err != nil || this {
		return false, err
	}
	if err := p.shared.Sync(ctx); err != nil {
		return false, err
	}
	this, other, err := has()
	return other && !this, err
}

// catchUp makes sure, where others change the store too, that a decision
// against a client does not come from what was seen of it a while ago. It
// reports whether the decision is worth being made again.
func (p *Pool) catchUp(ctx context.Context, c client) (bool, error) {
	if p.shared == nil || c.dry() {
		return false, nil
	}
	return true, p.shared.Sync(ctx)
}

// lookup is LeaseByAddr of the active lease.
func (p *Pool) lookup(ctx context.Context, addr netip.Addr) (Lease, error) {
	l, err := p.store.LeaseByAddr(ctx, addr)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Lease{}, err
	}
	if err != nil || !l.Active(time.Now()) {
		return Lease{}, fmt.Errorf("dhcp: no lease of %v: %w", addr, fs.ErrNotExist)
	}
	return l, nil
}
