package dhcp

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"iter"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"
)

const defaultMaxLeases = 65536

// MemoryStore is a [LeaseStore] that forgets with the process. A [Pool] copes
// with that: it gives a returning machine the address that it asks for, as far
// as nobody else has it. The zero value is ready to use.
type MemoryStore struct {
	// MaxLeases bounds how many addresses are remembered, active or not; 0 is
	// 65536, -1 no limit. When it is reached the leases that expired first
	// are forgotten. It is set before use and not changed afterwards.
	MaxLeases int

	mu     sync.RWMutex
	byAddr map[netip.Addr]Lease
	byHW   map[string][]netip.Addr
}

var _ LeaseStore = (*MemoryStore)(nil)

// Commit implements [LeaseStore].
func (m *MemoryStore) Commit(_ context.Context, l Lease) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if old, ok := m.byAddr[l.Addr]; ok && old.holds(time.Now()) && !old.heldBy(l.HardwareAddr) {
		return fmt.Errorf("dhcp: lease of %v: %w", l.Addr, fs.ErrExist)
	}
	return m.put(l)
}

// Release implements [LeaseStore].
func (m *MemoryStore) Release(_ context.Context, addr netip.Addr, hw net.HardwareAddr) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	l, ok := m.byAddr[addr]
	if !ok || !l.heldBy(hw) || !l.Active(now) {
		return fmt.Errorf("dhcp: lease of %v: %w", addr, fs.ErrNotExist)
	}
	l.Expires = now
	m.byAddr[addr] = l
	return nil
}

// Decline implements [LeaseStore].
func (m *MemoryStore) Decline(_ context.Context, addr netip.Addr, hw net.HardwareAddr, until time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if old, ok := m.byAddr[addr]; ok && old.Active(time.Now()) && !old.heldBy(hw) {
		return fmt.Errorf("dhcp: lease of %v: %w", addr, fs.ErrExist)
	}
	return m.put(Lease{Addr: addr, Expires: until, Declined: true})
}

// LeaseByAddr implements [LeaseStore].
func (m *MemoryStore) LeaseByAddr(_ context.Context, addr netip.Addr) (Lease, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	l, ok := m.byAddr[addr]
	if !ok {
		// Bare: the allocator asks this for every free address it looks at.
		return Lease{}, fs.ErrNotExist
	}
	return l, nil
}

// LeasesByHardwareAddr implements [LeaseStore].
func (m *MemoryStore) LeasesByHardwareAddr(_ context.Context, hw net.HardwareAddr) ([]Lease, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	addrs := m.byHW[string(hw)]
	if len(addrs) == 0 {
		return nil, nil
	}
	leases := make([]Lease, len(addrs))
	for i, a := range addrs {
		leases[i] = m.byAddr[a]
	}
	return leases, nil
}

// Leases implements [LeaseStore]. It iterates over a copy.
func (m *MemoryStore) Leases(ctx context.Context) iter.Seq2[Lease, error] {
	return func(yield func(Lease, error) bool) {
		m.mu.RLock()
		all := make([]Lease, 0, len(m.byAddr))
		for _, l := range m.byAddr {
			all = append(all, l)
		}
		m.mu.RUnlock()
		for _, l := range all {
			if err := ctx.Err(); err != nil {
				yield(Lease{}, err)
				return
			}
			if !yield(l, nil) {
				return
			}
		}
	}
}

// put replaces the lease of l.Addr.
func (m *MemoryStore) put(l Lease) error {
	old, known := m.byAddr[l.Addr]
	if !known {
		if err := m.makeRoom(); err != nil {
			return err
		}
	}
	if m.byAddr == nil {
		m.byAddr = make(map[netip.Addr]Lease)
		m.byHW = make(map[string][]netip.Addr)
	}
	if known {
		m.unlink(old)
	}
	m.byAddr[l.Addr] = l.clone()
	if !l.Declined {
		key := string(l.HardwareAddr)
		m.byHW[key] = append(m.byHW[key], l.Addr)
	}
	return nil
}

// unlink takes the lease out of the index by hardware address.
func (m *MemoryStore) unlink(l Lease) {
	if l.Declined {
		return
	}
	key := string(l.HardwareAddr)
	m.byHW[key] = slices.DeleteFunc(m.byHW[key], func(a netip.Addr) bool { return a == l.Addr })
	if len(m.byHW[key]) == 0 {
		delete(m.byHW, key)
	}
}

// makeRoom forgets the half of the expired leases that expired first, so that
// the search for them is not repeated for every lease.
func (m *MemoryStore) makeRoom() error {
	limit := m.MaxLeases
	if limit == 0 {
		limit = defaultMaxLeases
	}
	if limit < 0 || len(m.byAddr) < limit {
		return nil
	}
	var expired []Lease
	now := time.Now()
	for _, l := range m.byAddr {
		if !l.holds(now) {
			expired = append(expired, l)
		}
	}
	if len(expired) == 0 {
		return fmt.Errorf("dhcp: %d leases, all active: raise MemoryStore.MaxLeases: %w", limit, syscall.ENOSPC)
	}
	slices.SortFunc(expired, func(a, b Lease) int {
		return cmp.Or(a.Expires.Compare(b.Expires), a.Addr.Compare(b.Addr))
	})
	for _, l := range expired[:(len(expired)+1)/2] {
		m.unlink(l)
		delete(m.byAddr, l.Addr)
	}
	return nil
}
