package dhcp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// SharedNetwork is a [Handler] for several subnets on one link: a client that
// is on the link of one of the pools may get an address of any of them. The
// pools are asked in this order: the one where the machine has a reserved
// address, the one where it has a lease, the one where it had one, the one with
// the address that it asks for, and the others as they are listed. A request for
// an address that is in none of them gets a NAK.
type SharedNetwork struct {
	// Pools are the subnets; at least one. They must not be asked directly.
	Pools []*Pool

	setup sync.Once
	err   error
}

var _ Handler = (*SharedNetwork)(nil)

// Validate is [Pool.Validate] for all pools; their subnets must not overlap.
func (s *SharedNetwork) Validate() error {
	s.setup.Do(func() {
		if len(s.Pools) == 0 {
			s.err = fmt.Errorf("dhcp: SharedNetwork without Pools: %w", fs.ErrInvalid)
		}
		for i, p := range s.Pools {
			if err := p.Validate(); err != nil {
				s.err = err
				return
			}
			p.link = s.Pools
			for _, o := range s.Pools[:i] {
				if o.Prefix.Overlaps(p.Prefix) {
					s.err = fmt.Errorf("dhcp: pools %v and %v of a shared network overlap: %w", o.Prefix, p.Prefix, fs.ErrInvalid)
					return
				}
			}
		}
	})
	return s.err
}

// ServeDHCP implements [Handler].
func (s *SharedNetwork) ServeDHCP(ctx context.Context, r *Request) (*dhcpv4.DHCPv4, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(s.Pools, func(p *Pool) bool { return r.onLink(p.Prefix) }) {
		return First(handlers(s.Pools)...).ServeDHCP(ctx, r) // a renewal from elsewhere, or nothing for us
	}
	type candidate struct {
		pool *Pool
		c    client
	}
	var list []candidate
	for _, p := range s.Pools {
		c, ok := p.client(r)
		if !ok {
			continue
		}
		list = append(list, candidate{p, c})
	}
	if len(list) == 0 {
		return nil, nil
	}
	if r.MessageType() != dhcpv4.MessageTypeDiscover && !r.isBOOTP() {
		// It is about an address: the pool that has it decides.
		addr := list[0].c.requested
		if !addr.IsValid() {
			addr = list[0].c.ciaddr
		}
		for _, l := range list {
			if l.pool.Prefix.Contains(addr) {
				return l.pool.serve(ctx, l.c, !l.pool.fromElsewhere(l.c))
			}
		}
		if r.MessageType() != dhcpv4.MessageTypeRequest {
			return nil, nil
		}
		return list[0].pool.serve(ctx, list[0].c, true)
	}
	now := time.Now()
	has, had := make(map[*Pool]bool), make(map[*Pool]bool)
	for _, l := range list {
		leases, err := l.pool.store.LeasesByOwner(ctx, l.c.owner)
		if err != nil {
			return nil, err
		}
		for _, x := range leases {
			if l.pool.Prefix.Contains(x.Addr) {
				had[l.pool] = true
				has[l.pool] = has[l.pool] || x.Active(now)
			}
		}
	}
	rank := func(l candidate) int {
		switch {
		case l.c.res.Addr.IsValid():
			return 0
		case has[l.pool]:
			return 1
		case had[l.pool]:
			return 2
		case l.pool.Prefix.Contains(l.c.requested):
			return 3
		}
		return 4
	}
	slices.SortStableFunc(list, func(a, b candidate) int { return rank(a) - rank(b) })
	for _, l := range list {
		reply, err := l.pool.serve(ctx, l.c, true)
		if reply != nil || err != nil && !errors.Is(err, fs.ErrNotExist) {
			return reply, err
		}
	}
	return nil, nil
}

func handlers(pools []*Pool) []Handler {
	list := make([]Handler, len(pools))
	for i, p := range pools {
		list[i] = p
	}
	return list
}
