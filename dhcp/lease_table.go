package dhcp

import (
	"fmt"
	"hash/maphash"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// leaseTable is the leases of a store, by address and by owner. It has no lock
// of its own. Records of one owner, and of owners with the same hash, are
// chained through their slots, so that no lease has a slice or a map of its own.
type leaseTable struct {
	clock storeClock
	seed  maphash.Seed
	slots []leaseSlot
	free  []int32
	addrs map[[16]byte]int32
	heads map[uint32]int32 // first slot of the chain of an owner's hash
}

type leaseSlot struct {
	rec  record // "" for a free slot
	next int32  // the chain's next slot, -1 at its end
}

func (t *leaseTable) len() int { return len(t.addrs) }

func (t *leaseTable) byAddr(addr netip.Addr) (record, bool) {
	i, ok := t.addrs[addr.As16()]
	if !ok {
		return "", false
	}
	return t.slots[i].rec, true
}

// record encodes a lease, and lease decodes it.
func (t *leaseTable) record(l Lease) (record, error) {
	l.Expires = t.clock.in(l.Expires)
	return newRecord(l)
}

func (t *leaseTable) lease(rec record) (Lease, error) {
	l, err := rec.lease()
	l.Expires = t.clock.out(l.Expires)
	return l, err
}

func (t *leaseTable) leasesOf(owner string) ([]Lease, error) {
	if t.heads == nil || owner == "" {
		return nil, nil
	}
	i, ok := t.heads[t.hash(owner)]
	if !ok {
		return nil, nil
	}
	var leases []Lease
	for ; i >= 0; i = t.slots[i].next {
		if rec := t.slots[i].rec; rec.owner() == owner {
			l, err := t.lease(rec)
			if err != nil {
				return nil, err
			}
			leases = append(leases, l)
		}
	}
	return leases, nil
}

func (t *leaseTable) all() []record {
	all := make([]record, 0, len(t.addrs))
	for _, s := range t.slots {
		if s.rec != "" {
			all = append(all, s.rec)
		}
	}
	return all
}

// mayCommit is the check of [LeaseStore.Commit].
func (t *leaseTable) mayCommit(rec record, now time.Time) error {
	old, ok := t.byAddr(rec.addr())
	if ok && old.holds(t.clock.in(now).UnixNano()) && (old.declined() || old.owner() != rec.owner()) {
		return errLeased(rec.addr())
	}
	return nil
}

// released makes the record that [LeaseStore.Release] leaves.
func (t *leaseTable) released(addr netip.Addr, owner string, now time.Time) (record, error) {
	rec, ok := t.byAddr(addr)
	if !ok || rec.declined() || rec.owner() != owner || !rec.holds(t.clock.in(now).UnixNano()) {
		return "", fmt.Errorf("dhcp: lease of %v: %w", addr, fs.ErrNotExist)
	}
	l, err := rec.lease()
	if err != nil {
		return "", err
	}
	l.Expires = t.clock.in(now)
	return newRecord(l)
}

// declined makes the record that [LeaseStore.Decline] leaves.
func (t *leaseTable) declined(addr netip.Addr, owner string, until, now time.Time) (record, error) {
	old, ok := t.byAddr(addr)
	if ok && !old.declined() && old.owner() != owner && old.holds(t.clock.in(now).UnixNano()) {
		return "", errLeased(addr)
	}
	return newRecord(Lease{Addr: addr, Expires: t.clock.in(until), Declined: true})
}

// put replaces the record of an address, and returns those that had to be
// forgotten for it. limit is as in [MemoryStore.MaxLeases].
func (t *leaseTable) put(rec record, limit int) (forgotten []record, err error) {
	if t.addrs == nil {
		t.seed = maphash.MakeSeed()
		t.addrs = make(map[[16]byte]int32)
		t.heads = make(map[uint32]int32)
	}
	key := rec.addr().As16()
	i, known := t.addrs[key]
	if known {
		if t.slots[i].rec.owner() == rec.owner() {
			t.slots[i].rec = rec // the chain stays as it is
			return nil, nil
		}
		t.unlink(i)
	} else {
		if forgotten, err = t.makeRoom(limit); err != nil {
			return nil, err
		}
		if n := len(t.free); n > 0 {
			i, t.free = t.free[n-1], t.free[:n-1]
		} else {
			i = int32(len(t.slots))
			t.slots = append(t.slots, leaseSlot{})
		}
		t.addrs[key] = i
	}
	t.slots[i] = leaseSlot{rec: rec, next: -1}
	if owner := rec.owner(); owner != "" {
		h := t.hash(owner)
		if head, ok := t.heads[h]; ok {
			t.slots[i].next = head
		}
		t.heads[h] = i
	}
	return forgotten, nil
}

// drop forgets an address.
func (t *leaseTable) drop(addr netip.Addr) {
	key := addr.As16()
	i, ok := t.addrs[key]
	if !ok {
		return
	}
	t.unlink(i)
	delete(t.addrs, key)
	t.slots[i] = leaseSlot{}
	t.free = append(t.free, i)
}

// unlink takes a slot out of its owner's chain.
func (t *leaseTable) unlink(i int32) {
	owner := t.slots[i].rec.owner()
	if owner == "" {
		return
	}
	h := t.hash(owner)
	if t.heads[h] == i {
		if next := t.slots[i].next; next >= 0 {
			t.heads[h] = next
		} else {
			delete(t.heads, h)
		}
		return
	}
	for j := t.heads[h]; j >= 0; j = t.slots[j].next {
		if t.slots[j].next == i {
			t.slots[j].next = t.slots[i].next
			return
		}
	}
}

// makeRoom forgets the half of the expired leases that expired first, so that
// the search for them is not repeated for every lease.
func (t *leaseTable) makeRoom(limit int) ([]record, error) {
	if limit == 0 {
		limit = defaultMaxLeases
	}
	if limit < 0 || len(t.addrs) < limit {
		return nil, nil
	}
	var expired []record
	now := t.clock.in(time.Now()).UnixNano()
	for _, s := range t.slots {
		if s.rec != "" && !s.rec.holds(now) {
			expired = append(expired, s.rec)
		}
	}
	if len(expired) == 0 {
		return nil, errFull(limit)
	}
	slices.SortFunc(expired, func(a, b record) int {
		if c := strings.Compare(string(a[2:recordHeader]), string(b[2:recordHeader])); c != 0 {
			return c
		}
		return a.addr().Compare(b.addr())
	})
	expired = expired[:(len(expired)+1)/2]
	for _, rec := range expired {
		t.drop(rec.addr())
	}
	return expired, nil
}

func (t *leaseTable) hash(owner string) uint32 { return uint32(maphash.String(t.seed, owner)) }
