package etcdstore

import (
	"net/netip"
	"slices"
	"time"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

// cache is what this server has seen of etcd. Revisions order it: what the
// watch brings and what this server's own transactions tell arrive in any
// order, and the later one of a key stands.
type cache struct {
	entries map[netip.Addr]*entry
	owners  map[string][]netip.Addr
	terms   map[termID]int64 // that exist, by the revision they were made at
	leases  int              // entries that have one

	// applied is the revision up to which the watch has brought everything.
	applied int64
}

// entry is the two keys of an address. A mod of 0 is a key that does not
// exist, as in etcd's compares; seen is the revision at which that was so.
type entry struct {
	leaseMod, leaseSeen int64
	offerMod, offerSeen int64

	// Of the lease:
	value    string
	owner    string
	grants   []grant
	expires  time.Time
	declined bool
	forever  bool
	bad      bool // not understood: out of use
	shared   bool // acknowledged by several servers
	own      bool // by this one alone

	// Of the offer:
	heldBy string
	heldAt time.Time // when this server saw it
}

func newCache() cache {
	return cache{entries: make(map[netip.Addr]*entry), owners: make(map[string][]netip.Addr), terms: make(map[termID]int64)}
}

// at returns the entry of an address, a new one if there is none.
func (c *cache) at(addr netip.Addr) *entry {
	e := c.entries[addr]
	if e == nil {
		e = new(entry)
		c.entries[addr] = e
	}
	return e
}

// tidy forgets an entry without content.
func (c *cache) tidy(addr netip.Addr, e *entry) {
	if e.leaseMod == 0 && e.offerMod == 0 && max(e.leaseSeen, e.offerSeen) <= c.applied {
		delete(c.entries, addr)
	}
}

// setLease takes the lease's value as it was at the revision seen; mod is 0
// without one. It returns an error for a value that it does not understand.
func (c *cache) setLease(addr netip.Addr, value []byte, mod, seen int64, server string) error {
	e := c.at(addr)
	defer c.tidy(addr, e)
	if seen < e.leaseSeen {
		return nil
	}
	e.leaseSeen = seen
	if mod == e.leaseMod {
		return nil
	}
	if e.leaseMod != 0 {
		c.disown(addr, e.owner)
		c.leases--
	}
	*e = entry{leaseMod: mod, leaseSeen: seen, offerMod: e.offerMod, offerSeen: e.offerSeen, heldBy: e.heldBy, heldAt: e.heldAt}
	if mod == 0 {
		return nil
	}
	c.leases++
	r, l, err := parseRecord(value)
	if err != nil {
		e.bad = true
		return err
	}
	e.value, e.owner, e.grants, e.expires = string(value), l.Owner(), r.Grants, l.Expires
	e.declined, e.forever, e.own = r.Declined, r.Forever, r.Server == server && !r.Shared
	e.shared = r.Shared
	if e.owner != "" {
		c.owners[e.owner] = append(c.owners[e.owner], addr)
	}
	return nil
}

func (c *cache) disown(addr netip.Addr, owner string) {
	list := slices.DeleteFunc(c.owners[owner], func(a netip.Addr) bool { return a == addr })
	if len(list) == 0 {
		delete(c.owners, owner)
	} else {
		c.owners[owner] = list
	}
}

// setOffer is setLease for the offer.
func (c *cache) setOffer(addr netip.Addr, value []byte, mod, seen int64) error {
	e := c.at(addr)
	defer c.tidy(addr, e)
	if seen < e.offerSeen {
		return nil
	}
	e.offerSeen = seen
	if mod == e.offerMod {
		return nil
	}
	e.offerMod, e.heldBy, e.heldAt = mod, "", time.Now()
	if mod == 0 {
		return nil
	}
	owner, err := parseHeld(value)
	if err != nil {
		owner = "\xffnobody" // whoever it is for, it ends with its term
	}
	e.heldBy = owner
	return err
}

// setTerm notes that a term exists since, or ended at, the revision.
func (c *cache) setTerm(id termID, rev int64, exists bool) {
	switch {
	case !exists:
		delete(c.terms, id)
	case rev > c.applied:
		c.terms[id] = rev
	}
}

// taken reports whether the lease, or a quarantine, is not over.
func (c *cache) taken(e *entry) bool {
	if e.leaseMod == 0 {
		return false
	}
	return e.bad || e.forever || slices.ContainsFunc(e.grants, func(g grant) bool { return c.lasts(e, g) })
}

// lasts reports whether a grant of the lease is not over, for all that is
// known: its term may be younger than what the watch has brought.
func (c *cache) lasts(e *entry, g grant) bool { return c.exists(g.Term) || e.leaseMod > c.applied }

func (c *cache) exists(id termID) bool {
	_, ok := c.terms[id]
	return ok
}

// until is the end of the lease in the time of this server: never in the past
// while it is taken, and never in the future when it is not, whatever the
// clock of the server that made it said, or this one's says.
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
		left = min(left, 0)
	}
	return time.Now().Add(left).Round(0)
}

// lease returns what the entry says, if it has a lease.
func (c *cache) lease(addr netip.Addr, e *entry, wall time.Time) (dhcp.Lease, error) {
	_, l, err := parseRecord([]byte(e.value))
	l.Addr, l.Expires = addr, c.until(e, wall)
	return l, err
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
	return e.leaseMod != 0 && e.offerMod == 0 && !c.taken(e)
}

// oldest are up to n addresses whose leases ended first.
func (c *cache) oldest(n int) []netip.Addr {
	var list []netip.Addr
	for addr, e := range c.entries {
		if c.forgettable(e) {
			list = append(list, addr)
		}
	}
	slices.SortFunc(list, func(a, b netip.Addr) int { return c.entries[a].expires.Compare(c.entries[b].expires) })
	return list[:min(n, len(list))]
}
