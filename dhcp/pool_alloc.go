package dhcp

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// maxInUse is how many addresses are tried for one DISCOVER when strangers
// are found to use them.
const maxInUse = 3

// chooseHere is choose, as far as this server knows.
func (p *Pool) chooseHere(ctx context.Context, c client) (netip.Addr, error) {
	for range maxInUse {
		addr, fresh, err := p.allocate(ctx, c)
		if err != nil || !addr.IsValid() || !fresh || p.InUse == nil || c.dry() {
			return addr, err
		}
		used, err := p.InUse(ctx, c.Request, addr)
		if err != nil && ctx.Err() == nil {
			if ok, missed := p.probing.Due(time.Minute); ok {
				p.logger().Warn("dhcp: cannot find out whether an address is in use, it is offered all the same", "addr", addr, "err", err, "unlogged", missed)
			}
		}
		if !used || err != nil {
			return addr, nil
		}
		if ok, missed := p.declined.Due(time.Second); ok {
			p.logger().Warn("dhcp: an address of the range is in use by a machine that did not get it here: find that one (arping), or exclude the address",
				"addr", addr, "unlogged", missed)
		}
		p.offers.drop(c.owner)
		if err := p.store.Decline(ctx, addr, c.owner, time.Now().Add(p.declineTime())); err != nil && !errors.Is(err, fs.ErrExist) {
			return netip.Addr{}, err
		}
	}
	return netip.Addr{}, nil
}

// allocate is choose without the question whether a stranger uses the address;
// fresh is false for one that the client has, or was offered just now.
func (p *Pool) allocate(ctx context.Context, c client) (addr netip.Addr, fresh bool, err error) {
	if c.res.Addr.IsValid() {
		usable, err := p.available(ctx, c.res.Addr, c.owner)
		if err != nil {
			return netip.Addr{}, false, err
		}
		if usable {
			c.notef("%v is reserved for %v", c.res.Addr, c.res.String())
			return c.res.Addr, false, nil // nobody else is offered it: no hold needed
		}
		c.notef("%v is reserved for %v, but in use by another machine or in quarantine", c.res.Addr, c.res.String())
		if !c.dry() && p.taken.First(c.machine()) {
			p.logger().Warn("dhcp: the reserved address is still leased to another machine or in quarantine, the pool gives one meanwhile",
				"mac", c.machine(), "addr", c.res.Addr)
		}
	}
	now := time.Now() // before the leases: see keeps
	leases, err := p.store.LeasesByOwner(ctx, c.owner)
	if err != nil {
		return netip.Addr{}, false, err
	}
	// Those that it has in their order, if there is one; then the latest first;
	// no expiry is later than any.
	slices.SortStableFunc(leases, func(a, b Lease) int {
		if p.shared != nil && a.Active(now) && b.Active(now) {
			return 0
		}
		if a.Expires.IsZero() != b.Expires.IsZero() {
			if a.Expires.IsZero() {
				return -1
			}
			return 1
		}
		return b.Expires.Compare(a.Expires)
	})
	for _, l := range leases {
		// It goes before one that was merely offered the address.
		if p.givable(l.Addr) && p.take(c, l.Addr) {
			c.notef("the machine has or had %v", l.Addr)
			return l.Addr, !l.Active(now), nil
		}
	}
	if a := p.offers.addr(c.owner); a.IsValid() && p.givable(a) {
		if c.trail != nil { // on the way of every request
			c.notef("%v was offered to it a moment ago", a)
		}
		return p.hold(c, a), false, nil
	}
	if len(leases) == 0 && !c.res.Addr.IsValid() && !p.admit(c) {
		return netip.Addr{}, false, nil
	}
	if p.givable(c.requested) {
		usable, err := p.available(ctx, c.requested, c.owner)
		if err != nil {
			return netip.Addr{}, false, err
		}
		if usable {
			if a := p.hold(c, c.requested); a.IsValid() {
				c.notef("the machine asks for %v, which is free", a)
				return a, true, nil
			}
		}
	}
	addr, err = p.findFree(ctx, c)
	return addr, true, err
}

// hold is offers.hold, without an effect where nothing shall happen.
func (p *Pool) hold(c client, a netip.Addr) netip.Addr {
	if !c.dry() {
		return p.offers.hold(a, c.owner, p.offerTime())
	}
	if p.offers.heldUntil(a, c.owner, time.Now()).IsZero() {
		return a
	}
	return netip.Addr{}
}

// take holds an address also when it is held for somebody else.
func (p *Pool) take(c client, a netip.Addr) bool {
	if !c.dry() {
		p.offers.take(a, c.owner, p.offerTime())
	}
	return true
}

// givable reports whether the pool may choose the address for a machine that
// it is not reserved for.
func (p *Pool) givable(a netip.Addr) bool {
	_, reserved := p.reserved[a]
	return !reserved && p.inRanges(a) && !p.excluded(a)
}

// available reports whether nobody but the owner has a lease of the address.
func (p *Pool) available(ctx context.Context, a netip.Addr, owner string) (bool, error) {
	if p.shared != nil {
		until, known := p.shared.AddrState(a, owner)
		return !known || !until.IsZero() && !time.Now().Before(until), nil
	}
	l, err := p.store.LeaseByAddr(ctx, a)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return err == nil && (l.heldBy(owner) || !l.holds(time.Now())), err
}

// state is until when an address is or was in use.
func (p *Pool) state(ctx context.Context, a netip.Addr, owner string) (expires time.Time, known bool, err error) {
	if p.shared != nil {
		expires, known = p.shared.AddrState(a, owner)
		return expires, known, nil
	}
	if s, ok := p.store.(addrStates); ok {
		expires, known = s.state(a)
		return expires, known, nil
	}
	l, err := p.store.LeaseByAddr(ctx, a)
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, false, nil
	}
	return l.Expires, err == nil, err
}

const (
	// enough is how many addresses are looked at for one that was never used,
	// before an expired one will do.
	enough = 1024
	// maxProbes is at how many places of its own a machine's address is looked for.
	maxProbes = 64
	// patience is how long a machine that was offered an address has it for
	// sure: EDK2 and iPXE collect offers for up to three seconds.
	patience = 3 * time.Second
)

// place is where the search for an address begins (FNV-1a of the owner), and
// from the second on where it leaps: anywhere, for what others have may be one
// large block.
func (p *Pool) place(hash, i uint64) uint64 {
	if i > 0 {
		hash += i * 0x9e3779b97f4a7c15
		hash = (hash ^ hash>>30) * 0xbf58476d1ce4e5b9
		hash = (hash ^ hash>>27) * 0x94d049bb133111eb
		hash ^= hash >> 31
	}
	return hash % p.size
}

func ownerHash(owner string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(owner) {
		h = (h ^ uint64(owner[i])) * 1099511628211
	}
	return h
}

// findFree searches the ranges, first at places that depend on the owner, since
// in a pool with room one of them is free soon, wherever the others are; then
// address by address from where the last such search ended, so that what is
// taken is not looked at again for each new machine.
func (p *Pool) findFree(ctx context.Context, c client) (netip.Addr, error) {
	now := time.Now()
	if p.size == 0 || p.search.hopeless(now) {
		p.warnExhausted(c)
		return netip.Addr{}, nil
	}
	hash := ownerHash(c.owner)
	cursor := p.search.cursor.Load()
	probes := min(maxProbes, p.size/16+1)
	mark := p.search.mark()
	hold := p.offerTime()

	var oldest, idle netip.Addr // expired longest ago; offered longest ago
	var oldestAt, idleAt time.Time
	next := now.Add(recheck)
	for i := range probes + p.size {
		var n uint64
		if i < probes {
			n = p.place(hash, i)
		} else {
			n = (cursor + i - probes) % p.size
			if i%1024 == 0 && !c.dry() {
				p.search.cursor.Store(n) // for those that search at the same time
			}
		}
		a := p.nth(n)
		if !p.givable(a) {
			continue
		}
		if until := p.offers.heldUntil(a, c.owner, now); !until.IsZero() {
			if idleAt.IsZero() || until.Before(idleAt) {
				idle, idleAt = a, until
			}
			continue
		}
		expires, known, err := p.state(ctx, a, c.owner)
		switch {
		case err != nil:
			return netip.Addr{}, err
		case !known:
			if got := p.hold(c, a); got.IsValid() {
				if i >= probes && !c.dry() {
					p.search.cursor.Store(n + 1)
				}
				if c.trail != nil {
					c.notef("%v was never used", got)
				}
				return got, nil
			}
		case expires.IsZero() || now.Before(expires):
			if !expires.IsZero() {
				next = earlier(next, expires)
			}
		case !oldest.IsValid() || expires.Before(oldestAt):
			oldest, oldestAt = a, expires
		}
		if i >= enough && oldest.IsValid() {
			break
		}
	}
	if oldest.IsValid() {
		if got := p.hold(c, oldest); got.IsValid() {
			c.notef("the lease of %v expired longest ago", got)
			return got, nil
		}
	}
	if idle.IsValid() && p.shared == nil { // others hold what they offered
		since := now.Sub(idleAt.Add(-hold))
		if since >= min(patience, hold) && p.take(c, idle) {
			c.notef("%v was offered to a machine that did not take it", idle)
			return idle, nil
		}
		next = earlier(next, idleAt.Add(-hold).Add(patience))
	}
	if !c.dry() {
		p.search.failed(mark, next)
	}
	p.warnExhausted(c)
	return netip.Addr{}, nil
}

func (p *Pool) warnExhausted(c client) {
	c.notef("no address is left in %v", p.Prefix)
	if c.dry() {
		return
	}
	if ok, missed := p.exhausted.Due(time.Minute); ok {
		p.logger().Warn("dhcp: no address left for a client: widen Ranges or shorten LeaseTime",
			"subnet", p.Prefix, "mac", c.machine(), "addresses", p.size, "unlogged", missed)
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// mayHave decides about a REQUEST for addr. It is [ErrDrop] to one of too many
// new machines.
func (p *Pool) mayHave(ctx context.Context, c client, addr netip.Addr, renewing bool) (bool, error) {
	if !p.Prefix.Contains(addr) || p.excluded(addr) {
		return false, nil
	}
	_, reserved := p.reserved[addr]
	if reserved && c.res.Addr == addr {
		return p.available(ctx, addr, c.owner)
	}
	l, err := p.store.LeaseByAddr(ctx, addr)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	own := err == nil && l.heldBy(c.owner)
	now := time.Now()
	if reserved {
		// For another machine, which waits until this one does not run any more.
		return own && l.Active(now) && renewing, nil
	}
	if err == nil && !own && l.holds(now) {
		return false, nil
	}
	if own && l.Active(now) && (renewing || c.serverSet) {
		// Its root may hang on the address: a running machine keeps it,
		// also when the ranges or its reservation have changed since. And a
		// REQUEST that is repeated gets the ACK once more.
		return true, nil
	}
	if c.res.Addr.IsValid() && p.offers.addr(c.owner) != addr {
		// It shall come back for the address reserved for it. It was offered
		// another one only if that was not free.
		return false, nil
	}
	// An offer of this server's does not count against a lease: the machine
	// has it from another one, which did not know of the offer.
	if !p.inRanges(addr) || !(own && l.Active(now)) && !p.offers.heldUntil(addr, c.owner, now).IsZero() {
		return false, nil
	}
	if !own && p.offers.addr(c.owner) != addr {
		// It starts again with an address of which nothing is known here, or is
		// made up.
		leases, err := p.store.LeasesByOwner(ctx, c.owner)
		if err == nil && len(leases) == 0 && !p.admit(c) {
			err = ErrDrop
		}
		return err == nil, err
	}
	return true, nil
}

// recheck is how long at most a pool is taken for exhausted without looking:
// another server may have freed an address in the same store.
const recheck = 5 * time.Second

// searchState remembers that a search found nothing, so that a flood of
// clients does not make an exhausted pool search itself again and again.
type searchState struct {
	mu    sync.Mutex
	until time.Time
	gen   uint64

	cursor atomic.Uint64
}

func (s *searchState) hopeless(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return now.Before(s.until)
}

// mark is taken before a search; its failure counts only if nothing was freed
// meanwhile.
func (s *searchState) mark() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gen
}

func (s *searchState) failed(mark uint64, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gen == mark {
		s.until = until
	}
}

func (s *searchState) freed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gen++
	s.until = time.Time{}
}
