package etcdstore

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// beatEvery is how often a server writes its own key, to see how long it
	// takes until the watch brings it back.
	beatEvery = time.Second
	// lateBeats is how many beats later than it may be written a beat is
	// waited for, before the watch is begun anew.
	lateBeats = 3
	// beatTTL is how long that key outlives the server.
	beatTTL = 30
	// loadPage is how many keys are read at once: some megabytes. For each
	// page etcd counts all keys that are left.
	loadPage = 50_000
	// retryAfter is the pause after etcd failed.
	retryAfter = 200 * time.Millisecond
)

// watch keeps the cache: all that there is, then what changes, and all again
// if etcd cannot tell what changed.
func (s *Store) watch() {
	defer s.wg.Done()
	rev := int64(0)
	for s.ctx.Err() == nil {
		var err error
		if rev == 0 {
			rev, err = s.load()
		}
		if err == nil {
			rev, err = s.follow(rev)
		}
		if errors.Is(err, rpctypes.ErrCompacted) {
			rev = 0
			continue
		}
		if err != nil {
			s.away(err)
			s.pause(retryAfter)
		}
	}
}

func (s *Store) pause(d time.Duration) {
	select {
	case <-s.ctx.Done():
	case <-time.After(d):
	}
}

// load reads everything, as of one revision, which it returns.
func (s *Store) load() (int64, error) {
	fresh := newCache()
	var rev int64
	var bad []error
	ctx, cancel := context.WithCancel(s.ctx)
	pages := make(chan page)
	go s.read(ctx, pages)
	defer func() {
		cancel()
		for range pages {
		}
	}()
	for p := range pages {
		if p.err != nil {
			return 0, p.err
		}
		rev = p.rev
		fresh.brought(rev)
		for _, kv := range p.kvs {
			if err := s.set(&fresh, kv, kv.ModRevision, rev); err != nil {
				bad = append(bad, err)
			}
		}
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	s.mu.Lock()
	fresh.adopt(&s.cache)
	s.cache = fresh
	s.loaded = true
	s.brought()
	s.mu.Unlock()
	s.wake()
	s.warnBad(errors.Join(bad...))
	return rev, nil
}

// page is a part of all keys, as of rev.
type page struct {
	kvs []*mvccpb.KeyValue
	rev int64
	err error
}

// read reads all keys, a page ahead of who takes them, until ctx ends. It
// closes pages.
func (s *Store) read(ctx context.Context, pages chan<- page) {
	defer close(pages)
	from, end := s.prefix+"/", clientv3.GetPrefixRangeEnd(s.prefix+"/")
	rev := int64(0)
	for more := true; more; {
		ctx2, cancel := context.WithTimeout(ctx, 10*s.timeout)
		resp, err := s.client.Get(ctx2, from, clientv3.WithRange(end), clientv3.WithLimit(loadPage), clientv3.WithRev(rev))
		cancel()
		p := page{err: err}
		if more = err == nil && resp.More; err == nil {
			if rev == 0 {
				rev = resp.Header.Revision
			}
			p.kvs, p.rev = resp.Kvs, rev
		}
		if more {
			from = string(p.kvs[len(p.kvs)-1].Key) + "\x00"
		}
		select {
		case pages <- p:
		case <-ctx.Done():
			return
		}
	}
}

// follow applies what changes after the revision. It returns the one that it
// came to, and why it ended.
func (s *Store) follow(rev int64) (int64, error) {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(s.ctx))
	defer cancel()
	changes := s.client.Watch(ctx, s.prefix+"/", clientv3.WithPrefix(), clientv3.WithRev(rev+1), clientv3.WithFragment())
	patience := time.NewTicker(s.timeout + lateBeats*beatEvery)
	defer patience.Stop()
	for {
		var resp clientv3.WatchResponse
		select {
		case r, ok := <-changes:
			if !ok {
				return rev, cmp.Or(s.ctx.Err(), errWatchEnded)
			}
			resp = r
		case <-patience.C:
			if s.overdue(s.timeout + lateBeats*beatEvery) {
				return rev, errWatchSilent
			}
			continue
		}
		if err := resp.Err(); err != nil {
			return rev, err
		}
		if len(resp.Events) == 0 {
			continue
		}
		var bad []error
		s.mu.Lock()
		for _, ev := range resp.Events {
			kv, at := ev.Kv, ev.Kv.ModRevision
			mod := at
			if ev.Type == mvccpb.DELETE {
				mod = 0
			}
			if err := s.set(&s.cache, kv, mod, at); err != nil {
				bad = append(bad, err)
			}
			rev = max(rev, at)
			if string(kv.Key) == s.serverKey() && mod != 0 {
				s.beaten(kv)
			}
		}
		s.cache.brought(rev)
		s.brought()
		s.mu.Unlock()
		s.warnBad(errors.Join(bad...))
	}
}

var (
	errWatchEnded  = errors.New("the watch ended") // as when the client was closed
	errWatchSilent = errors.New("the watch does not bring what this server wrote")
)

// overdue says whether something that was written so long ago has not come back.
func (s *Store) overdue(d time.Duration) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, sent := range s.beatSent {
		if time.Since(sent) > d {
			return true
		}
	}
	return false
}

// set takes a key into the cache, as it was at the revision seen; mod 0 is one
// that does not exist. It has the lock, or nobody else knows the cache.
func (s *Store) set(c *cache, kv *mvccpb.KeyValue, mod, seen int64) error {
	kind, name, _ := strings.Cut(strings.TrimPrefix(string(kv.Key), s.prefix+"/"), "/")
	var err error
	switch kind {
	case "lease", "offer":
		addr := parseAddr(name)
		if !addr.IsValid() {
			return fmt.Errorf("%s: no address", printable(string(kv.Key)))
		}
		if kind == "lease" {
			err = c.setLease(addr, kv.Value, mod, seen, s.name)
		} else {
			err = c.setOffer(addr, kv.Value, mod, seen)
		}
	case "term":
		var n int64
		if n, err = strconv.ParseInt(name, 16, 64); err == nil {
			c.setTerm(termID(n), seen, mod != 0)
		}
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", printable(string(kv.Key)), err)
	}
	return err
}

// beat is the value of a server's key.
type beat struct {
	Instance string `json:"instance"`
	Beat     int64  `json:"beat"`
	Time     string `json:"time"` // of the server's clock, for people
}

// keepBeating writes the server's key every second, and whenever Sync asks.
func (s *Store) keepBeating() {
	defer s.wg.Done()
	timer := time.NewTicker(beatEvery)
	defer timer.Stop()
	var lease clientv3.LeaseID
	var renewed time.Time
	for n := int64(1); s.ctx.Err() == nil; n++ {
		err := func() error {
			ctx, cancel := context.WithTimeout(s.ctx, s.timeout)
			defer cancel()
			if lease == 0 {
				g, err := s.client.Grant(ctx, beatTTL)
				if err != nil {
					return err
				}
				lease, renewed = g.ID, time.Now()
			}
			if time.Since(renewed) > beatTTL/3*time.Second {
				if _, err := s.client.KeepAliveOnce(ctx, lease); err != nil {
					return err
				}
				renewed = time.Now()
			}
			s.mu.Lock()
			s.beatSent[n] = time.Now()
			s.mu.Unlock()
			_, err := s.client.Put(ctx, s.serverKey(), encode(beat{s.instance, n, s.now().UTC().Format(time.RFC3339)}), clientv3.WithLease(lease))
			if err != nil {
				s.mu.Lock()
				delete(s.beatSent, n)
				s.mu.Unlock()
			}
			return err
		}()
		switch {
		case err == nil:
			s.back()
		case s.ctx.Err() != nil:
			return
		default:
			lease = 0
			s.away(err)
			s.pause(retryAfter)
		}
		select {
		case <-s.ctx.Done():
		case <-timer.C:
		case <-s.beatNow:
		}
	}
}

// beaten notes that the watch brought a beat of this server: all that was
// changed before it was sent is in the cache. It has the lock.
func (s *Store) beaten(kv *mvccpb.KeyValue) {
	var b beat
	if len(kv.Value) > maxValue || json.Unmarshal(kv.Value, &b) != nil {
		return
	}
	if b.Instance != s.instance {
		s.twin = b.Instance
		return
	}
	sent, ok := s.beatSent[b.Beat]
	for n := range s.beatSent {
		if n <= b.Beat {
			delete(s.beatSent, n)
		}
	}
	if ok && sent.After(s.seenAt) {
		s.seenAt = sent
		close(s.seen)
		s.seen = make(chan struct{})
	}
}

// Sync implements [dhcp.SharedStore].
func (s *Store) Sync(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	asked := time.Now()
	for {
		s.mu.RLock()
		at, seen, closed := s.seenAt, s.seen, s.closed
		s.mu.RUnlock()
		switch {
		case closed:
			return errClosed()
		case at.After(asked):
			return nil
		}
		select {
		case s.beatNow <- struct{}{}:
		default: // it will be sent in any case, after this call began or before
		}
		select {
		case <-seen:
		case <-ctx.Done():
			return explain(ctx.Err())
		case <-s.ctx.Done():
			return errClosed()
		}
	}
}

// fresh is an error when it is not known what others did in the last MaxAge.
func (s *Store) fresh() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.freshLocked()
}

func (s *Store) freshLocked() error {
	switch {
	case s.closed:
		return errClosed()
	case !s.loaded, s.maxAge >= 0 && time.Since(s.seenAt) > s.maxAge:
		return fmt.Errorf("%w: leases are %v old", ErrAway, time.Since(s.seenAt).Round(time.Second))
	}
	return nil
}
