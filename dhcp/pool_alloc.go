package dhcp

import (
	"context"
	"errors"
	"hash/fnv"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// allocate chooses the address to offer and holds it for the client. The zero
// Addr means that there is none.
func (p *Pool) allocate(ctx context.Context, c client) (netip.Addr, error) {
	if c.res.Addr.IsValid() {
		usable, err := p.available(ctx, c.res.Addr, c.hw)
		if err != nil {
			return netip.Addr{}, err
		}
		if usable {
			return c.res.Addr, nil // nobody else is offered it: no hold needed
		}
		if p.taken.first(c.hw.String()) {
			p.logger().Warn("dhcp: the reserved address is still leased to another machine or in quarantine, the pool gives one meanwhile",
				"mac", c.hw.String(), "addr", c.res.Addr)
		}
	}
	leases, err := p.store.LeasesByHardwareAddr(ctx, c.hw)
	if err != nil {
		return netip.Addr{}, err
	}
	// The latest first; no expiry is later than any.
	slices.SortFunc(leases, func(a, b Lease) int {
		if a.Expires.IsZero() != b.Expires.IsZero() {
			if a.Expires.IsZero() {
				return -1
			}
			return 1
		}
		return b.Expires.Compare(a.Expires)
	})
	for _, l := range leases {
		if p.givable(l.Addr) && p.offers.hold(l.Addr, c.hw, p.offerTime()) == l.Addr {
			return l.Addr, nil
		}
	}
	if a := p.offers.addr(c.hw); a.IsValid() {
		return p.offers.hold(a, c.hw, p.offerTime()), nil
	}
	if p.givable(c.requested) {
		usable, err := p.available(ctx, c.requested, c.hw)
		if err != nil {
			return netip.Addr{}, err
		}
		if usable {
			if a := p.offers.hold(c.requested, c.hw, p.offerTime()); a.IsValid() {
				return a, nil
			}
		}
	}
	return p.findFree(ctx, c.hw)
}

// givable reports whether the pool may choose the address for a machine that
// it is not reserved for.
func (p *Pool) givable(a netip.Addr) bool {
	return a.IsValid() && p.inRanges(a) && !p.excluded(a) && p.reserved[a] == nil
}

// available reports whether nobody but hw has a lease of the address.
func (p *Pool) available(ctx context.Context, a netip.Addr, hw net.HardwareAddr) (bool, error) {
	l, err := p.store.LeaseByAddr(ctx, a)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return err == nil && (l.heldBy(hw) || !l.holds(time.Now())), err
}

// enough is how many addresses are looked at for one that was never used,
// before an expired one will do.
const enough = 1024

// findFree searches the ranges, from a place that depends on hw.
func (p *Pool) findFree(ctx context.Context, hw net.HardwareAddr) (netip.Addr, error) {
	now := time.Now()
	if p.size == 0 || p.search.hopeless(now) {
		p.warnExhausted(hw)
		return netip.Addr{}, nil
	}
	h := fnv.New64a()
	h.Write(hw)
	start := h.Sum64() % p.size
	mark := p.search.mark()

	var oldest Lease // expired, and longest ago
	next := now.Add(recheck)
	for i := range p.size {
		a := p.nth((start + i) % p.size)
		if !p.givable(a) {
			continue
		}
		if until := p.offers.heldUntil(a, hw, now); !until.IsZero() {
			next = earlier(next, until)
			continue
		}
		l, err := p.store.LeaseByAddr(ctx, a)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if got := p.offers.hold(a, hw, p.offerTime()); got.IsValid() {
				return got, nil
			}
		case err != nil:
			return netip.Addr{}, err
		case l.holds(now):
			if !l.Expires.IsZero() {
				next = earlier(next, l.Expires)
			}
		case !oldest.Addr.IsValid() || l.Expires.Before(oldest.Expires):
			oldest = l
		}
		if i >= enough && oldest.Addr.IsValid() {
			break
		}
	}
	if oldest.Addr.IsValid() {
		if got := p.offers.hold(oldest.Addr, hw, p.offerTime()); got.IsValid() {
			return got, nil
		}
	}
	p.search.failed(mark, next)
	p.warnExhausted(hw)
	return netip.Addr{}, nil
}

func (p *Pool) warnExhausted(hw net.HardwareAddr) {
	if ok, missed := p.exhausted.allow(time.Minute); ok {
		p.logger().Warn("dhcp: no address left for a client: widen Ranges or shorten LeaseTime",
			"subnet", p.Prefix, "mac", hw.String(), "addresses", p.size, "unlogged", missed)
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// mayHave decides about a REQUEST for addr.
func (p *Pool) mayHave(ctx context.Context, c client, addr netip.Addr, renewing bool) (bool, error) {
	if !p.Prefix.Contains(addr) || p.excluded(addr) {
		return false, nil
	}
	if owner := p.reserved[addr]; owner != nil {
		if string(owner) != string(c.hw) {
			return false, nil
		}
		return p.available(ctx, addr, c.hw)
	}
	l, err := p.store.LeaseByAddr(ctx, addr)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	own := err == nil && l.heldBy(c.hw)
	now := time.Now()
	if err == nil && !own && l.holds(now) {
		return false, nil
	}
	if own && l.Active(now) && (renewing || c.serverSet) {
		// Its root may hang on the address: a running machine keeps it,
		// also when the ranges or its reservation have changed since. And a
		// REQUEST that is repeated gets the ACK once more.
		return true, nil
	}
	if c.res.Addr.IsValid() && p.offers.addr(c.hw) != addr {
		// It shall come back for the address reserved for it. It was offered
		// another one only if that was not free.
		return false, nil
	}
	return p.inRanges(addr) && p.offers.heldUntil(addr, c.hw, now).IsZero(), nil
}

// offers are the addresses held for clients that have not requested them yet:
// one per client, in memory only. The zero value is ready to use. It cannot
// outgrow the pool's ranges.
type offers struct {
	mu     sync.Mutex
	byAddr map[netip.Addr]offer
	byHW   map[string]netip.Addr
}

type offer struct {
	hw      string
	expires time.Time
}

// hold keeps a for hw and returns it, or returns what is held for hw already,
// or the zero Addr when another client has a.
func (o *offers) hold(a netip.Addr, hw net.HardwareAddr, d time.Duration) netip.Addr {
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	if held, ok := o.byHW[string(hw)]; ok && held != a {
		if now.Before(o.byAddr[held].expires) {
			o.byAddr[held] = offer{hw: string(hw), expires: now.Add(d)}
			return held
		}
		delete(o.byAddr, held)
		delete(o.byHW, string(hw))
	}
	if old, ok := o.byAddr[a]; ok && old.hw != string(hw) {
		if now.Before(old.expires) {
			return netip.Addr{}
		}
		delete(o.byHW, old.hw)
	}
	if o.byAddr == nil {
		o.byAddr = make(map[netip.Addr]offer)
		o.byHW = make(map[string]netip.Addr)
	}
	o.byAddr[a] = offer{hw: string(hw), expires: now.Add(d)}
	o.byHW[string(hw)] = a
	return a
}

// addr returns what is held for hw, or the zero Addr.
func (o *offers) addr(hw net.HardwareAddr) netip.Addr {
	o.mu.Lock()
	defer o.mu.Unlock()
	a, ok := o.byHW[string(hw)]
	if !ok || !time.Now().Before(o.byAddr[a].expires) {
		return netip.Addr{}
	}
	return a
}

// heldUntil returns until when a is held for a client other than hw, or the
// zero time.
func (o *offers) heldUntil(a netip.Addr, hw net.HardwareAddr, now time.Time) time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	of, ok := o.byAddr[a]
	if !ok || of.hw == string(hw) || !now.Before(of.expires) {
		return time.Time{}
	}
	return of.expires
}

// drop forgets what is held for hw, and reports whether anything was.
func (o *offers) drop(hw net.HardwareAddr) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	a, ok := o.byHW[string(hw)]
	if ok {
		delete(o.byAddr, a)
		delete(o.byHW, string(hw))
	}
	return ok
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
