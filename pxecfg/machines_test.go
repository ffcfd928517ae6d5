package pxecfg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var quiet = slog.New(slog.DiscardHandler)

func kernel(name string) *Config {
	return &Config{Entries: []Entry{{Label: name, Kernel: name + "/vmlinuz"}}}
}

func mac(n byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, n} }

func ip(n byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, n}) }

const (
	wireUUID = "44454c4c-4200-1035-8052-b4c04f4d4e31"
	dmiUUID  = "4c4c4544-0042-3510-8052-b4c04f4d4e31"
)

func TestMachinesOrder(t *testing.T) {
	m := &Machines{Logger: quiet, List: []Machine{
		{IP: ip(1), Source: kernel("ip")},
		{UUID: dmiUUID, Source: kernel("uuid")},
		{MAC: mac(1), Source: kernel("mac")},
		{MAC: mac(1), Source: kernel("second")},
	}}
	label := func(c Client) string {
		cfg, err := m.Config(t.Context(), c)
		require.NoError(t, err)
		return cfg.Entries[0].Label
	}
	require.Equal(t, "mac", label(Client{MAC: mac(1), UUID: wireUUID, IP: ip(1)}))
	require.Equal(t, "uuid", label(Client{MAC: mac(2), UUID: wireUUID, IP: ip(1)}))
	require.Equal(t, "uuid", label(Client{UUID: dmiUUID}))
	require.Equal(t, "ip", label(Client{MAC: mac(2), IP: ip(1)}))
	require.Equal(t, "ip", label(Client{IP: netip.AddrFrom16(ip(1).As16())}))
	require.Equal(t, mac(1), m.Find(Client{MAC: mac(1), IP: ip(1)}).MAC)
	require.Nil(t, m.Find(Client{MAC: mac(3)}))
	require.Empty(t, m.Seen(), "to look is no sighting")
	for _, c := range []Client{{}, {MAC: mac(3)}, {UUID: "x"}, {IP: ip(9)}, {Peer: ip(1)}} {
		_, err := m.Config(t.Context(), c)
		require.ErrorIs(t, err, fs.ErrNotExist, "%v", c)
	}
}

func TestMachinesUnknown(t *testing.T) {
	disk := LocalDisk()
	m := &Machines{Logger: quiet, Unknown: disk}
	cfg, err := m.Config(t.Context(), Client{MAC: mac(1)})
	require.NoError(t, err)
	require.True(t, cfg.Fallback)
	require.True(t, cfg.Entries[0].LocalBoot)
	require.False(t, disk.Fallback, "the caller's Config is not written to")
}

func TestMachinesValidate(t *testing.T) {
	require.NoError(t, (&Machines{List: []Machine{{MAC: mac(1), UUID: wireUUID, IP: ip(1)}, {MAC: mac(2)}}}).Validate())
	for reason, list := range map[string][]Machine{
		"no hardware address": {{}},
		"8-4-4-4-12":          {{UUID: "x"}},
		"same UUID":           {{UUID: wireUUID}, {MAC: mac(1)}, {UUID: dmiUUID}},
		"1 and 2 have the same hardware address 02:": {{MAC: mac(1)}, {MAC: mac(1)}},
		"same address 192.0.2.1":                     {{IP: ip(1)}, {IP: netip.AddrFrom16(ip(1).As16())}},
	} {
		err := (&Machines{List: list}).Validate()
		require.ErrorIs(t, err, fs.ErrInvalid)
		require.ErrorContains(t, err, reason)
	}
}

func TestSeen(t *testing.T) {
	m := &Machines{Logger: quiet, MaxSeen: 2, List: []Machine{{MAC: mac(9), Source: kernel("k")}}}
	ask := func(c Client) { _, _ = m.Config(t.Context(), c) }
	// One machine without a lease, name by name.
	ask(Client{UUID: wireUUID, Peer: ip(1)})
	ask(Client{MAC: mac(1), Peer: ip(1)})
	ask(Client{IP: ip(1)})
	seen := m.Seen()
	require.Len(t, seen, 1)
	require.Equal(t, Client{UUID: wireUUID, MAC: mac(1), IP: ip(1)}, seen[0].Client)
	require.Equal(t, 3, seen[0].Count)
	require.False(t, seen[0].Last.Before(seen[0].First))

	// The address goes on to another machine.
	ask(Client{MAC: mac(2), IP: ip(1)})
	require.Len(t, m.Seen(), 2)
	require.Equal(t, mac(2), m.Seen()[0].Client.MAC)
	// The one that was silent for longest goes.
	ask(Client{MAC: mac(3), IP: ip(3)})
	require.Len(t, m.Seen(), 2)
	require.Equal(t, mac(3), m.Seen()[0].Client.MAC)
	require.Equal(t, mac(2), m.Seen()[1].Client.MAC)
	// A machine that is known after all, at its second name.
	ask(Client{UUID: dmiUUID, Peer: ip(4)})
	require.Equal(t, ip(4), m.Seen()[0].Client.IP)
	ask(Client{MAC: mac(9), Peer: ip(4)})
	require.Len(t, m.Seen(), 1)

	ask(Client{})
	require.Len(t, m.Seen(), 1, "nothing to know it by")

	m.MaxSeen = -1
	ask(Client{MAC: mac(7)})
	require.Len(t, m.Seen(), 1)
}

// A warning for each unknown hardware address, and none on the way to a known one.
func TestUnknownWarning(t *testing.T) {
	var log bytes.Buffer
	m := &Machines{Logger: slog.New(slog.NewTextHandler(&log, nil)), List: []Machine{{MAC: mac(9), Source: kernel("k")}}}
	ask := func(c Client) { _, _ = m.Config(t.Context(), c) }
	ask(Client{UUID: wireUUID, Peer: ip(1)})
	ask(Client{MAC: mac(9), Peer: ip(1)})
	require.Empty(t, log.String())
	for range 2 {
		ask(Client{UUID: wireUUID, Peer: ip(2)})
		ask(Client{MAC: mac(1), Peer: ip(2)})
	}
	require.Equal(t, 1, strings.Count(log.String(), "unknown machine"))
	require.Contains(t, log.String(), "mac=02:00:00:00:00:01")
}

// TestSightingsIndex: the maps never outgrow the list, whatever comes.
func TestSightingsIndex(t *testing.T) {
	var s sightings
	for i := range 5000 {
		c := Client{}
		if i%3 != 0 {
			c.MAC = mac(byte(i * 7))
		}
		if i%5 != 0 {
			c.UUID = fmt.Sprintf("44454c4c-4200-1035-8052-b4c04f4d4e%02x", byte(i*3))
		}
		if i%2 != 0 {
			c.IP = ip(byte(i * 11))
		}
		s.add(c, time.Unix(int64(i), 0), 20)
		if i%13 == 0 {
			s.forget(c)
		}
		require.LessOrEqual(t, s.order.Len(), 20)
		require.LessOrEqual(t, len(s.byMAC), s.order.Len())
		require.LessOrEqual(t, len(s.byUUID), s.order.Len())
		require.LessOrEqual(t, len(s.byIP), s.order.Len())
	}
	require.NotEmpty(t, s.list())
}

func TestFirst(t *testing.T) {
	none := SourceFunc(func(context.Context, Client) (*Config, error) { return nil, fs.ErrNotExist })
	null := SourceFunc(func(context.Context, Client) (*Config, error) { return nil, nil })
	down := errors.New("down")
	fails := SourceFunc(func(context.Context, Client) (*Config, error) { return nil, down })
	fallback, other := LocalDisk(), LocalDisk()
	fallback.Fallback, other.Fallback = true, true
	k := kernel("k")
	for i, tt := range []struct {
		sources []Source
		want    *Config
		err     error
	}{
		{nil, nil, fs.ErrNotExist},
		{[]Source{none, null, nil}, nil, fs.ErrNotExist},
		{[]Source{none, k, fails}, k, nil},
		{[]Source{fails, k}, nil, down},
		{[]Source{fallback, k}, k, nil},
		{[]Source{null, fallback, other}, fallback, nil},
	} {
		cfg, err := First(tt.sources...).Config(t.Context(), Client{})
		require.ErrorIs(t, err, tt.err, i)
		require.Same(t, tt.want, cfg, i)
	}
}

func TestExplain(t *testing.T) {
	m := &Machines{Logger: quiet, Unknown: LocalDisk(), List: []Machine{{MAC: mac(1), Source: kernel("deb")}, {IP: ip(2), Source: kernel("ip")}}}
	hits := func(c Client) (hit string, steps []Step) {
		steps = Explain(t.Context(), m, c)
		for _, s := range steps[:len(steps)-1] {
			require.False(t, s.Hit)
			require.NotEmpty(t, s.Why)
		}
		require.True(t, steps[len(steps)-1].Hit)
		return steps[len(steps)-1].Name + ": " + steps[len(steps)-1].Why, steps
	}
	hit, steps := hits(Client{UUID: wireUUID, MAC: mac(1), IP: ip(2)})
	require.Equal(t, `pxelinux.cfg/01-02-00-00-00-00-01: entry "deb": kernel deb/vmlinuz`, hit)
	require.Len(t, steps, 2)
	hit, _ = hits(Client{MAC: mac(2), IP: ip(2)})
	require.Equal(t, `pxelinux.cfg/C0000202: entry "ip": kernel ip/vmlinuz`, hit)
	hit, steps = hits(Client{MAC: mac(2), IP: ip(3), ConfigFile: "conf"})
	require.Equal(t, `pxelinux.cfg/default: fallback for unknown machines: entry "local": the local disk`, hit)
	require.Len(t, steps, 11)
	require.Empty(t, m.Seen(), "a look is not a sighting")

	m.Unknown = SourceFunc(func(context.Context, Client) (*Config, error) { return nil, errors.New("down") })
	steps = Explain(t.Context(), m, Client{MAC: mac(3)})
	require.Len(t, steps, 2)
	require.Contains(t, steps[1].Why, "down")
}

func BenchmarkMachines(b *testing.B) {
	m := &Machines{Logger: quiet}
	for i := range 10000 {
		m.List = append(m.List, Machine{MAC: net.HardwareAddr{2, 0, 0, 0, byte(i >> 8), byte(i)}, Source: LocalDisk()})
	}
	c := Client{MAC: net.HardwareAddr{2, 0, 0, 0, 39, 15}, UUID: wireUUID, IP: ip(1)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Config(context.Background(), c); err != nil {
			b.Fatal(err)
		}
	}
}
