package dhcp6

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"time"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

// holdTime is how long an advertised address is held for the client among
// servers that share their store. It asks for it within some seconds.
const holdTime = 15 * time.Second

// leasesOf returns what the client has or had.
func (p *Pool) leasesOf(ctx context.Context, c *client) ([]dhcp.Lease, error) {
	leases, err := p.store.LeasesByOwner(ctx, c.owner)
	if err != nil || len(leases) > 0 || p.shared == nil || c.dry() {
		return leases, err
	}
	// It may have one since a moment, from another server: it keeps that.
	if err := p.shared.Sync(ctx); err != nil {
		return nil, err
	}
	return p.store.LeasesByOwner(ctx, c.owner)
}

// errLate is that the client has another address, from another server.
var errLate = errors.New("dhcp6: the client has another address, from another server")

// keeps is errLate if the client has another address than the one that a lease
// was made of just now, and had it earlier: that counts, whichever server made
// it, and this one goes back. One that renews runs on the address, and keeps it.
func (p *Pool) keeps(ctx context.Context, c *client, addr netip.Addr) error {
	if p.shared == nil || addr == c.res.Addr || addr == c.runs {
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
		case p.givable(l.Addr):
			c.Note("%v: it has %v from another server", addr, l.Addr)
			if err := p.store.Release(ctx, addr, c.owner); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return errLate
		}
	}
	return nil
}

// state tells until when an address is, or was, leased to, held for or in
// quarantine from anybody but the client. The zero time is for ever.
func (p *Pool) state(ctx context.Context, c *client, addr netip.Addr) (until time.Time, known bool, err error) {
	if p.shared != nil {
		until, known = p.shared.AddrState(addr, c.owner)
		return until, known, nil
	}
	l, err := p.store.LeaseByAddr(ctx, addr)
	if errors.Is(err, fs.ErrNotExist) || err == nil && l.Owner() == c.owner {
		return time.Time{}, false, nil
	}
	return l.Expires, err == nil, err
}

// advertise tells whether the address could be leased to the client, and holds
// it where several servers ask that.
func (p *Pool) advertise(ctx context.Context, c *client, addr netip.Addr) (bool, error) {
	until, known, err := p.state(ctx, c, addr)
	if err != nil || known && holds(until, time.Now()) {
		return false, err
	}
	if p.shared == nil || c.dry() {
		return true, nil
	}
	err = p.shared.Hold(ctx, addr, c.owner, holdTime)
	if errors.Is(err, fs.ErrExist) {
		c.Note("another server was quicker with %v", addr)
		return false, nil
	}
	return err == nil, err
}

// lookup returns the active lease of an address, or an error that is
// [fs.ErrNotExist].
func (p *Pool) lookup(ctx context.Context, addr netip.Addr) (dhcp.Lease, error) {
	for synced := p.shared == nil; ; synced = true {
		l, err := p.store.LeaseByAddr(ctx, addr)
		switch {
		case err == nil && l.Active(time.Now()):
			return l, nil
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return dhcp.Lease{}, err
		case synced:
			return dhcp.Lease{}, fmt.Errorf("dhcp6: no lease of %v: %w", addr, fs.ErrNotExist)
		}
		// Another server may have given it a moment ago.
		if err := p.shared.Sync(ctx); err != nil {
			return dhcp.Lease{}, err
		}
	}
}
