package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// maxBatch is how many changes go into one transaction. etcd takes 128
	// operations (--max-txn-ops), counted inside and outside together, and each
	// change may come with an old lease to forget.
	maxBatch = 48
	// writers is how many transactions are under way at once.
	writers = 4
	// maxQueue bounds what waits for etcd.
	maxQueue = 16384
	// maxTries is how often etcd may have something else than the cache.
	maxTries = 20
	// oldestAtOnce is how many leases to forget are looked for at once.
	oldestAtOnce = 1024
)

var errBusy = errors.New("etcdstore: too many changes are waiting for etcd")

// do queues the change and waits for what becomes of it. It returns the
// revision at which etcd did it, 0 if there was nothing to do.
func (s *Store) do(ctx context.Context, addr netip.Addr, seconds int64, decide func(*entry, *term) (plan, error)) (rev int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	if seconds > 0 {
		seconds = roundTerm(seconds)
	}
	c := &change{ctx: ctx, addr: addr, seconds: seconds, plan: decide, begun: time.Now(), done: make(chan error, 1)}
	s.mu.Lock()
	switch {
	case s.closed:
		s.mu.Unlock()
		return 0, errClosed()
	case len(s.queue) >= maxQueue:
		s.mu.Unlock()
		return 0, errBusy
	}
	s.queue = append(s.queue, c)
	s.mu.Unlock()
	s.wake()
	select {
	case err := <-c.done:
		if err == nil {
			err = s.inTime(c.begun)
		}
		return c.rev, explain(err)
	case <-ctx.Done():
		return 0, explain(ctx.Err())
	case <-s.ctx.Done():
		return 0, errClosed()
	}
}

// inTime is an error when this server was stopped since. Some clients count
// their lease from the ACK: they would count from too late a time.
func (s *Store) inTime(begun time.Time) error {
	if time.Since(begun) > s.timeout {
		return context.DeadlineExceeded
	}
	return nil
}

// reach returns when the watch has brought all up to the revision.
func (s *Store) reach(ctx context.Context, rev int64, begun time.Time) error {
	for {
		s.mu.Lock()
		applied := s.cache.applied
		if s.news == nil && applied < rev {
			s.news = make(chan struct{})
		}
		news := s.news
		s.mu.Unlock()
		if applied >= rev {
			return explain(s.inTime(begun))
		}
		select {
		case <-news:
		case <-ctx.Done():
			return explain(ctx.Err())
		case <-s.ctx.Done():
			return errClosed()
		}
	}
}

// brought notes that the cache has more now. It has the lock.
func (s *Store) brought() {
	if s.news != nil {
		close(s.news)
		s.news = nil
	}
}

// wake gives one of the writers something to do.
func (s *Store) wake() {
	select {
	case s.work <- struct{}{}:
	default: // all have been told
	}
}

// write is a writer: it takes what waits and has etcd do it, all in one
// transaction, so that a server under load has few large ones.
func (s *Store) write() {
	defer s.wg.Done()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.work:
		}
		for {
			batch := s.take()
			if len(batch) == 0 {
				break
			}
			s.wake() // there may be more
			s.send(batch)
		}
	}
}

// take takes changes out of the queue, of one address only the first: the next
// one is to see what became of it.
func (s *Store) take() []*change {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.loaded {
		s.queue = slices.DeleteFunc(s.queue, func(c *change) bool { return c.ctx.Err() != nil })
		return nil
	}
	var batch []*change
	var left []*change
	for i, c := range s.queue {
		switch {
		case c.ctx.Err() != nil: // nobody waits any more
		case len(batch) == maxBatch:
			left = append(left, s.queue[i:]...)
			s.queue = left
			return batch
		case s.busy[c.addr]:
			left = append(left, c)
		default:
			s.busy[c.addr] = true
			batch = append(batch, c)
		}
	}
	s.queue = left
	return batch
}

// send has the batch done, and answers or queues again each of it.
func (s *Store) send(batch []*change) {
	ctx, cancel := context.WithTimeout(s.ctx, s.timeout)
	defer cancel()
	terms := make(map[int64]*term)
	failed := make(map[int64]error)
	for _, c := range batch {
		if c.seconds > 0 && terms[c.seconds] == nil && failed[c.seconds] == nil {
			if terms[c.seconds], failed[c.seconds] = s.term(ctx, c.seconds); failed[c.seconds] != nil {
				delete(terms, c.seconds)
			}
		}
	}

	var ops []clientv3.Op
	var sent []*change
	var plans []plan
	var gone []netip.Addr
	results := make(map[*change]error)
	s.mu.Lock()
	for _, c := range batch {
		if err := failed[c.seconds]; err != nil {
			results[c] = err
			continue
		}
		e := s.cache.at(c.addr, nil)
		p, err := c.plan(&e, terms[c.seconds])
		if err == nil && !p.nothing {
			ops = append(ops, s.op(c, &e, p, terms[c.seconds]))
			sent, plans = append(sent, c), append(plans, p)
			if p.forget.IsValid() {
				s.busy[p.forget] = true
				s.adding[p.forget] = false
				gone = append(gone, p.forget)
			}
			if e.leaseMod == 0 && p.lease != nil {
				s.adding[c.addr] = true
			}
		} else {
			results[c] = err
		}
	}
	for _, addr := range gone {
		key := s.leaseKey(addr)
		cmps := []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", s.cache.leaseMod(addr))}
		ops = append(ops, clientv3.OpTxn(cmps, []clientv3.Op{clientv3.OpDelete(key)}, []clientv3.Op{clientv3.OpGet(key)}))
	}
	s.mu.Unlock()

	var again []*change
	if len(ops) > 0 {
		resp, err := s.transact(ctx, ops)
		var bad []error
		var closed []*term
		s.mu.Lock()
		for i, c := range sent {
			if err != nil {
				results[c] = err
				continue
			}
			inner := resp.Responses[i].GetResponseTxn()
			bad = append(bad, s.learn(c, plans[i], inner, resp.Header.Revision))
			if inner.Succeeded {
				results[c], c.rev = nil, resp.Header.Revision
				continue
			}
			rest := inner.Responses[2:]
			if lasting := plans[i].lasting; lasting != 0 {
				if rest[0].GetResponseRange().GetCount() == 0 {
					s.cache.setTerm(lasting, resp.Header.Revision, false)
				}
				rest = rest[1:]
			}
			if t := terms[c.seconds]; t != nil && rest[0].GetResponseRange().GetCount() == 0 {
				closed = append(closed, t) // it was open for its time, or etcd was away for long
			}
			if c.tries++; c.tries < maxTries {
				again = append(again, c)
			} else {
				results[c] = fmt.Errorf("etcdstore: %v: others change it all the time", c.addr)
			}
		}
		for i, addr := range gone {
			if err == nil {
				inner := resp.Responses[len(sent)+i].GetResponseTxn()
				bad = append(bad, s.learnLease(addr, inner, resp.Header.Revision))
			}
		}
		s.mu.Unlock()
		for _, t := range closed {
			s.terms.drop(t)
		}
		s.warnBad(errors.Join(bad...))
	}

	s.mu.Lock()
	for _, c := range batch {
		delete(s.busy, c.addr)
		delete(s.adding, c.addr)
	}
	for _, addr := range gone {
		delete(s.busy, addr)
		delete(s.adding, addr)
	}
	s.queue = append(again, s.queue...)
	s.mu.Unlock()
	for c, err := range results {
		c.done <- err
	}
}

// transact is one transaction without conditions of its own: those of the
// changes inside do not disturb each other.
func (s *Store) transact(ctx context.Context, ops []clientv3.Op) (*clientv3.TxnResponse, error) {
	resp, err := s.client.Txn(ctx).Then(ops...).Commit()
	if err == nil && len(resp.Responses) != len(ops) {
		err = fmt.Errorf("%d answers to %d operations", len(resp.Responses), len(ops))
	}
	return resp, err
}

// learn takes into the cache what the transaction did, or found. It has the lock.
func (s *Store) learn(c *change, p plan, inner *pb.TxnResponse, rev int64) error {
	if !inner.Succeeded {
		offer := inner.Responses[1].GetResponseRange()
		err := s.learnLease(c.addr, inner, rev)
		if rev > s.cache.applied {
			value, mod := first(offer)
			err = errors.Join(err, s.cache.setOffer(c.addr, value, mod, rev))
		}
		return err
	}
	if rev <= s.cache.applied {
		return nil // the watch was quicker
	}
	var err error
	if p.lease != nil {
		err = s.cache.setLease(c.addr, []byte(*p.lease), rev, rev, s.name)
	}
	if p.offer != nil {
		mod := rev
		if *p.offer == "" {
			mod = 0
		}
		err = errors.Join(err, s.cache.setOffer(c.addr, []byte(*p.offer), mod, rev))
	}
	return err
}

// learnLease takes the first answer of a transaction that failed, or the
// deletion of one that did not, as what there is of a lease.
func (s *Store) learnLease(addr netip.Addr, inner *pb.TxnResponse, rev int64) error {
	if rev <= s.cache.applied {
		return nil
	}
	value, mod := first(inner.Responses[0].GetResponseRange())
	return s.cache.setLease(addr, value, mod, rev, s.name)
}

// first returns the key that a read of one found; mod is 0 without it.
func first(r *pb.RangeResponse) (value []byte, mod int64) {
	if kvs := r.GetKvs(); len(kvs) > 0 {
		return kvs[0].Value, kvs[0].ModRevision
	}
	return nil, 0
}
