package pxecfg

import (
	"math/bits"
	"net/netip"
	"slices"

	"github.com/insomniacslk/dhcp/iana"
)

// ruleIndex finds the rules that may match: each is filed under all values of
// one kind, the one that it shares with the fewest others, and is then looked
// at in full. Lists of rule numbers are in rising order.
type ruleIndex struct {
	rules     []*compiledRule
	all       []int32
	mac       map[string][]int32
	uuid      map[string][]int32
	macPrefix byLength
	net       map[netip.Prefix][]int32
	bits4     []int // lengths that occur in net
	bits6     []int
	host      hostIndex
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

func newRuleIndex(rules []*compiledRule) *ruleIndex {
	x := &ruleIndex{
		rules: rules,
		mac:   make(map[string][]int32, len(rules)),
		uuid:  make(map[string][]int32),
		net:   make(map[netip.Prefix][]int32),
		arch:  make(map[iana.Arch][]int32),
	}
	choose(rules)
	for n, k := range rules {
		if k.by == byAll {
			x.addAll(int32(n))
		}
		for key := range k.keys(k.by) {
			x.add(key, int32(n))
		}
	}
	return x
}

func put[K comparable](m map[K][]int32, key K, n int32) {
	list := m[key]
	if len(list) == 0 || list[len(list)-1] != n {
		m[key] = append(list, n)
	}
}

func (x *ruleIndex) add(k key, n int32) {
	switch k.kind {
	case byMAC:
		put(x.mac, k.text, n)
	case byUUID:
		put(x.uuid, k.text, n)
	case byNet, byRange:
		x.addNet(k.net, n)
	case byMACPrefix:
		x.macPrefix.add(k.text, n)
	case byHost, byHostStart, byHostEnd:
		x.host.add(k, n)
	case byArch:
		put(x.arch, k.arch, n)
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
		x.host.lookup(s.host, s.try)
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
