package etcdstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/seed-3ec230fa/diskless/dhcp"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Defaults of [Options].
const (
	DefaultPrefix    = "/diskless/dhcp"
	DefaultMaxLeases = 1 << 20
	DefaultMaxAge    = 5 * time.Second
	DefaultTimeout   = 5 * time.Second
)

// Options change a [Store]. The zero value is good for most.
type Options struct {
	// Prefix is what all keys begin with; "" is [DefaultPrefix]. Servers that
	// give addresses of the same subnets have the same one, others must not.
	Prefix string

	// Name tells the servers of a prefix apart. It must stay the same when a
	// server starts again, and no two may have one name; "" is the host's name.
	Name string

	// MaxLeases bounds how many addresses are remembered, active or not; 0 is
	// [DefaultMaxLeases], -1 no limit. When it is reached those that ended
	// first are forgotten.
	MaxLeases int

	// MaxAge is how old what is known of other servers' changes may be for
	// anything to be decided by it; 0 is [DefaultMaxAge], -1 any age. Seconds,
	// of which at least two: the age is looked at every second.
	MaxAge time.Duration

	// Timeout is how long a change may take; 0 is [DefaultTimeout].
	Timeout time.Duration

	// Logger gets, at Warn, that etcd does not answer and that it does again,
	// and what is in its keys that should not be; nil is [slog.Default].
	Logger *slog.Logger
}

// Store is a [dhcp.SharedStore] in etcd. All methods may be called
// concurrently.
type Store struct {
	client    *clientv3.Client
	prefix    string
	name      string
	maxLeases int
	maxAge    time.Duration
	timeout   time.Duration
	logger    *slog.Logger
	instance  string
	clockStep atomic.Int64 // nanoseconds that a test takes the clock to be wrong by

	ctx    context.Context // of all goroutines, until Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	terms   terms
	work    chan struct{} // wakes a writer
	beatNow chan struct{}

	mu       sync.RWMutex
	cache    cache
	loaded   bool
	closed   bool
	queue    []*change
	busy     map[netip.Addr]bool // in a transaction
	adding   map[netip.Addr]bool // leases that are under way, false to be forgotten
	oldest   []netip.Addr        // that may be forgotten, as of looked
	looked   time.Time
	beatSent map[int64]time.Time
	seenAt   time.Time     // all that was changed before is in the cache
	seen     chan struct{} // closed and replaced when seenAt changes
	news     chan struct{} // closed when the cache has more, nil if nobody waits
	twin     string        // the instance of another server of our name
	lost     bool          // etcd does not answer, and that was logged
	lostAt   time.Time
}

var _ dhcp.SharedStore = (*Store)(nil)

// Open returns the store at once; it is filled in the background, and again
// whenever the connection was lost. Until etcd answers, all methods return
// errors. Sync waits for that. nil options are the defaults. The client is
// the caller's, who closes it after the store.
func Open(client *clientv3.Client, o *Options) (*Store, error) {
	if o == nil {
		o = new(Options)
	}
	s := &Store{
		client: client, prefix: strings.TrimSuffix(o.Prefix, "/"), name: o.Name,
		maxLeases: o.MaxLeases, maxAge: o.MaxAge, timeout: o.Timeout, logger: o.Logger,
		instance: rand.Text(),
		terms:    terms{current: make(map[int64]*term)}, work: make(chan struct{}, writers), beatNow: make(chan struct{}, 1),
		cache: newCache(), busy: make(map[netip.Addr]bool), adding: make(map[netip.Addr]bool), beatSent: make(map[int64]time.Time), seen: make(chan struct{}),
	}
	if o.Prefix == "" {
		s.prefix = DefaultPrefix
	}
	if s.name == "" {
		name, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("etcdstore: %w: set Name", err)
		}
		s.name = name
	}
	if s.maxLeases == 0 {
		s.maxLeases = DefaultMaxLeases
	}
	if s.maxAge == 0 {
		s.maxAge = DefaultMaxAge
	}
	if s.timeout == 0 {
		s.timeout = DefaultTimeout
	}
	if s.logger == nil {
		s.logger = slog.Default()
	}
	switch {
	case client == nil:
		return nil, fmt.Errorf("etcdstore: no client: %w", fs.ErrInvalid)
	case s.prefix == "" || len(s.prefix) > 512 || printable(s.prefix) != s.prefix:
		return nil, fmt.Errorf("etcdstore: Prefix %q is no text of 1 to 512 bytes: %w", o.Prefix, fs.ErrInvalid)
	case len(s.name) > 253 || strings.Contains(s.name, "/") || printable(s.name) != s.name:
		return nil, fmt.Errorf("etcdstore: Name %q is no name: %w", o.Name, fs.ErrInvalid)
	case s.timeout < 0:
		return nil, fmt.Errorf("etcdstore: Timeout %v is negative: %w", s.timeout, fs.ErrInvalid)
	}
	s.start()
	return s, nil
}

func (s *Store) start() {
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.wg.Add(2 + writers)
	go s.watch()
	go s.keepBeating()
	for range writers {
		go s.write()
	}
}

// Close ends what the store does, and waits for it. Changes that are under way
// may be done or not, as after a crash. Every method returns [fs.ErrClosed]
// afterwards.
func (s *Store) Close() error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if closed {
		return errClosed()
	}
	s.cancel()
	s.wg.Wait()
	return nil
}

// LeaseByAddr implements [dhcp.LeaseStore].
func (s *Store) LeaseByAddr(_ context.Context, addr netip.Addr) (dhcp.Lease, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.freshLocked(); err != nil {
		return dhcp.Lease{}, err
	}
	var grants [maxTerms]grant
	e := s.cache.at(addr, &grants)
	switch {
	case e.leaseMod == 0:
		return dhcp.Lease{}, fs.ErrNotExist
	case e.bad:
		return dhcp.Lease{}, fmt.Errorf("etcdstore: the value of %s is not understood: correct or delete it (etcdctl del): %w", s.leaseKey(addr), fs.ErrInvalid)
	}
	return s.cache.lease(&e, s.now()), nil
}

// LeasesByOwner implements [dhcp.SharedStore].
func (s *Store) LeasesByOwner(_ context.Context, owner string) ([]dhcp.Lease, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.freshLocked(); err != nil {
		return nil, err
	}
	return s.cache.leasesOf(owner, s.now()), nil
}

// Leases implements [dhcp.LeaseStore]. It iterates over a copy.
func (s *Store) Leases(ctx context.Context) iter.Seq2[dhcp.Lease, error] {
	return func(yield func(dhcp.Lease, error) bool) {
		s.mu.RLock()
		err := s.freshLocked()
		addrs := make([]netip.Addr, 0, len(s.cache.addrs))
		for addr, i := range s.cache.addrs {
			if s.cache.slots[i].rec != "" {
				addrs = append(addrs, addr)
			}
		}
		s.mu.RUnlock()
		for _, addr := range addrs {
			var l dhcp.Lease
			if err == nil {
				err = ctx.Err()
			}
			if err == nil {
				l, err = s.LeaseByAddr(ctx, addr)
			}
			if errors.Is(err, fs.ErrNotExist) {
				err = nil // forgotten meanwhile
				continue
			}
			if !yield(l, err) || err != nil {
				return
			}
		}
		if err != nil && len(addrs) == 0 {
			yield(dhcp.Lease{}, err)
		}
	}
}

// AddrState implements [dhcp.SharedStore].
func (s *Store) AddrState(addr netip.Addr, owner string) (until time.Time, known bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var grants [maxTerms]grant
	e := s.cache.at(addr, &grants)
	last := e.leaseMod != 0 && !e.bad && !e.declined && e.owner == owner
	switch {
	case last:
		return time.Time{}, false
	case s.cache.taken(&e):
		return s.cache.until(&e, s.now()), true
	case e.offer.mod != 0 && e.offer.heldBy != owner:
		return time.Now().Add(time.Second), true // etcd tells when it ends
	case e.leaseMod != 0:
		return s.cache.until(&e, s.now()), true
	}
	return time.Time{}, false
}

// now is the wall clock, which nothing depends on.
func (s *Store) now() time.Time { return time.Now().Add(time.Duration(s.clockStep.Load())) }

func (s *Store) leaseKey(addr netip.Addr) string { return s.prefix + "/lease/" + addr.String() }
func (s *Store) offerKey(addr netip.Addr) string { return s.prefix + "/offer/" + addr.String() }
func (s *Store) termKey(id termID) string        { return s.prefix + "/term/" + id.String() }
func (s *Store) openKey(id termID) string        { return s.prefix + "/open/" + id.String() }
func (s *Store) serverKey() string               { return s.prefix + "/server/" + s.name }

// ErrAway is what errors are when etcd does not answer, or did not lately.
var ErrAway = errors.New("etcdstore: etcd does not answer")

func errClosed() error { return fmt.Errorf("etcdstore: %w", fs.ErrClosed) }

// explain says what to do about an error of etcd's.
func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded), status.Code(err) == codes.Unavailable:
		return fmt.Errorf("%w: %w", ErrAway, err)
	case errors.Is(err, rpctypes.ErrNoSpace):
		return fmt.Errorf("etcdstore: etcd's database is full: compact and defragment it, disarm its alarm, and set --auto-compaction-retention: %w: %w", syscall.ENOSPC, err)
	case errors.Is(err, rpctypes.ErrPermissionDenied), errors.Is(err, rpctypes.ErrUserEmpty), errors.Is(err, rpctypes.ErrAuthFailed):
		return fmt.Errorf("etcdstore: etcd refuses this user: it needs to read and write all keys of the prefix: %w: %w", fs.ErrPermission, err)
	}
	return err
}

// away and back log that etcd is lost and found.
func (s *Store) away(err error) {
	s.mu.Lock()
	first := !s.lost && s.ctx.Err() == nil
	if first {
		s.lost, s.lostAt = true, time.Now()
	}
	s.mu.Unlock()
	if first {
		s.logger.Warn("etcdstore: etcd does not answer: until it does, this server gives and renews no leases; others that reach it do",
			"endpoints", s.client.Endpoints(), "err", explain(err))
	}
}

func (s *Store) back() {
	s.mu.Lock()
	lost, since, twin := s.lost, s.lostAt, s.twin
	s.lost, s.twin = false, ""
	s.mu.Unlock()
	if lost {
		s.logger.Warn("etcdstore: etcd answers again", "after", time.Since(since).Round(time.Millisecond))
	}
	if twin != "" {
		s.logger.Warn("etcdstore: another server has the same name: give each its own", "name", s.name, "prefix", s.prefix)
	}
}

func (s *Store) warnBad(err error) {
	if err != nil {
		s.logger.Warn("etcdstore: values in etcd are not understood, their addresses stay out of use: correct or delete them (etcdctl)", "err", err)
	}
}

// printable is s with what a terminal or a log should not get written as Go does.
func printable(s string) string {
	q := strconv.Quote(s)
	return q[1 : len(q)-1]
}
