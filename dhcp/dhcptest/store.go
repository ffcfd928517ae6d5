// Package dhcptest helps to test what works with package dhcp: a conformance
// test for lease stores, and an in-memory network.
package dhcptest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/iana"
	"github.com/seed-3ec230fa/diskless/dhcp"
)

// TestLeaseStore checks that a [dhcp.LeaseStore] keeps its contract. newStore
// returns an empty store with room for at least 100 leases; it is called once
// for each part of the test.
func TestLeaseStore(t *testing.T, newStore func(t *testing.T) dhcp.LeaseStore) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, s dhcp.LeaseStore)
	}{
		{"Empty", testEmpty},
		{"Commit", testCommit},
		{"CommitRefused", testCommitRefused},
		{"CommitExpired", testCommitExpired},
		{"Copies", testCopies},
		{"Release", testRelease},
		{"Decline", testDecline},
		{"ByOwner", testByOwner},
		{"Identity", testIdentity},
		{"IPv6", testIPv6},
		{"OneWinner", testOneWinner},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, newStore(t)) })
	}
}

// Addr returns the n-th address of the documentation subnet 198.51.100.0/24,
// HardwareAddr the n-th of the locally administered 02:00:00:00:00:00.
func Addr(n byte) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, n}) }

// HardwareAddr returns the n-th of the locally administered hardware
// addresses from 02:00:00:00:00:00.
func HardwareAddr(n byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, n} }

func owner(n byte) string { return string(HardwareAddr(n)) }

func lease(addr, hw byte, d time.Duration) dhcp.Lease {
	return dhcp.Lease{Addr: Addr(addr), HardwareAddr: HardwareAddr(hw), Expires: time.Now().Add(d)}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustBe(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error is %v, want %v", err, want)
	}
}

func count(t *testing.T, s dhcp.LeaseStore) int {
	t.Helper()
	n := 0
	for _, err := range s.Leases(t.Context()) {
		must(t, err)
		n++
	}
	return n
}

func testEmpty(t *testing.T, s dhcp.LeaseStore) {
	ctx := t.Context()
	_, err := s.LeaseByAddr(ctx, Addr(1))
	mustBe(t, err, fs.ErrNotExist)
	leases, err := s.LeasesByOwner(ctx, owner(1))
	must(t, err)
	if len(leases) != 0 {
		t.Fatalf("an empty store has leases: %v", leases)
	}
	mustBe(t, s.Release(ctx, Addr(1), owner(1)), fs.ErrNotExist)
	if n := count(t, s); n != 0 {
		t.Fatalf("an empty store lists %d leases", n)
	}
}

func testCommit(t *testing.T, s dhcp.LeaseStore) {
	ctx := t.Context()
	want := dhcp.Lease{
		Addr: Addr(1), HardwareAddr: HardwareAddr(1), Hostname: "node-01", ClientID: []byte{1, 2, 0, 0, 0, 0, 1},
		UUID: "00112233-4455-6677-8899-aabbccddeeff", Archs: iana.Archs{iana.EFI_X86_64},
		Expires: time.Now().Add(time.Hour),
	}
	for range 2 { // made, then renewed
		want.Expires = want.Expires.Add(time.Minute)
		must(t, s.Commit(ctx, want))
		got, err := s.LeaseByAddr(ctx, Addr(1))
		must(t, err)
		// Stores may keep whole seconds and have no use for the monotonic clock.
		if d := got.Expires.Sub(want.Expires); d < -time.Second || d > time.Second {
			t.Fatalf("expires %v, want %v", got.Expires, want.Expires)
		}
		got.Expires = want.Expires
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, want %+v", got, want)
		}
	}
	if n := count(t, s); n != 1 {
		t.Fatalf("%d leases after two commits of one", n)
	}
	forever := dhcp.Lease{Addr: Addr(2), HardwareAddr: HardwareAddr(2)}
	must(t, s.Commit(ctx, forever))
	got, err := s.LeaseByAddr(ctx, Addr(2))
	must(t, err)
	if !got.Expires.IsZero() || !got.Active(time.Now()) {
		t.Fatalf("a lease for ever became %+v", got)
	}
}

func testCommitRefused(t *testing.T, s dhcp.LeaseStore) {
	ctx := t.Context()
	must(t, s.Commit(ctx, lease(1, 1, time.Hour)))
	mustBe(t, s.Commit(ctx, lease(1, 2, time.Hour)), fs.ErrExist)
	got, err := s.LeaseByAddr(ctx, Addr(1))
	must(t, err)
	if !bytes.Equal(got.HardwareAddr, HardwareAddr(1)) {
		t.Fatalf("a refused commit changed the lease: %+v", got)
	}
	if leases, _ := s.LeasesByOwner(ctx, owner(2)); len(leases) != 0 {
		t.Fatalf("a refused commit left leases: %v", leases)
	}
}

func testCommitExpired(t *testing.T, s dhcp.LeaseStore) {
	ctx := t.Context()
	must(t, s.Commit(ctx, lease(1, 1, -time.Second)))
	got, err := s.LeaseByAddr(ctx, Addr(1))
	must(t, err) // expired ones are remembered
	if got.Active(time.Now()) {
		t.Fatalf("an expired lease is active: %+v", got)
	}
	must(t, s.Commit(ctx, lease(1, 2, time.Hour)))
	if leases, _ := s.LeasesByOwner(ctx, owner(1)); len(leases) != 0 {
		t.Fatalf("the address went to another machine, the old one still has %v", leases)
	}
	mustBe(t, s.Commit(ctx, lease(1, 1, time.Hour)), fs.ErrExist)
}

func testCopies(t *testing.T, s dhcp.LeaseStore) {
	ctx := t.Context()
	l := lease(1, 1, time.Hour)
	l.ClientID = []byte{1, 2, 3}
	must(t, s.Commit(ctx, l))
	l.HardwareAddr[5], l.ClientID[0] = 99, 99
	got, err := s.LeaseByAddr(ctx, Addr(1))
	must(t, err)
	if !bytes.Equal(got.HardwareAddr, HardwareAddr(1)) || got.ClientID[0] != 1 {
		t.Fatalf("the store kept slices of its caller: %+v", got)
	}
}

func testRelease(t *testing.T, s dhcp.LeaseStore) {
	ctx := t.Context()
	must(t, s.Commit(ctx, lease(1, 1, time.Hour)))
	mustBe(t, s.Release(ctx, Addr(1), owner(2)), fs.ErrNotExist)
	got, err := s.LeaseByAddr(ctx, Addr(1))
	must(t, err)
	if !got.Active(time.Now()) {
		t.Fatal("released by another machine")
	}
	must(t, s.Release(ctx, Addr(1), owner(1)))
	leases, err := s.LeasesByOwner(ctx, owner(1))
	must(t, err)
	if len(leases) != 1 || leases[0].Active(time.Now()) {
		t.Fatalf("a released lease is to be remembered as expired: %+v", leases)
	}
	mustBe(t, s.Release(ctx, Addr(1), owner(1)), fs.ErrNotExist)
	must(t, s.Commit(ctx, lease(1, 2, time.Hour)))
}

func testDecline(t *testing.T, s dhcp.LeaseStore) {
	ctx := t.Context()
	until := time.Now().Add(time.Hour)
	must(t, s.Commit(ctx, lease(1, 1, time.Hour)))
	mustBe(t, s.Decline(ctx, Addr(1), owner(2), until), fs.ErrExist)
	must(t, s.Decline(ctx, Addr(1), owner(1), until))
	must(t, s.Decline(ctx, Addr(2), owner(1), until)) // was offered only
	for n := byte(1); n <= 2; n++ {
		got, err := s.LeaseByAddr(ctx, Addr(n))
		must(t, err)
		if !got.Declined || got.Active(time.Now()) || len(got.HardwareAddr) != 0 {
			t.Fatalf("in quarantine: %+v", got)
		}
		mustBe(t, s.Commit(ctx, lease(n, 1, time.Hour)), fs.ErrExist)
		mustBe(t, s.Commit(ctx, lease(n, 2, time.Hour)), fs.ErrExist)
		mustBe(t, s.Release(ctx, Addr(n), owner(1)), fs.ErrNotExist)
	}
	if leases, _ := s.LeasesByOwner(ctx, owner(1)); len(leases) != 0 {
		t.Fatalf("a declined address is still the machine's: %v", leases)
	}
	must(t, s.Decline(ctx, Addr(3), owner(1), time.Now().Add(-time.Second)))
	must(t, s.Commit(ctx, lease(3, 2, time.Hour)))
}

func testByOwner(t *testing.T, s dhcp.LeaseStore) {
	ctx := t.Context()
	for n := byte(1); n <= 6; n++ {
		must(t, s.Commit(ctx, lease(n, n%2, time.Hour)))
	}
	leases, err := s.LeasesByOwner(ctx, owner(1))
	must(t, err)
	seen := make(map[netip.Addr]bool)
	for _, l := range leases {
		seen[l.Addr] = bytes.Equal(l.HardwareAddr, HardwareAddr(1))
	}
	if len(leases) != 3 || !seen[Addr(1)] || !seen[Addr(3)] || !seen[Addr(5)] {
		t.Fatalf("leases of one machine: %+v", leases)
	}
	if n := count(t, s); n != 6 {
		t.Fatalf("lists %d leases, want 6", n)
	}
	for range s.Leases(ctx) {
		break // must not upset the store
	}
	must(t, s.Commit(ctx, lease(7, 1, time.Hour)))
}

// testIdentity has leases that are held by an ID, not by the hardware address.
func testIdentity(t *testing.T, s dhcp.LeaseStore) {
	ctx := t.Context()
	l := lease(1, 1, time.Hour)
	l.ID = "dock"
	must(t, s.Commit(ctx, l))
	l.HardwareAddr = HardwareAddr(2) // another adapter, the same machine
	must(t, s.Commit(ctx, l))
	mustBe(t, s.Commit(ctx, lease(1, 2, time.Hour)), fs.ErrExist)
	for who, want := range map[string]int{"dock": 1, owner(1): 0, owner(2): 0} {
		leases, err := s.LeasesByOwner(ctx, who)
		must(t, err)
		if len(leases) != want {
			t.Fatalf("%q has leases %+v, want %d", who, leases, want)
		}
	}
	mustBe(t, s.Release(ctx, Addr(1), owner(2)), fs.ErrNotExist)
	must(t, s.Release(ctx, Addr(1), "dock"))
	must(t, s.Commit(ctx, lease(1, 2, time.Hour)))
	if leases, _ := s.LeasesByOwner(ctx, "dock"); len(leases) != 0 {
		t.Fatalf("the address went to another owner, the old one still has %v", leases)
	}
}

// testIPv6 keeps addresses of both kinds apart.
func testIPv6(t *testing.T, s dhcp.LeaseStore) {
	ctx := t.Context()
	six := netip.MustParseAddr("2001:db8::1")
	l := dhcp.Lease{Addr: six, ID: "duid", Expires: time.Now().Add(time.Hour)}
	must(t, s.Commit(ctx, l))
	must(t, s.Commit(ctx, lease(1, 1, time.Hour)))
	got, err := s.LeaseByAddr(ctx, six)
	must(t, err)
	if got.Addr != six || got.ID != "duid" || got.HardwareAddr != nil {
		t.Fatalf("got %+v", got)
	}
	mustBe(t, s.Commit(ctx, dhcp.Lease{Addr: six, ID: "other"}), fs.ErrExist)
}

// testOneWinner has many machines commit the same few addresses at once.
func testOneWinner(t *testing.T, s dhcp.LeaseStore) {
	const machines, addrs = 16, 4
	var wg sync.WaitGroup
	wins := make([][addrs]bool, machines)
	errs := make([]error, machines)
	for m := range byte(machines) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for a := range byte(addrs) {
				switch err := s.Commit(context.Background(), lease(a, m+1, time.Hour)); {
				case err == nil:
					wins[m][a] = true
				case !errors.Is(err, fs.ErrExist):
					errs[m] = fmt.Errorf("commit: %w", err)
				}
			}
		}()
	}
	wg.Wait()
	must(t, errors.Join(errs...))
	for a := range byte(addrs) {
		var winners []int
		for m := range wins {
			if wins[m][a] {
				winners = append(winners, m)
			}
		}
		if len(winners) != 1 {
			t.Fatalf("%v was given to %d machines", Addr(a), len(winners))
		}
		got, err := s.LeaseByAddr(t.Context(), Addr(a))
		must(t, err)
		if !bytes.Equal(got.HardwareAddr, HardwareAddr(byte(winners[0]+1))) {
			t.Fatalf("%v was given to %v, the store says %v", Addr(a), HardwareAddr(byte(winners[0]+1)), got.HardwareAddr)
		}
	}
}
