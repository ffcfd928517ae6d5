package dhcp

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"
)

// The table against a plain map, with few owners that have many leases each, so
// that leases are taken out of all places of their chains.
func TestLeaseTable(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var table leaseTable
	table.clock.begin(time.Now())
	model := map[netip.Addr]string{}
	for range 3000 {
		addr := testAddr(byte(rng.IntN(24)))
		if rng.IntN(3) == 0 {
			table.drop(addr)
			delete(model, addr)
		} else {
			l := Lease{Addr: addr, HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, byte(rng.IntN(4))}}
			if rng.IntN(8) == 0 {
				l.Declined = true
			}
			rec, err := table.record(l)
			require.NoError(t, err)
			_, err = table.put(rec, -1)
			require.NoError(t, err)
			model[addr] = l.Owner()
		}
		require.Equal(t, len(model), table.len())
		require.Len(t, table.all(), len(model))
		for owner := range byte(4) {
			want := []string{}
			name := string(net.HardwareAddr{2, 0, 0, 0, 0, owner})
			for a, o := range model {
				if o == name {
					want = append(want, a.String())
				}
			}
			got := []string{}
			leases, err := table.leasesOf(name)
			require.NoError(t, err)
			for _, l := range leases {
				got = append(got, l.Addr.String())
			}
			slices.Sort(want)
			slices.Sort(got)
			require.Equal(t, want, got)
		}
	}
}

// Records from a file are looked at before they are believed.
func TestRecordCheck(t *testing.T) {
	whole, err := newRecord(Lease{Addr: testAddr(1), HardwareAddr: macA, ID: "id", UUID: uuidText, Archs: iana.Archs{7}})
	require.NoError(t, err)
	v6, err := newRecord(Lease{Addr: netip.MustParseAddr("2001:db8::1"), HardwareAddr: macA})
	require.NoError(t, err)
	for _, rec := range []record{whole, v6, forgetRecord(whole), forgetRecord(v6)} {
		require.NoError(t, rec.check())
		require.ErrorIs(t, (rec + "x").check(), errRecord)
		for n := range rec {
			require.ErrorIs(t, rec[:n].check(), errRecord)
		}
		require.ErrorIs(t, (record([]byte{rec[0] | 64}) + rec[1:]).check(), errRecord, "a flag that is none")
	}
	require.Equal(t, testAddr(1), forgetRecord(whole).addr())
}

// No address is held for two machines, and none has two, whatever they do.
func TestOffers(t *testing.T) {
	var o offers
	a, b := testAddr(1), testAddr(2)
	const long = time.Hour
	require.Equal(t, a, o.hold(a, "x", long))
	require.Equal(t, netip.Addr{}, o.hold(a, "y", long), "x has it")
	require.Equal(t, a, o.hold(b, "x", long), "x has one")
	require.Equal(t, netip.Addr{}, o.addr("y"))
	require.False(t, o.heldUntil(a, "y", time.Now()).IsZero())
	require.True(t, o.heldUntil(a, "x", time.Now()).IsZero())
	require.True(t, o.heldUntil(b, "y", time.Now()).IsZero())

	o.take(a, "y", long)
	require.Equal(t, []netip.Addr{{}, a}, []netip.Addr{o.addr("x"), o.addr("y")})
	require.Equal(t, b, o.hold(b, "x", long))
	o.take(a, "x", long) // both give up what they had
	require.Equal(t, []netip.Addr{a, {}}, []netip.Addr{o.addr("x"), o.addr("y")})
	require.Equal(t, b, o.hold(b, "y", -1))
	require.Equal(t, netip.Addr{}, o.addr("y"), "it is over")
	require.Equal(t, b, o.hold(b, "z", -1), "what is over is anybody's")
	require.Equal(t, testAddr(3), o.hold(testAddr(3), "z", long), "and binds nobody")

	rng := rand.New(rand.NewPCG(3, 4))
	for range 5000 {
		addr, owner := testAddr(byte(rng.IntN(6))), fmt.Sprint(rng.IntN(6))
		d := []time.Duration{long, -1}[rng.IntN(2)]
		switch rng.IntN(4) {
		case 0, 1:
			o.hold(addr, owner, d)
		case 2:
			o.take(addr, owner, d)
		case 3:
			o.drop(owner)
		}
		require.Len(t, o.byOwner, len(o.byAddr))
		for owner, addr := range o.byOwner {
			require.Equal(t, owner, o.byAddr[addr].owner)
		}
	}
}
