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
//
// One machine may be given two addresses by two servers at once. The earlier
// one counts, to all of them: LeasesByOwner returns the active leases in the
// order in which they were made, a renewed one in its old place. When Commit
// returns, the methods that read see all that any server did before the lease
// was made, by this Commit or by the one that it renews.
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
		if err := p.keeps(ctx, c, addr); err != nil {
			p.offers.drop(c.owner)
			if errors.Is(err, errLate) {
				err = nil // the other pool offers that
			}
			return netip.Addr{}, err
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

// errLate is that the machine has another address, from another server.
var errLate = errors.New("dhcp: the machine has another address, from another server")

// keeps is errLate if the machine has another address than this one, and had
// it earlier: the first of its leases counts, whichever server made it. So a
// REQUEST that waited in a server that had stopped, or that etcd's answers did
// not reach, moves no machine that went on with another server. One that renews
// runs on the address, and has no other, whatever leases were made for it.
func (p *Pool) keeps(ctx context.Context, c client, addr netip.Addr) error {
	if p.shared == nil || addr == c.res.Addr || c.renews() {
		return nil
	}
	now := time.Now() // before the leases, so that one that counts is active
	leases, err := p.store.LeasesByOwner(ctx, c.owner)
	if err != nil {
		return err
	}
	for _, l := range leases {
		switch {
		case !l.Active(now):
		case l.Addr == addr:
			return nil
		case p.gives(c, l.Addr) || p.neighbours(c, l.Addr):
			c.notef("the machine has %v since before it could have %v", l.Addr, addr)
			return errLate
		}
	}
	return nil
}

// gives reports whether the pool gives the machine that address, if it is free.
func (p *Pool) gives(c client, addr netip.Addr) bool {
	return p.givable(addr) || addr == c.res.Addr
}

// neighbours reports whether another pool of the shared network gives the
// machine that address.
func (p *Pool) neighbours(c client, addr netip.Addr) bool {
	return slices.ContainsFunc(p.link, func(o *Pool) bool {
		there, ok := o.client(c.Request)
		return ok && o != p && o.gives(there, addr)
	})
}

// keepsSurely is keeps, which does not say errLate because of what this server
// saw a while ago.
func (p *Pool) keepsSurely(ctx context.Context, c client, addr netip.Addr) error {
	err := p.keeps(ctx, c, addr)
	if !errors.Is(err, errLate) || c.dry() {
		return err
	}
	if err := p.shared.Sync(ctx); err != nil {
		return err
	}
	return p.keeps(ctx, c, addr)
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
