package pxecfg

import (
	"bytes"
	"net"
	"net/netip"
	"path"
	"slices"
	"strings"
)

// score is how much a rule says, by kinds, the first of which counts most.
type score [5]int16

// whole is more than any prefix or pattern can score.
const whole = 1 << 12

// fewValues is how many values of one kind are looked through one by one. A
// rule with more has an index of its own: a list of ten thousand machines must
// not cost more than a short one.
const fewValues = 8

// matchIndex is the index of a rule's own values. What is nil has few of them.
type matchIndex struct {
	macs, uuids map[string]bool
	prefixes    *byLength
	nets        *netIndex // a network's score is its length and one
	ranges      *netIndex
	hosts       []string // in lower case
	hostsBy     *hostIndex
}

func newMatchIndex(m *Match) (x matchIndex) {
	if len(m.MAC) > fewValues {
		x.macs = make(map[string]bool, len(m.MAC))
		for _, a := range m.MAC {
			x.macs[string(a)] = true
		}
	}
	if len(m.UUID) > fewValues {
		x.uuids = make(map[string]bool, len(m.UUID))
		for _, u := range m.UUID {
			x.uuids[uuidKey(u)] = true
		}
	}
	if len(m.MACPrefix) > fewValues {
		x.prefixes = new(byLength)
		for i, a := range m.MACPrefix {
			x.prefixes.add(string(a), int32(i))
		}
	}
	if len(m.Network) > fewValues {
		x.nets = new(netIndex)
		for _, p := range m.Network {
			x.nets.add(p, int16(p.Bits()+1))
		}
	}
	if len(m.Range) > fewValues {
		x.ranges = new(netIndex)
		for _, r := range m.Range {
			for p := range r.prefixes {
				x.ranges.add(p, int16(r.size()+1))
			}
		}
	}
	for _, h := range m.Hostname {
		x.hosts = append(x.hosts, lower(h))
	}
	if len(m.Hostname) > fewValues {
		x.hostsBy = new(hostIndex)
		for i, h := range x.hosts {
			x.hostsBy.add(hostKey(h), int32(i))
		}
	}
	return x
}

// fits tells whether a rule is for the client, and how much it says of it.
func (s *search) fits(k *compiledRule) (got score, ok bool) {
	m, x, c := &k.Match, &k.index, s.c
	if len(m.MACPrefix) > 0 {
		n := x.longestPrefix(m, c.MAC)
		if n == 0 {
			return got, false
		}
		got[0] = int16(min(n, whole-1))
	}
	if len(m.MAC) > 0 {
		if k.by != byMAC && !x.hasMAC(m, c.MAC) {
			return got, false
		}
		got[0] = whole
	}
	if len(m.UUID) > 0 {
		if k.by != byUUID && !x.hasUUID(m, c.UUID) {
			return got, false
		}
		got[1] = 1
	}
	if len(m.Network) > 0 {
		if got[2] = x.network(m, s.ip); got[2] == 0 {
			return got, false
		}
	}
	if len(m.Range) > 0 {
		n := x.inRange(m, s.ip)
		if n == 0 {
			return got, false
		}
		got[2] = max(got[2], n)
	}
	if len(m.Hostname) > 0 {
		if got[3] = x.host(s.host); got[3] == 0 {
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

func (x *matchIndex) hasMAC(m *Match, mac net.HardwareAddr) bool {
	if x.macs != nil {
		return x.macs[string(mac)]
	}
	return slices.ContainsFunc(m.MAC, func(a net.HardwareAddr) bool { return sameMAC(a, mac) })
}

func (x *matchIndex) hasUUID(m *Match, uuid string) bool {
	if x.uuids != nil {
		return x.uuids[uuidKey(uuid)]
	}
	return slices.ContainsFunc(m.UUID, func(u string) bool { return sameUUID(u, uuid) })
}

// longestPrefix returns the length of the longest prefix that fits, or 0.
func (x *matchIndex) longestPrefix(m *Match, mac net.HardwareAddr) (best int) {
	if x.prefixes != nil {
		for _, n := range x.prefixes.lengths {
			if n > best && n <= len(mac) && x.prefixes.rules[string(mac[:n])] != nil {
				best = n
			}
		}
		return best
	}
	for _, p := range m.MACPrefix {
		if len(p) > best && bytes.HasPrefix(mac, p) {
			best = len(p)
		}
	}
	return best
}

// network returns the score of the smallest network that the address is in, or
// 0; inRange that of the smallest range.
func (x *matchIndex) network(m *Match, ip netip.Addr) (best int16) {
	if x.nets != nil {
		return x.nets.best(ip)
	}
	for _, p := range m.Network {
		if n := int16(p.Bits() + 1); n > best && p.Contains(ip) {
			best = n
		}
	}
	return best
}

func (x *matchIndex) inRange(m *Match, ip netip.Addr) (best int16) {
	if x.ranges != nil {
		return x.ranges.best(ip)
	}
	for _, r := range m.Range {
		if r.Contains(ip) {
			best = max(best, int16(r.size()+1))
		}
	}
	return best
}

// host returns how much the best of the patterns says, or 0.
func (x *matchIndex) host(host string) (best int16) {
	switch {
	case host == "":
		return 0
	case x.hostsBy == nil:
		for _, h := range x.hosts {
			best = max(best, hostScore(h, host))
		}
		return best
	}
	x.hostsBy.lookup(host, func(list []int32) {
		for _, i := range list {
			best = max(best, hostScore(x.hosts[i], host))
		}
	})
	return best
}

// hostScore returns how much a pattern says of a host that it fits, or 0.
func hostScore(pattern, host string) int16 {
	if pattern == host {
		return whole
	}
	if ok, err := path.Match(pattern, host); !ok || err != nil {
		return 0
	}
	literal := len(pattern) - strings.Count(pattern, "*") - strings.Count(pattern, "?")
	return int16(min(literal+1, whole-1))
}

// hostIndex finds the patterns that may fit a host name: each is filed under
// what it begins with or else ends with.
type hostIndex struct {
	exact      map[string][]int32
	start, end byLength
	rest       []int32 // with wildcards at both ends
}

// add files what hostKey returned.
func (x *hostIndex) add(k key, n int32) {
	switch k.kind {
	case byHost:
		if x.exact == nil {
			x.exact = make(map[string][]int32)
		}
		put(x.exact, k.text, n)
	case byHostStart:
		x.start.add(k.text, n)
	case byHostEnd:
		x.end.add(k.text, n)
	default:
		x.rest = append(x.rest, n)
	}
}

// lookup calls try with lists of those that may fit.
func (x *hostIndex) lookup(host string, try func([]int32)) {
	try(x.exact[host])
	for _, n := range x.start.lengths {
		if n <= len(host) {
			try(x.start.rules[host[:n]])
		}
	}
	for _, n := range x.end.lengths {
		if n <= len(host) {
			try(x.end.rules[host[len(host)-n:]])
		}
	}
	try(x.rest)
}

// netIndex finds the network with the highest score that an address is in.
type netIndex struct {
	scores       map[netip.Prefix]int16
	bits4, bits6 []int // lengths that occur
}

func (x *netIndex) add(p netip.Prefix, score int16) {
	if x.scores == nil {
		x.scores = make(map[netip.Prefix]int16)
	}
	x.scores[p] = max(x.scores[p], score)
	lengths := &x.bits4
	if p.Addr().Is6() {
		lengths = &x.bits6
	}
	if !slices.Contains(*lengths, p.Bits()) {
		*lengths = append(*lengths, p.Bits())
	}
}

// best returns 0 if the address is in none.
func (x *netIndex) best(ip netip.Addr) (best int16) {
	lengths := x.bits4
	if ip.Is6() {
		lengths = x.bits6
	}
	for _, n := range lengths {
		if p, err := ip.Prefix(n); err == nil {
			best = max(best, x.scores[p])
		}
	}
	return best
}
