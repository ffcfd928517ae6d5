package etcdstore

import (
	"context"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/seed-3ec230fa/diskless/dhcp"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// change is one method call that writes. Each concerns one address.
type change struct {
	ctx     context.Context
	addr    netip.Addr
	seconds int64 // of the term that it needs, 0 for none

	// plan decides by what is in the cache; the transaction repeats all that
	// it rests on. It is called with the lock, and again when etcd has
	// something else than the cache had.
	plan func(e *entry, t *term) (plan, error)

	tries int
	begun time.Time
	rev   int64      // at which etcd did it, once done
	done  chan error // of one error
}

// plan is what a change writes: nil leaves the key as it is, "" deletes it.
type plan struct {
	lease, offer *string
	offerTerm    termID
	over         []grant    // the terms of these must not exist any more
	lasting      termID     // must still exist, if there is one
	forget       netip.Addr // a lease that is to go for this one
	nothing      bool
}

func errExist(addr netip.Addr, why string) error {
	return fmt.Errorf("etcdstore: %v is %s: %w", addr, why, fs.ErrExist)
}

// seconds of a time that is in front of us, rounded up.
func seconds(d time.Duration) int64 {
	return min(int64((max(0, d)+time.Second-1)/time.Second), maxSeconds)
}

// Commit implements [dhcp.LeaseStore].
func (s *Store) Commit(ctx context.Context, l dhcp.Lease) error {
	r, err := newRecord(l, s.name)
	if err != nil {
		return err
	}
	left := time.Until(l.Expires) // both have the monotonic clock, if Pool made it
	r.Forever = l.Expires.IsZero()
	var need int64
	if !r.Forever {
		r.Expires = s.now().Add(left).UTC().Format(time.RFC3339Nano)
		need = seconds(left)
	}
	owner := l.Owner()
	if owner == "" {
		return fmt.Errorf("etcdstore: a lease of %v for nobody: %w", l.Addr, fs.ErrInvalid)
	}
	since := int64(0) // of the lease that this renews, 0 for a new one
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	begun := time.Now()
	rev, err := s.do(ctx, l.Addr, need, func(e *entry, t *term) (plan, error) {
		var p plan
		taken := s.cache.taken(e)
		last := e.leaseMod != 0 && !e.bad && !e.declined && e.owner == owner
		r.Since = 0
		if taken && last {
			// It is not made again where its time was over meanwhile, and
			// the owner may have another one since.
			r.Since, p.lasting = e.since, s.cache.witness(e)
		}
		since = r.Since
		switch {
		case taken && !last:
			return p, errExist(l.Addr, "leased to another machine or in quarantine")
		case e.offer.mod != 0 && e.offer.heldBy != owner && !last:
			return p, errExist(l.Addr, "offered to another machine")
		case e.leaseMod == 0:
			var full bool
			if p.forget, full = s.room(); full {
				return p, fmt.Errorf("etcdstore: %d leases, all active: raise MaxLeases: %w", len(s.cache.addrs), syscall.ENOSPC)
			}
		}
		if !last {
			p.over = e.grants
		}
		r.Shared = taken && !e.own
		r.Grants = nil
		if t != nil {
			if last {
				r.Grants = s.cache.believed(e, need)
			}
			r.Grants = append(r.Grants, grant{t.id, need})
		}
		value := encode(r)
		p.lease = &value
		if e.offer.mod != 0 {
			p.offer = new(string)
		}
		return p, nil
	})
	if err != nil {
		return err
	}
	if since > 0 {
		// This server may have made it itself a moment ago, without having
		// seen what was before it.
		rev = min(rev, since)
	}
	return s.reach(ctx, rev, begun)
}

// believed are the earlier grants that the owner may still rely on after one
// of fewer seconds: the ACK that told it of fewer may be lost.
func (c *cache) believed(e *entry, seconds int64) []grant {
	kept := slices.DeleteFunc(slices.Clone(e.grants), func(g grant) bool { return g.Seconds <= seconds || !c.lasts(e, g) })
	return kept[:min(len(kept), maxTerms-1)]
}

// room returns a lease that is to be forgotten for a new one, the zero Addr if
// there is room without. full is true if there is neither. It has the lock.
func (s *Store) room() (forget netip.Addr, full bool) {
	if s.maxLeases < 0 || len(s.cache.addrs)+len(s.adding) < s.maxLeases || len(s.cache.addrs)+s.underway() < s.maxLeases {
		return netip.Addr{}, false
	}
	for looked := false; ; looked = true {
		for len(s.oldest) > 0 {
			addr := s.oldest[0]
			s.oldest = s.oldest[1:]
			if e := s.cache.at(addr, nil); s.cache.forgettable(&e) && !s.busy[addr] {
				return addr, false
			}
		}
		if looked || time.Since(s.looked) < time.Second { // it takes a look at all of them
			return netip.Addr{}, true
		}
		if s.oldest = s.cache.oldest(oldestAtOnce); len(s.oldest) == 0 {
			s.looked = time.Now()
		}
	}
}

// underway is how many leases there will be more when what is under way is
// done, not counting what is in the cache already.
func (s *Store) underway() (n int) {
	for addr, add := range s.adding {
		switch _, has := s.cache.addrs[addr]; {
		case add && !has:
			n++
		case !add && has:
			n--
		}
	}
	return n
}

// Release implements [dhcp.LeaseStore], for leases that no other server has
// acknowledged since the address was free. Others are not ended, and last until
// their time is over: a release that was on its way, or waited in a server that
// had stopped, while the machine got its address again elsewhere, must not take
// it away.
func (s *Store) Release(ctx context.Context, addr netip.Addr, owner string) error {
	_, err := s.do(ctx, addr, 0, func(e *entry, _ *term) (plan, error) {
		if !s.cache.taken(e) || e.bad || e.declined || e.owner != owner || !e.own {
			return plan{}, fmt.Errorf("etcdstore: %v has no active lease of %v that %s alone gave: %w", printable(owner), addr, s.name, fs.ErrNotExist)
		}
		r, err := newRecord(e.rec.lease(), s.name)
		if err != nil {
			return plan{}, err
		}
		r.Expires = s.now().UTC().Format(time.RFC3339Nano)
		value := encode(r)
		s.looked = time.Time{} // there may be one to forget
		return plan{lease: &value}, nil
	})
	return err
}

// Decline implements [dhcp.LeaseStore]. Where Release would not end the lease,
// the address stays in quarantine for as long as that would last.
func (s *Store) Decline(ctx context.Context, addr netip.Addr, owner string, until time.Time) error {
	r, err := newRecord(dhcp.Lease{Addr: addr, Declined: true}, s.name)
	if err != nil {
		return err
	}
	left := time.Until(until)
	r.Expires = s.now().Add(left).UTC().Format(time.RFC3339Nano)
	need := seconds(left)
	_, err = s.do(ctx, addr, need, func(e *entry, t *term) (plan, error) {
		var p plan
		taken := s.cache.taken(e)
		if taken && (e.bad || !e.declined && e.owner != owner) {
			return p, errExist(addr, "leased to another machine")
		}
		if !taken {
			p.over = e.grants
		}
		r.Grants = nil
		if t != nil {
			r.Grants = []grant{{t.id, need}}
		}
		r.Forever = false
		if taken && !e.own {
			r.Grants = append(s.cache.believed(e, need), r.Grants...)
			r.Forever = e.forever
		}
		value := encode(r)
		p.lease = &value
		if e.offer.mod != 0 {
			p.offer = new(string)
		}
		return p, nil
	})
	return err
}

// Hold implements [dhcp.SharedStore]. It costs nothing when the owner has or
// holds the address already.
func (s *Store) Hold(ctx context.Context, addr netip.Addr, owner string, d time.Duration) error {
	if owner == "" || !addr.IsValid() || addr.Zone() != "" || len(owner) > 512 {
		return fmt.Errorf("etcdstore: a hold of %v for %v: %w", addr, printable(owner), fs.ErrInvalid)
	}
	if err := s.fresh(); err != nil {
		return err
	}
	_, err := s.do(ctx, addr, max(1, seconds(d)), func(e *entry, t *term) (plan, error) {
		taken := s.cache.taken(e)
		last := e.leaseMod != 0 && !e.bad && !e.declined && e.owner == owner
		switch {
		case taken && last:
			return plan{nothing: true}, nil
		case taken:
			return plan{}, errExist(addr, "leased to another machine or in quarantine")
		case e.offer.mod != 0 && e.offer.heldBy == owner && time.Since(e.offer.heldAt) < d/2:
			return plan{nothing: true}, nil
		case e.offer.mod != 0 && e.offer.heldBy != owner && !last:
			return plan{}, errExist(addr, "offered to another machine")
		}
		value := encode(newHeld(owner, s.name))
		p := plan{offer: &value, offerTerm: t.id}
		if !last {
			p.over = e.grants
		}
		return p, nil
	})
	return err
}

// op is the change as a transaction of its own, which is one of several inside
// of another one. It has the lock.
func (s *Store) op(c *change, e *entry, p plan, t *term) clientv3.Op {
	lease, offer := s.leaseKey(c.addr), s.offerKey(c.addr)
	cmps := []clientv3.Cmp{
		clientv3.Compare(clientv3.ModRevision(lease), "=", e.leaseMod),
		clientv3.Compare(clientv3.ModRevision(offer), "=", e.offer.mod),
	}
	for _, g := range p.over {
		cmps = append(cmps, clientv3.Compare(clientv3.CreateRevision(s.termKey(g.Term)), "=", 0))
	}
	otherwise := []clientv3.Op{clientv3.OpGet(lease), clientv3.OpGet(offer)}
	if p.lasting != 0 {
		cmps = append(cmps, clientv3.Compare(clientv3.CreateRevision(s.termKey(p.lasting)), ">", 0))
		otherwise = append(otherwise, clientv3.OpGet(s.termKey(p.lasting), clientv3.WithCountOnly()))
	}
	if t != nil {
		cmps = append(cmps, clientv3.Compare(clientv3.CreateRevision(s.openKey(t.id)), ">", 0))
		otherwise = append(otherwise, clientv3.OpGet(s.openKey(t.id), clientv3.WithCountOnly()))
	}
	var then []clientv3.Op
	if p.lease != nil {
		then = append(then, clientv3.OpPut(lease, *p.lease))
	}
	switch {
	case p.offer == nil:
	case *p.offer == "":
		then = append(then, clientv3.OpDelete(offer))
	default:
		then = append(then, clientv3.OpPut(offer, *p.offer, clientv3.WithLease(clientv3.LeaseID(p.offerTerm))))
	}
	return clientv3.OpTxn(cmps, then, otherwise)
}
