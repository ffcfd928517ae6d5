package etcdstore

import (
	"cmp"
	"hash/maphash"
	"net/netip"
	"slices"
	"time"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

// cache is what this server has seen of etcd. Revisions order it: what the
// watch brings and what this server's own transactions tell arrive in any
// order, and the later one of a key stands.
//
// Leases are in slots, those of one owner, and of owners with the same hash,
// in a chain, so that none has a slice or a map of its own.
type cache struct {
	seed  maphash.Seed
	slots []slot
	free  []int32
	addrs map[netip.Addr]int32
	heads map[uint32]int32 // first slot of the chain of an owner's hash

	offers map[netip.Addr]offer
	terms  map[termID]int64 // that exist, by the revision they were made at

	// applied is the revision up to which the watch has brought everything,
	// and ahead what is known of later ones.
	applied int64
	ahead   map[netip.Addr]seen
	pruneAt int // length of ahead
}

// slot is a lease; the one at 0 is none, and ends chains.
type slot struct {
	mod  int64 // revision of its key
	rec  packed
	next int32
}

// offer is the other key of an address. A mod of 0 is a key that does not
// exist, as in etcd's compares.
type offer struct {
	mod    int64
	heldBy string
	heldAt time.Time // when this server saw it
}

// seen are the revisions at which the keys of an address were as they are here.
type seen struct{ lease, offer int64 }

// entry is what there is of an address.
type entry struct {
	leaseMod int64
	offer    offer

	// Of the lease:
	rec      packed
	owner    string
	grants   []grant
	expires  time.Time
	declined bool
	forever  bool
	bad      bool // not understood: out of use
	own      bool // acknowledged by this server alone
	since    int64
}

func newCache() cache {
	return cache{
		seed: maphash.MakeSeed(), slots: make([]slot, 1), addrs: make(map[netip.Addr]int32), heads: make(map[uint32]int32),
		offers: make(map[netip.Addr]offer), terms: make(map[termID]int64), ahead: make(map[netip.Addr]seen),
	}
}

// at returns what there is of an address. grants, if not nil, are for the
// grants of its lease.
func (c *cache) at(addr netip.Addr, grants *[maxTerms]grant) entry {
	e := entry{offer: c.offers[addr]}
	i, ok := c.addrs[addr]
	if !ok {
		return e
	}
	e.leaseMod, e.rec = c.slots[i].mod, c.slots[i].rec
	if e.bad = e.rec == ""; e.bad {
		return e
	}
	e.owner, e.expires = e.rec.owner(), e.rec.expires()
	e.declined, e.forever, e.own = e.rec.is(packedDeclined), e.rec.is(packedForever), e.rec.is(packedOwn)
	if e.since = e.rec.since(); e.since == 0 {
		e.since = e.leaseMod
	}
	if grants == nil {
		grants = new([maxTerms]grant)
	}
	e.grants = grants[:e.rec[1]]
	for i := range e.grants {
		e.grants[i] = e.rec.grant(i)
	}
	return e
}

// late reports whether later revisions of a key than this one are known
// already, and notes it if not.
func (c *cache) late(addr netip.Addr, which func(*seen) *int64, rev int64) bool {
	at, known := c.ahead[addr]
	if known && rev < *which(&at) {
		return true
	}
	if rev > c.applied {
		*which(&at) = rev
		c.ahead[addr] = at
	}
	return false
}

func seenLease(s *seen) *int64 { return &s.lease }
func seenOffer(s *seen) *int64 { return &s.offer }

// brought notes that the watch has brought all up to the revision.
func (c *cache) brought(rev int64) {
	c.applied = rev
	if len(c.ahead) < c.pruneAt {
		return
	}
	for addr, at := range c.ahead {
		if max(at.lease, at.offer) <= rev {
			delete(c.ahead, addr)
		}
	}
	c.pruneAt = 2*len(c.ahead) + 64 // so that this costs little for each
}

// setLease takes the lease's value as it was at the revision seen; mod is 0
// without one. It returns an error for a value that it does not understand.
func (c *cache) setLease(addr netip.Addr, value []byte, mod, seen int64, server string) error {
	if c.late(addr, seenLease, seen) || mod == c.leaseMod(addr) {
		return nil
	}
	if mod == 0 {
		c.drop(addr)
		return nil
	}
	r, l, err := parseRecord(value)
	if err != nil {
		c.put(addr, mod, "")
		return err
	}
	c.put(addr, mod, pack(addr, r, l, server))
	return nil
}

func (c *cache) leaseMod(addr netip.Addr) int64 { return c.slots[c.addrs[addr]].mod }

// put replaces the lease of an address.
func (c *cache) put(addr netip.Addr, mod int64, rec packed) {
	i, known := c.addrs[addr]
	switch n := len(c.free); {
	case known:
		if old := c.slots[i].rec; old != "" && rec != "" && old.owner() == rec.owner() {
			c.slots[i].mod, c.slots[i].rec = mod, rec // the chain stays as it is
			return
		}
		c.unlink(i)
	case n > 0:
		i, c.free = c.free[n-1], c.free[:n-1]
	default:
		i = int32(len(c.slots))
		c.slots = append(c.slots, slot{})
	}
	c.addrs[addr] = i
	c.slots[i] = slot{mod: mod, rec: rec}
	if rec != "" {
		if owner := rec.owner(); owner != "" {
			h := c.hash(owner)
			c.slots[i].next, c.heads[h] = c.heads[h], i
		}
	}
}

// drop forgets the lease of an address.
func (c *cache) drop(addr netip.Addr) {
	if i, ok := c.addrs[addr]; ok {
		c.unlink(i)
		delete(c.addrs, addr)
		c.slots[i] = slot{}
		c.free = append(c.free, i)
	}
}

// unlink takes a slot out of its owner's chain.
func (c *cache) unlink(i int32) {
	if c.slots[i].rec == "" {
		return
	}
	owner := c.slots[i].rec.owner()
	if owner == "" {
		return
	}
	h, next := c.hash(owner), c.slots[i].next
	switch head := c.heads[h]; {
	case head != i:
		for c.slots[head].next != i {
			head = c.slots[head].next
		}
		c.slots[head].next = next
	case next != 0:
		c.heads[h] = next
	default:
		delete(c.heads, h)
	}
}

func (c *cache) hash(owner string) uint32 { return uint32(maphash.String(c.seed, owner)) }

// setOffer is setLease for the offer.
func (c *cache) setOffer(addr netip.Addr, value []byte, mod, seen int64) error {
	if c.late(addr, seenOffer, seen) || mod == c.offers[addr].mod {
		return nil
	}
	if mod == 0 {
		delete(c.offers, addr)
		return nil
	}
	owner, err := parseHeld(value)
	if err != nil {
		owner = "\xffnobody" // whoever it is for, it ends with its term
	}
	c.offers[addr] = offer{mod: mod, heldBy: owner, heldAt: time.Now()}
	return err
}

// setTerm notes that a term exists since, or ended at, the revision. What the
// watch has told of later ones stands.
func (c *cache) setTerm(id termID, rev int64, exists bool) {
	switch {
	case !exists:
		delete(c.terms, id)
	case rev >= c.applied:
		c.terms[id] = rev
	}
}

// adopt takes over from the cache that was before what this server has done
// or found out after all that is in this one.
func (c *cache) adopt(old *cache) {
	for id, at := range old.terms {
		c.setTerm(id, at, true)
	}
	for addr, at := range old.ahead {
		if at.lease > c.applied && !c.late(addr, seenLease, at.lease) {
			if i, ok := old.addrs[addr]; ok {
				c.put(addr, old.slots[i].mod, old.slots[i].rec)
			} else {
				c.drop(addr)
			}
		}
		if at.offer > c.applied && !c.late(addr, seenOffer, at.offer) {
			if o, ok := old.offers[addr]; ok {
				c.offers[addr] = o
			} else {
				delete(c.offers, addr)
			}
		}
	}
}

// taken reports whether the lease, or a quarantine, is not over.
func (c *cache) taken(e *entry) bool {
	if e.leaseMod == 0 {
		return false
	}
	if e.bad || e.forever {
		return true
	}
	for _, g := range e.grants {
		if c.lasts(e, g) {
			return true
		}
	}
	return false
}

// witness is the term by which a lease is not over, if it is one that a
// transaction can ask for: better one that is known to exist than one of which
// the watch has not told yet, and that a transaction may have found to be over.
func (c *cache) witness(e *entry) (term termID) {
	for _, g := range slices.Backward(e.grants) {
		if c.exists(g.Term) {
			return g.Term
		}
		if term == 0 && c.lasts(e, g) {
			term = g.Term
		}
	}
	return term
}

// lasts reports whether a grant of the lease is not over, for all that is
// known: its term may be younger than what the watch has brought.
func (c *cache) lasts(e *entry, g grant) bool { return c.exists(g.Term) || e.leaseMod > c.applied }

func (c *cache) exists(id termID) bool {
	_, ok := c.terms[id]
	return ok
}

// until is the end of the lease in the time of this server: never in the past
// while it is taken, and in the past when it is not, also for who has looked at
// the clock a little before, whatever the clock of the server that made it said,
// or this one's says.
func (c *cache) until(e *entry, wall time.Time) time.Time {
	if e.forever || e.bad {
		return time.Time{}
	}
	left := e.expires.Sub(wall)
	if c.taken(e) {
		var longest int64
		for _, g := range e.grants {
			longest = max(longest, g.Seconds)
		}
		left = max(min(left, time.Duration(longest)*time.Second), time.Second)
	} else {
		left = min(left, -time.Second)
	}
	return time.Now().Add(left).Round(0)
}

// lease returns what the entry says, if it has a lease that is understood.
func (c *cache) lease(e *entry, wall time.Time) dhcp.Lease {
	l := e.rec.lease()
	l.Expires = c.until(e, wall)
	return l
}

// leasesOf returns those of an owner, the earliest first.
func (c *cache) leasesOf(owner string, wall time.Time) []dhcp.Lease {
	if owner == "" {
		return nil
	}
	type made struct {
		addr  netip.Addr
		since int64
	}
	var few [4]made
	all := few[:0]
	for i := c.heads[c.hash(owner)]; i != 0; i = c.slots[i].next {
		if s := &c.slots[i]; s.rec.owner() == owner {
			all = append(all, made{s.rec.addr(), cmp.Or(s.rec.since(), s.mod)})
		}
	}
	slices.SortFunc(all, func(a, b made) int { return cmp.Or(cmp.Compare(a.since, b.since), a.addr.Compare(b.addr)) })
	list := make([]dhcp.Lease, len(all))
	for i, m := range all {
		var grants [maxTerms]grant
		e := c.at(m.addr, &grants)
		list[i] = c.lease(&e, wall)
	}
	return list
}

// parseAddr reads the address in a key; the zero Addr is none.
func parseAddr(s string) netip.Addr {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" || a.String() != s {
		return netip.Addr{}
	}
	return a
}

// forgettable reports whether nothing but a memory is lost with the lease.
func (c *cache) forgettable(e *entry) bool {
	return e.leaseMod != 0 && e.offer.mod == 0 && !c.taken(e)
}

// oldest are up to n addresses whose leases ended first.
func (c *cache) oldest(n int) []netip.Addr {
	type ended struct {
		addr netip.Addr
		at   time.Time
	}
	var list []ended
	var grants [maxTerms]grant
	for addr := range c.addrs {
		if e := c.at(addr, &grants); c.forgettable(&e) {
			list = append(list, ended{addr, e.expires})
		}
	}
	slices.SortFunc(list, func(a, b ended) int { return a.at.Compare(b.at) })
	addrs := make([]netip.Addr, 0, min(n, len(list)))
	for _, l := range list[:cap(addrs)] {
		addrs = append(addrs, l.addr)
	}
	return addrs
}
