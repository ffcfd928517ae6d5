package pxecfg

import (
	"math"
	"net/netip"
	"strings"

	"github.com/insomniacslk/dhcp/iana"
)

// kind is the kind of value that a rule is found by.
type kind uint8

const (
	byAll kind = iota
	byMAC
	byUUID
	byHost
	byNet
	byRange
	byMACPrefix
	byArch
	// Beginnings and ends of host names go with byHost.
	byHostStart
	byHostEnd
)

// key is one value that a rule may be found by.
type key struct {
	kind kind
	text string
	net  netip.Prefix
	arch iana.Arch
}

// keys yields the values of one kind. All kinds must fit, so any one of them is
// enough to find the rule by.
func (k *compiledRule) keys(by kind) func(yield func(key) bool) {
	m := &k.Match
	return func(yield func(key) bool) {
		goOn := true
		text := func(s string) { goOn = goOn && yield(key{kind: by, text: s}) }
		network := func(p netip.Prefix) bool { goOn = goOn && yield(key{kind: by, net: p}); return goOn }
		switch by {
		case byMAC:
			for _, a := range m.MAC {
				text(string(a))
			}
		case byUUID:
			for _, u := range m.UUID {
				text(uuidKey(u))
			}
		case byHost:
			for _, h := range k.index.hosts {
				goOn = goOn && yield(hostKey(h))
			}
		case byNet:
			for _, p := range m.Network {
				network(p)
			}
		case byRange:
			for _, r := range m.Range {
				r.prefixes(network)
			}
		case byMACPrefix:
			for _, a := range m.MACPrefix {
				text(string(a))
			}
		case byArch:
			for _, a := range m.Arch {
				goOn = goOn && yield(key{kind: by, arch: a})
			}
		}
	}
}

// kinds returns those that the rule has values of, the one that mostly says
// most first.
func (k *compiledRule) kinds() (list []kind) {
	m := &k.Match
	for _, c := range [...]struct {
		by kind
		n  int
	}{
		{byMAC, len(m.MAC)}, {byUUID, len(m.UUID)}, {byHost, len(m.Hostname)}, {byNet, len(m.Network)},
		{byRange, len(m.Range)}, {byMACPrefix, len(m.MACPrefix)}, {byArch, len(m.Arch)},
	} {
		if c.n > 0 {
			list = append(list, c.by)
		}
	}
	return list
}

// choose sets what each rule is found by: of the kinds that it has values of,
// the one with which it is in the shortest company. A thousand racks of one
// network are told apart by their host names, a thousand networks of one vendor
// by their addresses.
func choose(rules []*compiledRule) {
	count := make(map[key]int)
	several := func(k *compiledRule) []kind {
		kinds := k.kinds()
		switch len(kinds) {
		case 0:
			k.by = byAll
		case 1:
			k.by = kinds[0]
		default:
			return kinds
		}
		return nil
	}
	for _, k := range rules {
		for _, by := range several(k) {
			for key := range k.keys(by) {
				count[key]++
			}
		}
	}
	for _, k := range rules {
		least := math.MaxInt
		for i, by := range several(k) {
			most := 0
			for key := range k.keys(by) {
				if most = max(most, count[key]); key.kind == byAll {
					most = len(rules) + 1
				}
			}
			if i == 0 || most < least {
				k.by, least = by, most
			}
		}
	}
}

// hostSpecial are the bytes of a pattern that do not stand for themselves.
const hostSpecial = `*?[\`

// hostKey is what a pattern in lower case begins with, or else ends with;
// byAll if it has wildcards at both ends.
func hostKey(h string) key {
	i, j := strings.IndexAny(h, hostSpecial), strings.LastIndexAny(h, `*?]\`)
	switch {
	case i < 0:
		return key{kind: byHost, text: h}
	case i > 0:
		return key{kind: byHostStart, text: h[:i]}
	// The byte behind a backslash is its own, and so no loss.
	case j+1 < len(h) && h[j] != '\\':
		return key{kind: byHostEnd, text: h[j+1:]}
	}
	return key{kind: byAll}
}
