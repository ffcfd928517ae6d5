package dhcp

import (
	"context"
	"fmt"
	"io/fs"
	"iter"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

const defaultMaxLeases = 65536

// MemoryStore is a [LeaseStore] that forgets with the process. A [Pool] copes
// with that: it gives a returning machine the address that it asks for, as far
// as nobody else has it. The zero value is ready to use. A lease takes less
// than 300 bytes.
type MemoryStore struct {
	// MaxLeases bounds how many addresses are remembered, active or not; 0 is
	// 65536, -1 no limit. When it is reached the leases that expired first
	// are forgotten. It is set before use and not changed afterwards.
	MaxLeases int

	mu    sync.RWMutex
	table leaseTable
}

var _ LeaseStore = (*MemoryStore)(nil)

// Commit implements [LeaseStore].
func (m *MemoryStore) Commit(_ context.Context, l Lease) error {
	rec, err := m.table.record(l)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.table.mayCommit(rec, time.Now()); err != nil {
		return err
	}
	_, err = m.table.put(rec, m.MaxLeases)
	return err
}

// Release implements [LeaseStore].
func (m *MemoryStore) Release(_ context.Context, addr netip.Addr, owner string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	rec, err := m.table.released(addr, owner, time.Now())
	if err == nil {
		_, err = m.table.put(rec, m.MaxLeases)
	}
	return err
}

// Decline implements [LeaseStore].
func (m *MemoryStore) Decline(_ context.Context, addr netip.Addr, owner string, until time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	rec, err := m.table.declined(addr, owner, until, time.Now())
	if err == nil {
		_, err = m.table.put(rec, m.MaxLeases)
	}
	return err
}

// LeaseByAddr implements [LeaseStore].
func (m *MemoryStore) LeaseByAddr(_ context.Context, addr netip.Addr) (Lease, error) {
	m.mu.RLock()
	rec, ok := m.table.byAddr(addr)
	m.mu.RUnlock()
	if !ok {
		// Bare: the allocator asks this for every free address it looks at.
		return Lease{}, fs.ErrNotExist
	}
	return m.table.lease(rec)
}

// LeasesByOwner implements [LeaseStore].
func (m *MemoryStore) LeasesByOwner(_ context.Context, owner string) ([]Lease, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.table.leasesOf(owner)
}

// Leases implements [LeaseStore]. It iterates over a copy.
func (m *MemoryStore) Leases(ctx context.Context) iter.Seq2[Lease, error] {
	return func(yield func(Lease, error) bool) {
		m.mu.RLock()
		all := m.table.all()
		m.mu.RUnlock()
		m.table.yield(ctx, all, yield)
	}
}

// state implements [addrStates].
func (m *MemoryStore) state(addr netip.Addr) (expires time.Time, known bool) {
	m.mu.RLock()
	rec, ok := m.table.byAddr(addr)
	m.mu.RUnlock()
	if !ok {
		return time.Time{}, false
	}
	return m.table.clock.out(expiryTime(rec.expires())), true
}

// addrStates is what a search through many addresses asks of a store that has
// it, in place of LeaseByAddr: until when an address is or was in use.
type addrStates interface {
	state(addr netip.Addr) (expires time.Time, known bool)
}

func (t *leaseTable) yield(ctx context.Context, all []record, yield func(Lease, error) bool) {
	for _, rec := range all {
		l, err := t.lease(rec)
		if cerr := ctx.Err(); cerr != nil {
			err = cerr
		}
		if !yield(l, err) || err != nil {
			return
		}
	}
}

func newRecord(l Lease) (record, error) {
	if !l.Addr.IsValid() || len(l.ID) > 512 || len(l.ClientID) > 255 || len(l.Hostname) > 253 || len(l.ClientHostname) > 253 || len(l.Archs) > 64 {
		return "", fmt.Errorf("dhcp: lease of %v has fields that are too long: %w", l.Addr, fs.ErrInvalid)
	}
	var buf [256]byte
	return record(appendRecord(buf[:0], l)), nil
}

func errLeased(addr netip.Addr) error {
	return fmt.Errorf("dhcp: lease of %v: %w", addr, fs.ErrExist)
}

func errFull(limit int) error {
	return fmt.Errorf("dhcp: %d leases, all active: raise MaxLeases: %w", limit, syscall.ENOSPC)
}
