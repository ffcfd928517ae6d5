package pxecfg

import (
	"bytes"
	"math/bits"
	"net"
	"net/netip"
	"path"
	"slices"
	"strings"

	"github.com/insomniacslk/dhcp/iana"
)

// kind is the kind of value that a rule is found by.
type kind uint8

const (
	byAll kind = iota
	byMAC
	byUUID
	byMACPrefix
	byIP
	byHost
	byArch
)

// ruleIndex finds the rules that may match: each is filed under all values of
// one kind, the one that says most, and is then looked at in full. Lists of
// rule numbers are in rising order.
type ruleIndex struct {
	rules     []*compiledRule
	all       []int32
	mac       map[string][]int32
	uuid      map[string][]int32
	macPrefix byLength
	net       map[netip.Prefix][]int32
	bits4     []int // lengths that occur in net
	bits6     []int
	host      map[string][]int32
	hostStart byLength
	hostEnd   byLength
	arch      map[iana.Arch][]int32
}

// byLength holds the beginnings (or ends) of strings.
type byLength struct {
	lengths []int
	rules   map[string][]int32
}

func (b *byLength) add(key string, n int32) {
	if b.rules == nil {
		b.rules = make(map[string][]int32)
	}
	put(b.rules, key, n)
	if !slices.Contains(b.lengths, len(key)) {
		b.lengths = append(b.lengths, len(key))
	}
}

func newRuleIndex(n int) *ruleIndex {
	return &ruleIndex{
		rules: make([]*compiledRule, 0, n),
		mac:   make(map[string][]int32, n),
		uuid:  make(map[string][]int32),
		net:   make(map[netip.Prefix][]int32),
		host:  make(map[string][]int32),
		arch:  make(map[iana.Arch][]int32),
	}
}

func put[K comparable](m map[K][]int32, key K, n int32) {
	list := m[key]
	if len(list) == 0 || list[len(list)-1] != n {
		m[key] = append(list, n)
	}
}

func (x *ruleIndex) add(k *compiledRule) {
	n, m := int32(len(x.rules)), &k.Match
	x.rules = append(x.rules, k)
	literal := func(h string) bool { return !strings.ContainsAny(h, `*?[\`) }
	exactHosts := len(m.Hostname) > 0 && !slices.ContainsFunc(m.Hostname, func(h string) bool { return !literal(h) })
	switch {
	case len(m.MAC) > 0:
		k.by = byMAC
		for _, a := range m.MAC {
			put(x.mac, string(a), n)
		}
	case len(m.UUID) > 0:
		k.by = byUUID
		for _, u := range m.UUID {
			put(x.uuid, uuidKey(u), n)
		}
	case !exactHosts && (len(m.Network) > 0 || len(m.Range) > 0):
		k.by = byIP
		// Both kinds must fit, so one of them is enough to find it by.
		if len(m.Network) > 0 {
			for _, p := range m.Network {
				x.addNet(p, n)
			}
			break
		}
		for _, r := range m.Range {
			for p := range r.prefixes {
				x.addNet(p, n)
			}
		}
	case !exactHosts && len(m.MACPrefix) > 0:
		k.by = byMACPrefix
		for _, a := range m.MACPrefix {
			x.macPrefix.add(string(a), n)
		}
	case len(m.Hostname) > 0:
		k.by = byHost
		for _, h := range m.Hostname {
			h = lower(h)
			i, j := strings.IndexAny(h, `*?[\`), strings.LastIndexAny(h, `*?]\`)
			switch {
			case i < 0:
				put(x.host, h, n)
			case i > 0:
				x.hostStart.add(h[:i], n)
			// The byte behind a backslash is its own, and so no loss.
			case j+1 < len(h) && h[j] != '\\':
				x.hostEnd.add(h[j+1:], n)
			default:
				x.addAll(n)
			}
		}
	case len(m.Arch) > 0:
		k.by = byArch
		for _, a := range m.Arch {
			put(x.arch, a, n)
		}
	default:
		x.addAll(n)
	}
}

func (x *ruleIndex) addAll(n int32) {
	if len(x.all) == 0 || x.all[len(x.all)-1] != n {
		x.all = append(x.all, n)
	}
}

func (x *ruleIndex) addNet(p netip.Prefix, n int32) {
	put(x.net, p, n)
	lengths := &x.bits4
	if p.Addr().Is6() {
		lengths = &x.bits6
	}
	if !slices.Contains(*lengths, p.Bits()) {
		*lengths = append(*lengths, p.Bits())
	}
}

// search is one decision.
type search struct {
	x        *ruleIndex
	c        *Client
	ip       netip.Addr
	host     string
	specific bool
	best     int32
	score    score
}

// find returns the rule that decides, or nil.
func (x *ruleIndex) find(c Client, specific bool) *compiledRule {
	s := search{x: x, c: &c, ip: c.IP.Unmap().WithZone(""), host: lower(c.Hostname), specific: specific, best: -1}
	s.try(x.all)
	if len(c.MAC) > 0 {
		s.try(x.mac[string(c.MAC)])
		for _, n := range x.macPrefix.lengths {
			if n <= len(c.MAC) {
				s.try(x.macPrefix.rules[string(c.MAC[:n])])
			}
		}
	}
	if c.UUID != "" && len(x.uuid) > 0 {
		s.try(x.uuid[uuidKey(c.UUID)])
	}
	if s.ip.IsValid() {
		lengths := x.bits4
		if s.ip.Is6() {
			lengths = x.bits6
		}
		for _, n := range lengths {
			if p, err := s.ip.Prefix(n); err == nil {
				s.try(x.net[p])
			}
		}
	}
	if s.host != "" {
		s.try(x.host[s.host])
		for _, n := range x.hostStart.lengths {
			if n <= len(s.host) {
				s.try(x.hostStart.rules[s.host[:n]])
			}
		}
		for _, n := range x.hostEnd.lengths {
			if n <= len(s.host) {
				s.try(x.hostEnd.rules[s.host[len(s.host)-n:]])
			}
		}
	}
	if c.ArchKnown {
		s.try(x.arch[c.Arch])
	}
	if s.best < 0 {
		return nil
	}
	return x.rules[s.best]
}

func (s *search) try(list []int32) {
	for _, n := range list {
		if !s.specific && s.best >= 0 && n >= s.best {
			return
		}
		got, ok := s.fits(s.x.rules[n])
		if !ok {
			continue
		}
		if s.best < 0 || !s.specific {
			s.best, s.score = n, got
			continue
		}
		if d := slices.Compare(got[:], s.score[:]); d > 0 || d == 0 && n < s.best {
			s.best, s.score = n, got
		}
	}
}

// score is how much a rule says, by kinds, the first of which counts most.
type score [5]int16

// whole is more than any prefix or pattern can score.
const whole = 1 << 12

func (s *search) fits(k *compiledRule) (got score, ok bool) {
	m, c := &k.Match, s.c
	if len(m.MACPrefix) > 0 {
		n := 0
		for _, p := range m.MACPrefix {
			if len(p) > n && bytes.HasPrefix(c.MAC, p) {
				n = len(p)
			}
		}
		if n == 0 {
			return got, false
		}
		got[0] = int16(min(n, whole-1))
	}
	if len(m.MAC) > 0 {
		if k.by != byMAC && !slices.ContainsFunc(m.MAC, func(a net.HardwareAddr) bool { return sameMAC(a, c.MAC) }) {
			return got, false
		}
		got[0] = whole
	}
	if len(m.UUID) > 0 {
		if k.by != byUUID && !slices.ContainsFunc(m.UUID, func(u string) bool { return sameUUID(u, c.UUID) }) {
			return got, false
		}
		got[1] = 1
	}
	if len(m.Network) > 0 {
		n := -1
		for _, p := range m.Network {
			if p.Bits() > n && p.Contains(s.ip) {
				n = p.Bits()
			}
		}
		if n < 0 {
			return got, false
		}
		got[2] = int16(n + 1)
	}
	if len(m.Range) > 0 {
		n := -1
		for _, r := range m.Range {
			if r.Contains(s.ip) {
				n = max(n, r.size())
			}
		}
		if n < 0 {
			return got, false
		}
		got[2] = max(got[2], int16(n+1))
	}
	if len(m.Hostname) > 0 {
		if got[3] = hostScore(m.Hostname, s.host); got[3] == 0 {
			return got, false
		}
	}
	if len(m.Arch) > 0 {
		if !c.ArchKnown || !slices.Contains(m.Arch, c.Arch) {
			return got, false
		}
		got[4]++
	}
	if len(m.Platform) > 0 {
		if !slices.Contains(m.Platform, c.platform()) {
			return got, false
		}
		got[4]++
	}
	if len(m.Loader) > 0 {
		if !slices.Contains(m.Loader, c.Loader) {
			return got, false
		}
		got[4]++
	}
	return got, true
}

// hostScore returns how much the best of the patterns says, and 0 if none fits.
func hostScore(patterns []string, host string) (best int16) {
	if host == "" {
		return 0
	}
	for _, h := range patterns {
		h = lower(h)
		if h == host {
			return whole
		}
		if ok, err := path.Match(h, host); ok && err == nil {
			literal := len(h) - strings.Count(h, "*") - strings.Count(h, "?")
			best = max(best, int16(min(literal+1, whole-1)))
		}
	}
	return best
}

// prefixes yields the networks that a range is made of, at most two for each
// bit of an address.
func (r IPRange) prefixes(yield func(netip.Prefix) bool) {
	size := r.First.BitLen()
	for a := r.First; ; {
		n := size
		for n > 0 {
			p := netip.PrefixFrom(a, n-1)
			if p.Masked().Addr() != a || r.Last.Less(lastAddr(p)) {
				break
			}
			n--
		}
		p := netip.PrefixFrom(a, n)
		if !yield(p) {
			return
		}
		last := lastAddr(p)
		if last == r.Last {
			return
		}
		a = last.Next()
	}
}

// lastAddr returns the last address of a network.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// size is the length of the smallest network that is not smaller than the
// range.
func (r IPRange) size() int {
	first, last := r.First.As16(), r.Last.As16()
	var d [16]byte // last - first
	borrow := 0
	for i := 15; i >= 0; i-- {
		v := int(last[i]) - int(first[i]) - borrow
		borrow = 0
		if v < 0 {
			v, borrow = v+256, 1
		}
		d[i] = byte(v)
	}
	for i, x := range d {
		if x != 0 {
			return r.First.BitLen() - (128 - 8*i - bits.LeadingZeros8(x))
		}
	}
	return r.First.BitLen()
}
