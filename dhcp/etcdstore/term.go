package etcdstore

import (
	"context"
	"fmt"
	"math/bits"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A term is how the end of leases is known without anybody's clock: a key on
// an etcd lease, to which the leases of some seconds or minutes point. When
// etcd ends it, all of them are over. While its other key exists, the open
// one, leases may begin on it: that one is on an etcd lease of its own, made
// before the term's and shorter than it by more than the time that the leases
// are promised. So whoever can still write to the term has all that time in
// front of him, by etcd's clock; the server's only says when to make the next.
type term struct {
	id      termID
	seconds int64         // that a lease on it has at least
	open    time.Duration // that leases may begin on it
	born    time.Time
}

// minOpen is the shortest time for which a term is open: short, for addresses
// that were offered or leased for seconds come back that much later.
const minOpen = 2

// roundTerm rounds a time up, by an eighth at most, so that clients that choose
// their lease time do not have a term each.
func roundTerm(seconds int64) int64 {
	step := int64(1) << max(0, bits.Len64(uint64(seconds))-4)
	return (seconds + step - 1) / step * step
}

// terms are the ones that this server uses.
type terms struct {
	mu      sync.Mutex
	current map[int64]*term // by seconds
}

// term returns one that is open for leases of that many seconds (from
// roundTerm). Others wait while one is being made: they want it too.
func (s *Store) term(ctx context.Context, seconds int64) (*term, error) {
	s.terms.mu.Lock()
	defer s.terms.mu.Unlock()
	if t := s.terms.current[seconds]; t != nil && time.Since(t.born) < t.open/2 {
		return t, nil
	}
	for id, t := range s.terms.current {
		if time.Since(t.born) > t.open {
			delete(s.terms.current, id)
		}
	}
	t, err := s.newTerm(ctx, seconds)
	if err != nil {
		return nil, fmt.Errorf("etcdstore: a term of %d seconds: %w", seconds, explain(err))
	}
	s.terms.current[seconds] = t
	return t, nil
}

func (s *Store) newTerm(ctx context.Context, seconds int64) (*term, error) {
	t := &term{seconds: seconds, born: time.Now()}
	// In this order: however long it takes until the next line, the term ends
	// after the open key, by twice the time that this one has.
	short, err := s.client.Grant(ctx, max(minOpen, seconds/16))
	if err != nil {
		return nil, err
	}
	t.open = time.Duration(short.TTL) * time.Second
	long, err := s.client.Grant(ctx, seconds+2*short.TTL) // etcd may have a longer minimum than minOpen
	if err != nil {
		return nil, err
	}
	t.id = termID(long.ID)
	resp, err := s.client.Txn(ctx).Then(
		clientv3.OpPut(s.termKey(t.id), encode(map[string]any{"seconds": seconds, "server": s.name}), clientv3.WithLease(long.ID)),
		clientv3.OpPut(s.openKey(t.id), "", clientv3.WithLease(short.ID)),
	).Commit()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.cache.setTerm(t.id, resp.Header.Revision, true)
	s.mu.Unlock()
	return t, nil
}

// drop makes the next caller of term get another one.
func (ts *terms) drop(t *term) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.current[t.seconds] == t {
		delete(ts.current, t.seconds)
	}
}
