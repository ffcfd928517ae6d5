package dhcp6

import (
	"context"
	"io/fs"
	"iter"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

// site is what the servers of a test share, and view what one of them has of
// it: a copy that is as old as its last Sync, or change.
type site struct {
	dhcp.MemoryStore
	held map[netip.Addr]string
	made []netip.Addr // in this order
}

type view struct {
	*site
	seen  map[netip.Addr]dhcp.Lease
	syncs int
}

var _ dhcp.SharedStore = (*view)(nil)

func (v *view) Sync(ctx context.Context) error {
	v.syncs++
	v.seen = map[netip.Addr]dhcp.Lease{}
	for l, err := range v.site.Leases(ctx) {
		if err != nil {
			return err
		}
		v.seen[l.Addr] = l
	}
	return nil
}

func (v *view) changed(ctx context.Context, addr netip.Addr, err error) error {
	if l, lerr := v.site.LeaseByAddr(ctx, addr); lerr == nil {
		v.seen[addr] = l
	}
	return err
}

func (v *view) Commit(ctx context.Context, l dhcp.Lease) error {
	if o := v.held[l.Addr]; o != "" && o != l.Owner() {
		return fs.ErrExist
	}
	delete(v.held, l.Addr)
	if old, err := v.site.LeaseByAddr(ctx, l.Addr); err != nil || !old.Active(time.Now()) {
		v.made = append(slices.DeleteFunc(v.made, func(a netip.Addr) bool { return a == l.Addr }), l.Addr)
		defer v.Sync(ctx)
	}
	return v.changed(ctx, l.Addr, v.site.Commit(ctx, l))
}

func (v *view) Release(ctx context.Context, addr netip.Addr, owner string) error {
	return v.changed(ctx, addr, v.site.Release(ctx, addr, owner))
}

func (v *view) Decline(ctx context.Context, addr netip.Addr, owner string, until time.Time) error {
	return v.changed(ctx, addr, v.site.Decline(ctx, addr, owner, until))
}

func (v *view) LeaseByAddr(_ context.Context, addr netip.Addr) (dhcp.Lease, error) {
	if l, ok := v.seen[addr]; ok {
		return l, nil
	}
	return dhcp.Lease{}, fs.ErrNotExist
}

func (v *view) LeasesByOwner(_ context.Context, owner string) (list []dhcp.Lease, err error) {
	for _, l := range v.seen {
		if l.Owner() == owner {
			list = append(list, l)
		}
	}
	slices.SortFunc(list, func(a, b dhcp.Lease) int { return slices.Index(v.made, a.Addr) - slices.Index(v.made, b.Addr) })
	return list, nil
}

func (v *view) Leases(context.Context) iter.Seq2[dhcp.Lease, error] { panic("not asked for") }

func (v *view) Hold(ctx context.Context, addr netip.Addr, owner string, _ time.Duration) error {
	l, err := v.site.LeaseByAddr(ctx, addr)
	if o := v.held[addr]; o != "" && o != owner || err == nil && l.Owner() != owner && holds(l.Expires, time.Now()) {
		return fs.ErrExist
	}
	v.held[addr] = owner
	return nil
}

func (v *view) AddrState(addr netip.Addr, owner string) (time.Time, bool) {
	if l, ok := v.seen[addr]; ok && l.Owner() != owner {
		return l.Expires, true
	}
	return time.Time{}, false
}

func twoServers(change ...func(*Pool)) (a, b *Pool, seen *view) {
	s := &site{held: map[netip.Addr]string{}}
	views := [2]*view{{site: s, seen: map[netip.Addr]dhcp.Lease{}}, {site: s, seen: map[netip.Addr]dhcp.Lease{}}}
	store := func(v *view) func(*Pool) { return func(p *Pool) { p.Store = v } }
	return testPool(append(change, store(views[0]))...), testPool(append(change, store(views[1]))...), views[1]
}

// Two servers advertise no address to two machines, and to one machine the same.
func TestSharedOffers(t *testing.T) {
	a, b, _ := twoServers(func(p *Pool) { p.Ranges = []dhcp.Range{{First: ip("fd00::100"), Last: ip("fd00::101")}} })
	advertised := func(p *Pool, r *Request) []string {
		addrs, _ := granted(ask(t, p, r))
		return addrs
	}
	first := advertised(a, message(solicit, macA, uefi, withIA("fd00::101")))
	require.Equal(t, []string{"fd00::101"}, first)
	require.Equal(t, []string{"fd00::100"}, advertised(b, message(solicit, macB, uefi, withIA("fd00::101"))))
	require.Equal(t, first, advertised(b, message(solicit, macA, uefi, withIA("fd00::101"))), "the same machine")
	third := append(macA[:5:5], 9)
	_, codes := granted(ask(t, a, message(solicit, third, uefi, withIA())))
	require.Equal(t, []iana.StatusCode{iana.StatusNoAddrsAvail}, codes)
	_, codes = granted(ask(t, a, message(request, third, uefi, to(self), withIA("fd00::101"))))
	require.Equal(t, []iana.StatusCode{iana.StatusNoAddrsAvail}, codes, "no lease of what another machine was told")
	got, _ := granted(ask(t, b, message(request, macA, uefi, to(self), withIA("fd00::101"))))
	require.Equal(t, first, got)
}

// What another server did a moment ago counts.
func TestSharedLeases(t *testing.T) {
	a, b, seen := twoServers()
	got, _ := granted(ask(t, a, message(request, macA, uefi, to(self), withIA("fd00::1aa"))))
	require.Equal(t, []string{"fd00::1aa"}, got)

	// An explanation changes nothing, nor does it have others asked.
	Explain(t.Context(), b, message(solicit, macA, uefi, withIA()))
	require.Zero(t, seen.syncs)
	require.Empty(t, seen.held)

	forget := func() { clear(seen.seen) }
	_, err := b.LeaseByAddr(t.Context(), ip("fd00::1aa"))
	require.NoError(t, err)
	forget()
	require.Equal(t, "fd00::1aa", lease(t, b, macA, system))
	forget()
	got, _ = granted(ask(t, b, message(renew, macA, system, to(self), withIA("fd00::1aa"))))
	require.Equal(t, []string{"fd00::1aa"}, got)
	forget()
	reply := ask(t, b, message(release, macA, system, to(self), withIA("fd00::1aa")))
	require.Equal(t, iana.StatusSuccess, reply.Options.Status().StatusCode)
	require.Empty(t, reply.Options.IANA())
	_, err = b.LeaseByAddr(t.Context(), ip("fd00::1aa"))
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// Of two leases that a machine is given by two servers at once the earlier counts.
func TestSharedTwoAtOnce(t *testing.T) {
	a, b, seen := twoServers()
	addr := func(p *Pool, r *Request) string {
		got, _ := granted(ask(t, p, r))
		require.Len(t, got, 1)
		return got[0]
	}
	require.Equal(t, "fd00::1aa", addr(a, message(request, macA, uefi, to(self), withIA("fd00::1aa"))))
	l, err := seen.site.LeaseByAddr(t.Context(), ip("fd00::1aa"))
	require.NoError(t, err)
	l.Addr, l.Expires = ip("fd00::1bb"), time.Now().Add(-time.Hour)
	seen.seen = map[netip.Addr]dhcp.Lease{l.Addr: l} // all that b knows of: one that it had before
	require.Equal(t, "fd00::1aa", addr(b, message(request, macA, uefi, to(self), withIA("fd00::1bb"))), "b gives it no second one")
	l, err = seen.site.LeaseByAddr(t.Context(), l.Addr)
	require.NoError(t, err)
	require.False(t, l.Active(time.Now()))

	// If there are two all the same, the one made first is renewed, and told.
	l.Expires = time.Now().Add(24 * time.Hour)
	require.NoError(t, seen.Commit(t.Context(), l))
	require.Equal(t, "fd00::1aa", addr(b, message(solicit, macA, uefi, withIA("fd00::1bb"))))
	require.Equal(t, "fd00::1aa", addr(b, message(request, macA, uefi, to(self), withIA("fd00::1bb"))))

	// But a client that renews the other runs on that.
	require.Equal(t, "fd00::1bb", addr(b, message(renew, macA, uefi, to(self), withIA("fd00::1bb"))))
	require.Equal(t, "fd00::1bb", addr(b, message(rebind, macA, uefi, withIA("fd00::1bb"))))
	l, err = seen.site.LeaseByAddr(t.Context(), l.Addr)
	require.NoError(t, err)
	require.True(t, l.Active(time.Now()))
}

// A flood of made-up machines does not have the servers' store hold addresses.
func TestSharedFlood(t *testing.T) {
	a, _, seen := twoServers(func(p *Pool) { p.MaxNewPerLink = 10 })
	for i := range 100 {
		r := relayed(message(solicit, append(macA[:5:5], byte(i)), uefi, withIA()), netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(i)}).String())
		require.Equal(t, dhcpv6.MessageTypeAdvertise, ask(t, a, r).MessageType)
	}
	require.Len(t, seen.held, 10)
}
