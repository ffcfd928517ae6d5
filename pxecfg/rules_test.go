package pxecfg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"
)

// boots is a profile with one kernel.
func boots(name string) Profile { return Profile{Config: *kernel(name)} }

// what returns the kernel's first directory, or the error.
func what(t testing.TB, s Source, c Client) string {
	t.Helper()
	cfg, err := s.Config(t.Context(), c)
	if errors.Is(err, fs.ErrNotExist) {
		return "nothing"
	}
	require.NoError(t, err)
	if cfg.Entries[0].LocalBoot {
		return "disk"
	}
	name, _, _ := strings.Cut(cfg.Entries[0].Kernel, "/")
	return name
}

// testRules has a rule of each kind, the least telling first.
func testRules() *Rules {
	net16, net24 := netip.MustParsePrefix("192.0.0.0/16"), netip.MustParsePrefix("192.0.2.0/24")
	return &Rules{Logger: quiet, MostSpecific: true, List: []Rule{
		{Match: Match{Arch: []iana.Arch{iana.EFI_X86_64}}, Profile: boots("efi")},
		{Match: Match{Hostname: []string{"node-*"}}, Profile: boots("glob")},
		{Match: Match{Hostname: []string{"node-1?"}}, Profile: boots("longer-glob")},
		{Match: Match{Hostname: []string{"*-lab"}}, Profile: boots("suffix")},
		{Match: Match{Hostname: []string{"NODE-12"}}, Profile: boots("host")},
		{Match: Match{Network: []netip.Prefix{net16}}, Profile: boots("wide")},
		{Match: Match{Network: []netip.Prefix{net24}}, Profile: boots("net")},
		{Match: Match{Range: []IPRange{{ip(100), ip(110)}}}, Profile: boots("range")},
		{Match: Match{Network: []netip.Prefix{netip.PrefixFrom(ip(105), 32)}}, Profile: boots("address")},
		{Match: Match{UUID: []string{SwapUUID(wireUUID)}}, Profile: boots("uuid")},
		{Match: Match{MACPrefix: []net.HardwareAddr{mac(0)[:3]}}, Profile: boots("vendor")},
		{Match: Match{MACPrefix: []net.HardwareAddr{mac(0)[:5]}}, Profile: boots("batch")},
		{Match: Match{MAC: []net.HardwareAddr{mac(1), mac(2)}}, Profile: boots("mac")},
		{Match: Match{MAC: []net.HardwareAddr{mac(2)}, Network: []netip.Prefix{net24}}, Profile: boots("mac-and-net")},
		{Match: Match{Network: []netip.Prefix{netip.MustParsePrefix("2001:db8::/32")}}, Profile: boots("six")},
	}}
}

func TestRulesMostSpecific(t *testing.T) {
	r := testRules()
	require.NoError(t, r.Validate())
	efi := func(c Client) Client { c.Arch, c.ArchKnown = iana.EFI_X86_64, true; return c }
	for want, clients := range map[string][]Client{
		"efi":         {efi(Client{}), efi(Client{IP: netip.MustParseAddr("10.0.0.1")})},
		"glob":        {{Hostname: "node-2"}, efi(Client{Hostname: "Node-222"})},
		"longer-glob": {{Hostname: "node-11"}},
		"suffix":      {{Hostname: "x-lab"}},
		"host":        {{Hostname: "node-12"}, {Hostname: "Node-12"}},
		"wide":        {{IP: netip.MustParseAddr("192.0.3.1")}},
		"net":         {{IP: ip(1)}, {IP: netip.MustParseAddr("::ffff:192.0.2.1")}, {IP: ip(99), Hostname: "node-12"}, {IP: ip(111)}},
		"range":       {{IP: ip(100)}, {IP: ip(110)}},
		"address":     {{IP: ip(105)}},
		"uuid":        {{UUID: wireUUID, IP: ip(105)}, {UUID: SwapUUID(wireUUID)}},
		"vendor":      {{MAC: net.HardwareAddr{2, 0, 0, 9, 9, 9}, UUID: wireUUID}},
		"batch":       {{MAC: mac(9)}},
		"mac":         {{MAC: mac(1), IP: ip(105), UUID: wireUUID}, {MAC: mac(2)}},
		"mac-and-net": {{MAC: mac(2), IP: ip(1)}},
		"six":         {{IP: netip.MustParseAddr("2001:db8::7")}},
		"nothing":     {{}, {Hostname: "other"}, {MAC: net.HardwareAddr{3, 0, 0, 0, 0, 1}}, {Peer: ip(1)}},
	} {
		for _, c := range clients {
			require.Equal(t, want, what(t, r, c), "%+v", c)
		}
	}
}

func TestRulesFirstMatch(t *testing.T) {
	r := testRules()
	r.MostSpecific = false
	require.Equal(t, "wide", what(t, r, Client{IP: ip(105), MAC: mac(1)}))
	require.Equal(t, "uuid", what(t, r, Client{UUID: wireUUID, MAC: mac(1)}))
	slices.Reverse(r.List)
	r = &Rules{List: r.List, Logger: quiet}
	require.Equal(t, "mac-and-net", what(t, r, Client{IP: ip(105), MAC: mac(2)}))
	require.Equal(t, "address", what(t, r, Client{IP: ip(105)}))
}

// naive is what find should find.
func (x *ruleIndex) naive(c Client, specific bool) *compiledRule {
	s := search{x: x, c: &c, ip: c.IP.Unmap(), host: lower(c.Hostname), specific: specific, best: -1}
	for n := range x.rules {
		k := *x.rules[n]
		k.by, k.index = byAll, matchIndex{hosts: k.index.hosts} // nothing is known beforehand
		got, ok := s.fits(&k)
		if ok && (s.best < 0 || specific && slices.Compare(got[:], s.score[:]) > 0) {
			s.best, s.score = int32(n), got
		}
	}
	if s.best < 0 {
		return nil
	}
	return x.rules[s.best]
}

// TestRulesIndex: the index changes the time only.
func TestRulesIndex(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	pick := func(n int) bool { return rnd.IntN(n) == 0 }
	hosts := []string{"a*", "*a", "?b", "ab", "b*a", "[ab]b", "*", `\a*`, "*b*", "aa", `*\b`, "a?b"}
	names := []string{"", "a", "b", "ab", "ba", "aa", "bb", "aab", "abb", "bba"}
	uuids := []string{wireUUID, SwapUUID(wireUUID), "00000000-0000-1000-0000-000000000001"}
	addr := func() netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(rnd.IntN(3)), byte(rnd.IntN(256))}) }
	hits := 0
	for range 60 {
		r := &Rules{}
		for range 1 + rnd.IntN(40) {
			var m Match
			many := 3
			if pick(4) {
				many = 8 * fewValues // of one kind or two, in an index of their own
			}
			kinds := rnd.Perm(7)
			for range rnd.IntN(many) {
				kind := rnd.IntN(7)
				if many > 3 {
					kind = kinds[rnd.IntN(2)]
				}
				switch kind {
				case 0:
					m.MAC = append(m.MAC, mac(byte(rnd.IntN(3))))
				case 1:
					m.MACPrefix = append(m.MACPrefix, mac(byte(rnd.IntN(3)))[:1+rnd.IntN(6)])
				case 2:
					m.UUID = append(m.UUID, uuids[rnd.IntN(3)])
				case 3:
					p, err := addr().Prefix(rnd.IntN(33))
					require.NoError(t, err)
					m.Network = append(m.Network, p)
				case 4:
					a, b := addr(), addr()
					if b.Less(a) {
						a, b = b, a
					}
					m.Range = append(m.Range, IPRange{a, b})
				case 5:
					m.Hostname = append(m.Hostname, hosts[rnd.IntN(len(hosts))])
				case 6:
					m.Arch = append(m.Arch, iana.Arch(rnd.IntN(2)))
				}
			}
			r.List = append(r.List, Rule{Match: m, Source: Deny()})
		}
		require.NoError(t, r.Validate())
		for range 200 {
			c := Client{Hostname: names[rnd.IntN(len(names))]}
			if pick(2) {
				c.MAC = mac(byte(rnd.IntN(4)))
			}
			if pick(2) {
				c.UUID = uuids[rnd.IntN(3)]
			}
			if pick(2) {
				c.IP = addr()
			}
			c.Arch, c.ArchKnown = iana.Arch(rnd.IntN(2)), pick(2)
			for _, specific := range []bool{false, true} {
				want, got := r.index.naive(c, specific), r.index.find(c, specific)
				require.Same(t, want, got, "%v %+v", specific, c)
				if got != nil {
					hits++
				}
			}
		}
	}
	require.Greater(t, hits, 1000)
}

// TestRulesInCommon: what many rules have in common is not what they are found
// by, if there is anything else.
func TestRulesInCommon(t *testing.T) {
	wide := netip.MustParsePrefix("10.0.0.0/8")
	r := &Rules{}
	for i := range 100 {
		r.List = append(r.List, Rule{Source: Deny(), Match: Match{
			Network: []netip.Prefix{wide}, MACPrefix: []net.HardwareAddr{{2}}, Arch: []iana.Arch{7},
			Hostname: []string{"*x*", fmt.Sprintf("rack%d-*", i)},
		}}, Rule{Source: Deny(), Match: Match{
			Network: []netip.Prefix{wide}, MACPrefix: []net.HardwareAddr{{2}}, Hostname: []string{fmt.Sprintf("*-rack%d", i)},
		}})
	}
	require.NoError(t, r.Validate())
	require.Empty(t, r.index.all, "a pattern that finds nothing is the last resort")
	require.Len(t, r.index.host.end.rules, 100)
	require.Len(t, r.index.arch[7], 100, "which fewer have than the network")
	require.Empty(t, r.index.net)
	require.Empty(t, r.index.macPrefix.rules)
}

func FuzzIPRange(f *testing.F) {
	f.Add([]byte{10, 0, 0, 1}, []byte{10, 0, 0, 254}, []byte{10, 0, 0, 7})
	f.Add([]byte{0, 0, 0, 0}, []byte{255, 255, 255, 255}, []byte{1, 2, 3, 4})
	f.Add(make([]byte, 16), []byte(strings.Repeat("\xff", 16)), make([]byte, 16))
	f.Add([]byte("\x20\x01\x0d\xb8aaaaaaaaaaaa"), []byte("\x20\x01\x0d\xb9aaaaaaaaaaaa"), []byte("\x20\x01\x0d\xb8zzzzzzzzzzzz"))
	f.Fuzz(func(t *testing.T, first, last, x []byte) {
		var r IPRange
		var ok1, ok2, ok3 bool
		var a netip.Addr
		r.First, ok1 = netip.AddrFromSlice(first)
		r.Last, ok2 = netip.AddrFromSlice(last)
		a, ok3 = netip.AddrFromSlice(x)
		if m := (Match{Range: []IPRange{r}}); !ok1 || !ok2 || !ok3 || m.validate() != nil {
			return
		}
		n, in := 0, false
		for p := range r.prefixes {
			n++
			require.Equal(t, p, p.Masked())
			require.True(t, r.Contains(p.Addr()) && r.Contains(lastAddr(p)))
			in = in || p.Contains(a)
		}
		require.LessOrEqual(t, n, 2*r.First.BitLen())
		require.Equal(t, r.Contains(a), in)
		require.True(t, r.size() >= 0 && r.size() <= r.First.BitLen())
	})
}

func TestRangeSize(t *testing.T) {
	for want, r := range map[int]IPRange{
		32: {ip(7), ip(7)}, 31: {ip(7), ip(8)}, 30: {ip(0), ip(3)}, 29: {ip(0), ip(4)}, 24: {ip(0), ip(255)},
		0:   {netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("255.255.255.255")},
		128: {netip.MustParseAddr("::1"), netip.MustParseAddr("::1")},
	} {
		require.Equal(t, want, r.size(), r)
	}
}

func TestRulesUnknown(t *testing.T) {
	r := &Rules{Logger: quiet, List: []Rule{
		{Match: Match{MAC: []net.HardwareAddr{mac(1)}}, Profile: boots("one")},
		{Match: Match{MAC: []net.HardwareAddr{mac(2)}}, Source: Deny()},
		{Match: Match{Arch: []iana.Arch{iana.EFI_X86_64}}, Source: kernel("efi")},
	}}
	require.Equal(t, "nothing", what(t, r, Client{MAC: mac(2)}))
	require.Empty(t, r.Seen(), "denied is not unknown")
	require.Equal(t, "nothing", what(t, r, Client{MAC: mac(3), IP: ip(3)}))
	seen := r.Seen()
	require.Len(t, seen, 1)
	require.Equal(t, mac(3), seen[0].Client.MAC)
	r.Unknown = LocalDisk()
	cfg, err := r.Config(t.Context(), Client{MAC: mac(3)})
	require.NoError(t, err)
	require.True(t, cfg.Fallback && cfg.Entries[0].LocalBoot)
	require.Equal(t, 2, r.Seen()[0].Count)
	for c, want := range map[*Client]bool{{MAC: mac(1)}: false, {Arch: iana.EFI_X86_64, ArchKnown: true}: true} {
		cfg, err = r.Config(t.Context(), *c)
		require.NoError(t, err)
		require.Equal(t, want, cfg.Fallback, "a rule for an architecture must not hide a better name")
	}
}

func TestProfiles(t *testing.T) {
	root := NBDInitramfsTools{Server: rootServer4, Export: "debian12", ReadOnly: true, Overlay: "tmpfs"}
	r := &Rules{
		Logger: quiet,
		Profiles: map[string]Profile{
			"base":   {Config: Config{Title: "Boot", Entries: []Entry{{Label: "local", LocalBoot: true}}}, Args: []string{"quiet", "console=tty0"}},
			"serial": {Inherit: []string{"base"}, Args: []string{"console=ttyS0,115200n8"}, Drop: []string{"quiet"}},
			"debian": {Inherit: []string{"base"}, Config: Config{Default: "debian", Entries: []Entry{
				{Label: "debian", Kernel: "debian/vmlinuz", Initrd: []string{"debian/initrd.img"}, Root: root, Args: []string{"splash", "panic=5"}},
			}}},
		},
		List: []Rule{
			{Name: "lab", Match: Match{Network: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}, Profile: Profile{
				Inherit: []string{"debian", "serial"},
				Drop:    []string{"panic="},
				Config:  Config{Entries: []Entry{{Label: "debian", Title: "Debian in the lab", Args: []string{"panic=30"}}}},
			}},
			{Name: "node", Match: Match{MACPrefix: []net.HardwareAddr{mac(0)[:5]}}, Profile: Profile{Inherit: []string{"debian"}},
				Source: SourceFunc(func(_ context.Context, c Client) (*Config, error) {
					if c.MAC[5] == 9 {
						return nil, fs.ErrNotExist
					}
					return &Config{Entries: []Entry{{Label: "debian", Args: []string{fmt.Sprintf("node=%d", c.MAC[5])}}}}, nil
				})},
			{Name: "disk", Match: Match{Hostname: []string{"d"}}, Profile: Profile{Inherit: []string{"debian"}, Config: Config{Entries: []Entry{{Label: "debian", LocalBoot: true}}}}},
		},
	}
	require.NoError(t, r.Validate())
	cfg, err := r.Config(t.Context(), Client{IP: ip(1)})
	require.NoError(t, err)
	require.Equal(t, "Boot", cfg.Title)
	require.Equal(t, "debian", cfg.Default)
	require.Equal(t, []string{"local", "debian"}, []string{cfg.Entries[0].Label, cfg.Entries[1].Label})
	require.Equal(t, []string{"splash", "panic=30", "console=tty0", "console=ttyS0,115200n8"}, cfg.Entries[1].Args)
	require.Equal(t, "Debian in the lab", cfg.Entries[1].Title)
	require.Empty(t, cfg.Entries[0].Args)

	var wg sync.WaitGroup
	for n := range byte(8) {
		wg.Go(func() {
			for range 100 {
				cfg, err := r.Config(context.Background(), Client{MAC: mac(n)})
				if err != nil || !slices.Equal(cfg.Entries[1].Args, []string{"splash", "panic=5", fmt.Sprintf("node=%d", n), "quiet", "console=tty0"}) {
					t.Errorf("%d: %v %v", n, err, cfg)
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, "nothing", what(t, r, Client{MAC: mac(9)}))
	cfg, err = r.Config(t.Context(), Client{Hostname: "d"})
	require.NoError(t, err)
	require.NoError(t, cfg.Validate())
	require.Equal(t, Entry{Label: "debian", LocalBoot: true}, cfg.Entries[1])

	steps := Explain(t.Context(), r, Client{IP: ip(1)})
	require.Len(t, steps, 1)
	require.Equal(t, `rule "lab"`, steps[0].Rule)
	from := make(map[string]string)
	for _, v := range steps[0].Values {
		from[v.Entry+" "+v.Field+" "+v.Value] = v.From
	}
	require.Equal(t, map[string]string{
		" title Boot":                     `profile "base"`,
		" default debian":                 `profile "debian"`,
		"local localboot true":            `profile "base"`,
		"debian title Debian in the lab":  `rule "lab"`,
		"debian kernel debian/vmlinuz":    `profile "debian"`,
		"debian initrd debian/initrd.img": `profile "debian"`,
		"debian root root=/dev/nbd0 nbdroot=192.0.2.1:10809/debian12 ip=dhcp ro overlayroot=tmpfs": `profile "debian"`,
		"debian arg splash":                 `profile "debian"`,
		"debian arg panic=30":               `rule "lab"`,
		"debian arg console=tty0":           `profile "base"`,
		"debian arg console=ttyS0,115200n8": `profile "serial"`,
	}, from)
	steps = Explain(t.Context(), r, Client{MAC: mac(3)})
	require.Contains(t, steps[0].Values, Value{"debian", "arg", "node=3", `the source of rule "node"`})
	require.Empty(t, r.Seen(), "a look is not a sighting")
}

func TestRulesRefuse(t *testing.T) {
	all := Match{}
	for reason, r := range map[string]*Rules{
		`rule 1 boots nothing`:        {List: []Rule{{}}},
		`rule "x": there is no profi`: {List: []Rule{{Name: "x", Match: all, Profile: Profile{Inherit: []string{"y"}}}}},
		`which there is not`:          {Profiles: map[string]Profile{"a": {Inherit: []string{"b"}}}},
		`inherits from itself`:        {Profiles: map[string]Profile{"a": {Inherit: []string{"b"}}, "b": {Inherit: []string{"a"}}}},
		`without entries`:             {List: []Rule{{Profile: Profile{Args: []string{"x"}}}}},
		`exactly one of`:              {List: []Rule{{Profile: Profile{Config: Config{Entries: []Entry{{Label: "x"}}}}}}},
		`write 192.0.2.0/24`:          {List: []Rule{{Match: Match{Network: []netip.Prefix{netip.PrefixFrom(ip(1), 24)}}, Source: Deny()}}},
		`network invalid Prefix`:      {List: []Rule{{Match: Match{Network: []netip.Prefix{{}}}, Source: Deny()}}},
		`lower address first`:         {List: []Rule{{Match: Match{Range: []IPRange{{ip(2), ip(1)}}}, Source: Deny()}}},
		`both of one IP version`:      {List: []Rule{{Match: Match{Range: []IPRange{{ip(2), rootServer6}}}, Source: Deny()}}},
		`host name pattern "[a"`:      {List: []Rule{{Match: Match{Hostname: []string{"[a"}}, Source: Deny()}}},
		`host name pattern ""`:        {List: []Rule{{Match: Match{Hostname: []string{""}}, Source: Deny()}}},
		`UUID "x"`:                    {List: []Rule{{Match: Match{UUID: []string{"x"}}, Source: Deny()}}},
		`empty hardware address`:      {List: []Rule{{Match: Match{MAC: []net.HardwareAddr{{}}}, Source: Deny()}}},
		`empty prefix`:                {List: []Rule{{Match: Match{MACPrefix: []net.HardwareAddr{nil}}, Source: Deny()}}},
	} {
		err := r.Validate()
		require.ErrorIs(t, err, fs.ErrInvalid, reason)
		require.ErrorContains(t, err, reason)
		_, err = r.Config(t.Context(), Client{MAC: mac(1)})
		require.ErrorContains(t, err, reason)
	}
}

// Through First and Machines, Explain names those that decided.
func TestExplainComposed(t *testing.T) {
	r := &Rules{Logger: quiet, List: []Rule{{Name: "all", Match: Match{MACPrefix: []net.HardwareAddr{{2}}}, Profile: boots("all")}}}
	m := &Machines{Logger: quiet, List: []Machine{{MAC: mac(1), Source: r}}}
	src := First(&Rules{Logger: quiet, Unknown: LocalDisk(), List: []Rule{{Match: Match{Hostname: []string{"never"}}, Source: Deny()}}}, m)
	steps := Explain(t.Context(), src, Client{MAC: mac(1)})
	require.Equal(t, `machine 02:00:00:00:00:01, rule "all"`, steps[len(steps)-1].Rule)
	steps = Explain(t.Context(), src, Client{IP: ip(1)})
	last := steps[len(steps)-1]
	require.Equal(t, "unknown machines", last.Rule)
	require.Equal(t, []Value{{"local", "title", "Boot from the local disk", "unknown machines"}, {"local", "localboot", "true", "unknown machines"}}, last.Values)
}

func benchRules(machines, rules int) *Rules {
	r := &Rules{Logger: quiet, MostSpecific: true, MaxSeen: -1, Unknown: LocalDisk()}
	shared := Profile{Config: *kernel("x")}
	for i := range machines {
		r.List = append(r.List, Rule{Match: Match{MAC: []net.HardwareAddr{{2, 1, 0, byte(i >> 16), byte(i >> 8), byte(i)}}}, Profile: shared})
	}
	for i := range rules {
		var m Match
		switch i % 6 {
		case 0:
			m.MACPrefix = []net.HardwareAddr{{2, 2, byte(i >> 8), byte(i)}}
		case 1:
			m.Network = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)}
		case 2:
			m.Range = []IPRange{{netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 10}), netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 99})}}
		case 3:
			m.Hostname = []string{fmt.Sprintf("rack%d-*", i)}
		case 4:
			m.Hostname = []string{fmt.Sprintf("*-site%d", i)}
		case 5:
			m.Hostname, m.Arch = []string{fmt.Sprintf("host%d", i)}, []iana.Arch{iana.EFI_X86_64}
		}
		r.List = append(r.List, Rule{Match: m, Profile: shared})
	}
	return r
}

// BenchmarkRules is one decision among machines and rules.
func BenchmarkRules(b *testing.B) {
	for _, n := range []struct{ machines, rules int }{{100, 10}, {1000, 100}, {10000, 1000}, {100000, 1000}, {10000, 10000}} {
		r := benchRules(n.machines, n.rules)
		require.NoError(b, r.Validate())
		for name, c := range map[string]Client{
			"known":   {MAC: net.HardwareAddr{2, 1, 0, 0, 0, 99}, IP: netip.MustParseAddr("10.0.7.20"), Hostname: "rack3-site9", UUID: wireUUID, ArchKnown: true},
			"rule":    {MAC: net.HardwareAddr{2, 9, 0, 0, 0, 99}, IP: netip.MustParseAddr("10.0.8.20"), Hostname: "rack3-site4"},
			"unknown": {MAC: net.HardwareAddr{2, 9, 0, 0, 0, 99}, IP: netip.MustParseAddr("172.16.0.1"), Hostname: "x", UUID: wireUUID, ArchKnown: true},
		} {
			b.Run(fmt.Sprintf("%d+%d/%s", n.machines, n.rules, name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := r.Config(b.Context(), c); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkRulesInCommon: rules that have one kind of value in common are told
// apart by another.
func BenchmarkRulesInCommon(b *testing.B) {
	wide := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	for _, n := range []int{10, 1000, 10000} {
		var hosts, networks Rules
		for i := range n {
			rack := []string{fmt.Sprintf("rack%d-*", i)}
			hosts.List = append(hosts.List, Rule{Match: Match{Network: wide, MACPrefix: []net.HardwareAddr{{2}}, Hostname: rack}, Source: LocalDisk()})
			own := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
			networks.List = append(networks.List, Rule{Match: Match{MACPrefix: []net.HardwareAddr{{2}}, Network: []netip.Prefix{own}, Hostname: []string{"*"}}, Source: LocalDisk()})
		}
		last := n - 1
		c := Client{MAC: mac(1), IP: netip.AddrFrom4([4]byte{10, byte(last >> 8), byte(last), 7}), Hostname: fmt.Sprintf("rack%d-7", last)}
		for name, r := range map[string]*Rules{"host": &hosts, "network": &networks} {
			require.NoError(b, r.Validate())
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := r.Config(b.Context(), c); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkRuleOfMany is a rule with a long list of one kind: its length does
// not count either.
func BenchmarkRuleOfMany(b *testing.B) {
	for _, n := range []int{10, 1000, 100000} {
		last := n - 1
		addr := func(i int) netip.Addr {
			return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		}
		var networks, ranges, hosts, patterns, vendors Match
		for i := range n {
			networks.Network = append(networks.Network, netip.PrefixFrom(addr(i), 32))
			ranges.Range = append(ranges.Range, IPRange{addr(i), addr(i)})
			hosts.Hostname = append(hosts.Hostname, fmt.Sprintf("host%d", i))
			patterns.Hostname = append(patterns.Hostname, fmt.Sprintf("host%d*", i))
			vendors.MACPrefix = append(vendors.MACPrefix, net.HardwareAddr{2, 0, byte(i >> 16), byte(i >> 8), byte(i)})
		}
		c := Client{IP: addr(last), Hostname: fmt.Sprintf("host%d", last), MAC: net.HardwareAddr{2, 0, byte(last >> 16), byte(last >> 8), byte(last), 1}}
		for name, m := range map[string]Match{"network": networks, "range": ranges, "host": hosts, "pattern": patterns, "vendor": vendors} {
			r := &Rules{MostSpecific: true, List: []Rule{{Match: m, Profile: boots("x")}}}
			require.NoError(b, r.Validate())
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := r.Config(b.Context(), c); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkLayers is a profile laid over a file of n entries.
func BenchmarkLayers(b *testing.B) {
	for _, n := range []int{10, 100, 1000, 10000} {
		file := &Config{}
		for i := range n {
			file.Entries = append(file.Entries, Entry{Label: fmt.Sprintf("e%d", i), Kernel: "k"})
		}
		r := &Rules{List: []Rule{{Profile: Profile{Args: []string{"quiet"}}, Source: file}}}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Config(b.Context(), Client{}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/entry")
		})
	}
}
