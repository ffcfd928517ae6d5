package etcdstore

import (
	"encoding/json"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/iana"
	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/stretchr/testify/require"
)

// What a person sees in etcd.
func TestRecordIsReadable(t *testing.T) {
	r, err := newRecord(dhcp.Lease{
		Addr: netip.MustParseAddr("10.0.0.1"), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}, Hostname: "desk01",
		ClientHostname: "localhost", ClientID: []byte{1, 2}, UUID: "12345678-9abc-def0-0102-030405060708", Archs: iana.Archs{iana.EFI_X86_64},
	}, "dhcp1")
	require.NoError(t, err)
	r.Expires = "2026-01-02T03:04:05Z"
	r.Grants = []grant{{0x694d9c0a, 3600}}
	require.Equal(t, `{"mac":"02:00:00:00:00:01","expires":"2026-01-02T03:04:05Z","grants":[{"term":"694d9c0a","seconds":3600}],"server":"dhcp1",`+
		`"name":"desk01","client_name":"localhost","client_id":"0102","uuid":"12345678-9abc-def0-0102-030405060708","archs":[7]}`, encode(r))
	r.ID, r.Shared = "x", true
	for _, r := range []record{r, {Since: 1 << 40, Hostname: "x"}, {}, {IDHex: "ff", Declined: true, Forever: true, Grants: []grant{{-1, 0}, {1, maxSeconds}}}} {
		got, ok := scanRecord([]byte(encode(r)))
		require.True(t, ok)
		require.Equal(t, r, got)
	}
	require.Equal(t, `{"mac":"02:00:00:00:00:01","server":"dhcp1"}`, encode(newHeld("\x02\x00\x00\x00\x00\x01", "dhcp1")))
}

func TestOwners(t *testing.T) {
	for _, owner := range []string{"\x02\x00\x00\x00\x00\x01", "dock", "client-id=a\x00\x00\x00\x00\x00\x00", "client-id=\xff\xfe\x00\x00\x00\x00\x00", "x"} {
		got, err := parseHeld([]byte(encode(newHeld(owner, "s"))))
		require.NoError(t, err)
		require.Equal(t, owner, got)
		r, err := newRecord(dhcp.Lease{Addr: netip.MustParseAddr("10.0.0.1"), ID: owner}, "s")
		require.NoError(t, err)
		r.Forever = true
		_, l, err := parseRecord([]byte(encode(r)))
		require.NoError(t, err)
		require.Equal(t, owner, l.Owner())
	}
}

// A term lasts as long as what it is for, and an eighth longer at most.
func TestRoundTerm(t *testing.T) {
	different := map[int64]bool{}
	for s := int64(1); s < 1<<20; s += 1 + s/1000 {
		r := roundTerm(s)
		require.GreaterOrEqual(t, r, s)
		require.LessOrEqual(t, r, s+s/8)
		different[r] = true
	}
	require.Less(t, len(different), 180)
	require.GreaterOrEqual(t, roundTerm(maxSeconds), int64(maxSeconds))
}

// The grants that a machine may believe in outlive a shorter one.
func TestBelieved(t *testing.T) {
	c := newCache()
	for id := termID(1); id <= 5; id++ {
		c.setTerm(id, int64(id), true)
	}
	c.setTerm(2, 9, false)
	c.applied = 9
	e := &entry{grants: []grant{{1, 3600}, {2, 1800}, {3, 600}, {4, 60}}}
	require.Equal(t, []grant{{1, 3600}, {3, 600}}, c.believed(e, 60))
	require.Equal(t, []grant{{1, 3600}}, c.believed(e, 600))
	require.Empty(t, c.believed(e, 3600))
	require.Equal(t, []grant{{1, 3600}, {2, 1800}, {3, 600}}, c.believed(&entry{leaseMod: 10, grants: e.grants}, 60), "the watch may know of the second soon")
	require.Len(t, c.believed(&entry{grants: []grant{{1, 5}, {3, 4}, {4, 3}, {5, 2}}}, 1), maxTerms-1)
}

// Revisions order what comes from the watch and from transactions.
func TestCacheOrder(t *testing.T) {
	c := newCache()
	a := netip.MustParseAddr("10.0.0.1")
	value := func(mac, server string) []byte {
		return []byte(`{"mac":"` + mac + `","server":"` + server + `","expires":"2026-01-02T03:04:05Z"}`)
	}
	one, two := "\x02\x00\x00\x00\x00\x01", "\x02\x00\x00\x00\x00\x02"
	require.NoError(t, c.setLease(a, value("02:00:00:00:00:02", "s"), 20, 20, "s"))
	require.NoError(t, c.setLease(a, value("02:00:00:00:00:01", "t"), 10, 10, "s")) // late
	require.Equal(t, two, c.at(a, nil).owner)
	require.True(t, c.at(a, nil).own)
	require.Empty(t, c.leasesOf(one, time.Now()))
	require.NoError(t, c.setLease(a, value("02:00:00:00:00:01", "t"), 30, 30, "s"))
	require.Len(t, c.leasesOf(one, time.Now()), 1)
	require.Empty(t, c.leasesOf(two, time.Now()))
	require.False(t, c.at(a, nil).own)
	require.NoError(t, c.setOffer(a, []byte(`{"mac":"02:00:00:00:00:02"}`), 31, 31))
	require.NoError(t, c.setOffer(a, nil, 0, 35))
	require.NoError(t, c.setOffer(a, []byte(`{"mac":"02:00:00:00:00:02"}`), 31, 31)) // late
	require.Empty(t, c.offers)
	c.pruneAt = 0
	c.brought(34)
	require.Len(t, c.ahead, 1, "the offer's end is not among what was brought")
	require.NoError(t, c.setLease(a, nil, 0, 40, "s"))
	require.Empty(t, c.addrs)
	require.Empty(t, c.heads)
	c.pruneAt = 0
	c.brought(40)
	require.Empty(t, c.ahead)

	c.setTerm(7, 50, true)
	c.setTerm(7, 60, false)
	c.applied = 60
	c.setTerm(7, 50, true) // of the transaction that made it, told late
	require.False(t, c.exists(7))
}

// What was read anew is older than what this server did meanwhile.
func TestCacheAdopt(t *testing.T) {
	addr := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, n}) }
	value := []byte(`{"mac":"02:00:00:00:00:01","server":"s","forever":true}`)
	other := []byte(`{"mac":"02:00:00:00:00:02","server":"t","forever":true}`)
	held := []byte(`{"mac":"02:00:00:00:00:01","server":"s"}`)
	old, fresh := newCache(), newCache()
	old.brought(10)
	for n := byte(1); n <= 3; n++ {
		require.NoError(t, old.setLease(addr(n), other, 5, 10, "s"))
	}
	require.NoError(t, old.setOffer(addr(3), held, 5, 10))
	require.NoError(t, old.setLease(addr(1), value, 30, 30, "s"))
	require.NoError(t, old.setLease(addr(2), nil, 0, 31, "s"))
	require.NoError(t, old.setLease(addr(3), value, 12, 12, "s")) // others changed it since
	require.NoError(t, old.setOffer(addr(3), nil, 0, 32))
	require.NoError(t, old.setOffer(addr(4), held, 33, 33))
	old.setTerm(7, 34, true)
	old.setTerm(8, 11, true) // over since

	fresh.brought(20)
	for n := byte(1); n <= 3; n++ {
		require.NoError(t, fresh.setLease(addr(n), other, 15, 20, "s"))
	}
	require.NoError(t, fresh.setOffer(addr(3), held, 16, 20))
	fresh.adopt(&old)
	require.Equal(t, "\x02\x00\x00\x00\x00\x01", fresh.at(addr(1), nil).owner)
	require.Zero(t, fresh.at(addr(2), nil).leaseMod)
	require.EqualValues(t, 15, fresh.at(addr(3), nil).leaseMod)
	require.Zero(t, fresh.at(addr(3), nil).offer.mod)
	require.EqualValues(t, 33, fresh.at(addr(4), nil).offer.mod)
	require.True(t, fresh.exists(7))
	require.False(t, fresh.exists(8))
	require.NoError(t, fresh.setLease(addr(1), other, 25, 25, "s")) // the watch comes to that only now
	require.EqualValues(t, 30, fresh.at(addr(1), nil).leaseMod)
	require.NoError(t, fresh.setLease(addr(2), other, 26, 26, "s"))
	require.Zero(t, fresh.at(addr(2), nil).leaseMod)
}

// The leases of an owner are found whatever became of those around them.
func TestCacheOwners(t *testing.T) {
	c := newCache()
	rnd := rand.New(rand.NewPCG(1, 1))
	has := map[netip.Addr]string{}
	for rev := int64(1); rev < 5000; rev++ {
		addr, _ := netip.AddrFromSlice([]byte{10, 0, 0, byte(rnd.IntN(64))})
		if owner := rnd.IntN(8); owner == 0 {
			require.NoError(t, c.setLease(addr, nil, 0, rev, "s"))
			delete(has, addr)
		} else {
			has[addr] = string(net.HardwareAddr{2, 0, 0, 0, 0, byte(owner)})
			r, err := newRecord(dhcp.Lease{Addr: addr, HardwareAddr: net.HardwareAddr(has[addr])}, "s")
			require.NoError(t, err)
			r.Forever = true
			require.NoError(t, c.setLease(addr, []byte(encode(r)), rev, rev, "s"))
		}
		want, got := map[netip.Addr]string{}, map[netip.Addr]string{}
		for addr, owner := range has {
			if rev%7+1 == int64(owner[5]) {
				want[addr] = owner
			}
		}
		for _, l := range c.leasesOf(string(net.HardwareAddr{2, 0, 0, 0, 0, byte(rev%7 + 1)}), time.Now()) {
			got[l.Addr] = l.Owner()
		}
		require.Equal(t, want, got)
	}
	require.Len(t, c.addrs, len(has))
	require.LessOrEqual(t, len(c.slots), 65)
}

// They come in the order in which they were made, the same to all servers; one
// machine may have collected very many.
func TestCacheLeasesOf(t *testing.T) {
	const n = 20_000
	c := newCache()
	hw := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }
	for i := range n {
		i := i * 7919 % n
		r, err := newRecord(dhcp.Lease{Addr: at(i), HardwareAddr: hw}, "s")
		require.NoError(t, err)
		r.Forever, r.Since = true, int64(i/2+1)
		require.NoError(t, c.setLease(at(i), []byte(encode(r)), int64(n+i), int64(n+i), "s"))
	}
	for i, l := range c.leasesOf(string(hw), time.Now()) {
		require.Equal(t, at(i), l.Addr)
	}
}

func TestWitness(t *testing.T) {
	c := newCache()
	c.setTerm(1, 1, true)
	c.applied = 1
	for _, is := range []struct {
		leaseMod int64
		grants   []grant
		want     termID
	}{
		{1, nil, 0},
		{1, []grant{{1, 3600}, {2, 60}}, 1},
		{2, []grant{{1, 3600}, {2, 60}}, 1}, // 2 may be over
		{2, []grant{{3, 3600}, {2, 60}}, 2},
		{1, []grant{{3, 3600}, {2, 60}}, 0},
	} {
		require.Equal(t, is.want, c.witness(&entry{leaseMod: is.leaseMod, grants: is.grants}), "%+v", is)
	}
}

// A clock that is wrong moves the end of no lease out of reach.
func TestUntil(t *testing.T) {
	c := newCache()
	c.setTerm(1, 1, true)
	c.applied = 1
	now := time.Now()
	e := &entry{leaseMod: 1, grants: []grant{{1, 3600}}}
	for _, wrong := range []time.Duration{-24 * time.Hour, -time.Minute, 0, 30 * time.Minute, 24 * time.Hour} {
		e.expires = now.Add(time.Hour)
		left := time.Until(c.until(e, now.Add(wrong)))
		require.Positive(t, left, "the term exists: %v", wrong)
		require.LessOrEqual(t, left, time.Hour)
		e.grants = []grant{{2, 3600}}
		require.True(t, c.until(e, now.Add(wrong)).Before(now), "the term is over, and was when somebody looked at the clock: %v", wrong)
		e.grants = []grant{{1, 3600}}
	}
	require.True(t, c.until(&entry{leaseMod: 1, forever: true}, now).IsZero())
}

func FuzzParseRecord(f *testing.F) {
	f.Add([]byte(`{"mac":"02:00:00:00:00:01","expires":"2026-01-02T03:04:05Z","grants":[{"term":"694d9c0a","seconds":3600}],"server":"dhcp1","archs":[9]}`))
	f.Add([]byte(`{"id_hex":"ff","forever":true,"client_id":"01"}`))
	f.Add([]byte(`{"id":"x","id_hex":"00"}`))
	f.Add([]byte(`[]`))
	f.Add([]byte(`{"forever":true,"server":"a","shared":true,"since":123456789012,"name":"x"}`))
	f.Add([]byte(`{"forever":true,"since":-1}`))
	f.Add([]byte(`{"mac":"02:00:00:00:00:01","expires":"2026-01-02T03:04:05Z","server":"\u003c","server":"b"}`))
	f.Add([]byte(`{"declined":true,"forever":true,"grants":[{"term":"1","seconds":01}],"uuid":"12345678-9abc-def0-0102-03040506070-","archs":[]}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		c := newCache()
		a := netip.MustParseAddr("10.0.0.1")
		if r, ok := scanRecord(value); ok {
			var same record
			require.NoError(t, json.Unmarshal(value, &same))
			require.Equal(t, same, r)
		}
		if err := c.setLease(a, value, 1, 1, "s"); err != nil {
			e := c.at(a, nil)
			require.True(t, c.taken(&e), "what is not understood is out of use")
			return
		}
		e := c.at(a, nil)
		l := e.rec.lease()
		_, want, err := parseRecord(value)
		require.NoError(t, err)
		want.Addr = a
		require.Equal(t, want, l)
		require.Equal(t, l.Owner(), e.owner)
		r, err := newRecord(l, "s")
		if err != nil {
			return // longer than we write
		}
		r.Forever = true
		_, again, err := parseRecord([]byte(encode(r)))
		require.NoError(t, err)
		require.Equal(t, l.Owner(), again.Owner())
		_, _ = parseHeld(value)
	})
}
