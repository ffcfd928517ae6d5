package ltsconf

import (
	"iter"
	"net"
	"net/netip"
	"slices"
)

// Client is what a client is known by. What is not known stays zero and
// matches nothing.
type Client struct {
	// Hostname is the name from DHCP, as the client has it when it reads the
	// file (before a HOSTNAME setting applies).
	Hostname string
	// IP is the client's IPv4 address; clients do not look for IPv6 ones.
	IP netip.Addr
	// MAC is the hardware address of the interface with that IP address.
	// Sections name it with colons.
	MAC net.HardwareAddr
}

// ids returns the names that sections are looked for under.
func (c Client) ids() []string {
	ids := make([]string, 0, 3)
	if c.Hostname != "" {
		ids = append(ids, c.Hostname)
	}
	if ip := c.IP.Unmap(); ip.Is4() {
		ids = append(ids, ip.String())
	}
	if len(c.MAC) > 0 {
		ids = append(ids, c.MAC.String())
	}
	return ids
}

// Value is the value of a setting, and where it comes from.
type Value struct {
	// Raw is the value as the client's shell reads it between double quotes,
	// see [Literal] and [Value.Literal].
	Raw string

	// Section, File, Line and Col are where the setting stands: the name of
	// its section, the file as given to the parser or to include, and the
	// position of the setting's name, from 1. They are zero for a value that
	// was not read from a file.
	Section string
	File    string
	Line    int
	Col     int
}

// Resolve returns the settings that a client gets, names in upper case, each
// once.
//
// The sections that apply are, and of several with a setting the first wins:
//
//  1. the section named exactly as the host name; else the IP address; else
//     the MAC address. Only one: a section for the MAC address is ignored
//     when there is one for the host name.
//  2. the sections that its LIKE settings name, in order, then those that
//     their LIKE settings name, and so on. Names of no section are ignored.
//  3. for the host name, then the IP address, then the MAC address: the first
//     section in the file whose name matches as a pattern, and what its LIKE
//     settings name. A name matches as a pattern only when it is not equal.
//  4. the section Default. Its LIKE settings apply only when another section
//     names it in a LIKE, or when the host is called default.
//
// Of several sections with one name only the first is seen, and of several
// settings of one name in it the last. Names are compared without regard to
// case. A setting whose value is NONE is left out.
//
// The order is that in which a client evaluates them, so that a value can use
// an earlier one ($NAME): from the section that ranks last to the one that
// ranks first, a setting standing where its name comes first. (LIKE in a circle,
// which only a compatible reader lets through, leaves that order open.)
func (f *File) Resolve(c Client) iter.Seq2[string, Value] {
	return func(yield func(string, Value) bool) {
		for _, r := range f.resolve(c) {
			if equalNone(r.set.raw) {
				continue
			}
			v := f.value(r.section, r.set)
			if !yield(f.keys[r.set.key], v) {
				return
			}
		}
	}
}

func (f *File) value(section int32, set *setting) Value {
	return Value{
		Raw:     set.raw,
		Section: f.sections[section].name,
		File:    f.names[set.file],
		Line:    int(set.line),
		Col:     int(set.col),
	}
}

func (f *File) firstPattern(id string) (int32, bool) {
	folded := fold(id)
	return f.patterns.first(folded, func(p string) bool { return p != folded && match(p, id) })
}

type result struct {
	set     *setting
	section int32
	rank    int
}

func (f *File) resolve(c Client) []result {
	ch := f.chain(c)
	var out []result
	at := make(map[int32]int)
	for _, s := range ch.order {
		rank := ch.rank[s]
		for i := range f.sections[s].settings {
			set := &f.sections[s].settings[i]
			j, ok := at[set.key]
			if !ok {
				at[set.key] = len(out)
				out = append(out, result{set, s, rank})
			} else if rank < out[j].rank {
				out[j] = result{set, s, rank}
			}
		}
	}
	return out
}

func equalNone(s string) bool { return len(s) == 4 && fold(s) == "none" }

// chain is the sections that apply to a client.
type chain struct {
	f     *File
	rank  map[int32]int // 0 wins
	queue []int32       // by rank
	by    []int32       // beside queue: the section whose LIKE led there
	order []int32       // as evaluated
}

func (f *File) chain(c Client) *chain {
	ch := &chain{f: f, rank: make(map[int32]int)}
	ids := c.ids()
	var roots []int32
	for _, id := range ids {
		if s, ok := f.index[fold(id)]; ok {
			roots = append(roots, s)
			ch.follow(s)
			break
		}
	}
	for _, id := range ids {
		if s, ok := f.firstPattern(id); ok {
			roots = append(roots, s)
			ch.follow(s)
		}
	}
	ch.sort(roots)
	if s, ok := f.index["default"]; ok {
		ch.add(s, s)
		// It is evaluated first wherever it ranks.
		ch.order = slices.DeleteFunc(ch.order, func(o int32) bool { return o == s })
		ch.order = slices.Insert(ch.order, 0, s)
	}
	return ch
}

func (ch *chain) add(s, by int32) {
	if _, ok := ch.rank[s]; !ok {
		ch.rank[s] = len(ch.queue)
		ch.queue = append(ch.queue, s)
		ch.by = append(ch.by, by)
	}
}

// follow adds a section and all that LIKE leads to from it, breadth first.
func (ch *chain) follow(s int32) {
	at := len(ch.queue)
	for ch.add(s, s); at < len(ch.queue); at++ {
		for _, to := range ch.f.sections[ch.queue[at]].like {
			ch.add(to, ch.queue[at])
		}
	}
}

// sort finds the order of evaluation. getltscfg lists a section as often as a
// LIKE leads to it, follows each of these, all over again behind every
// pattern, and evaluates the list from its end. So a section first counts
// where it is listed last: as deep below the roots as the longest way to it.
func (ch *chain) sort(roots []int32) {
	like := func(s int32) []int32 { return ch.f.sections[s].like }

	// Depths, each known when all ways to a section have been seen.
	ways := make(map[int32]int)
	for _, s := range ch.queue {
		for _, to := range like(s) {
			ways[to]++
		}
	}
	depth := make(map[int32]int)
	ready := make([]int32, 0, len(ch.queue))
	for _, s := range ch.queue {
		if ways[s] == 0 {
			ready = append(ready, s)
		}
	}
	for i := 0; i < len(ready); i++ {
		for _, to := range like(ready[i]) {
			depth[to] = max(depth[to], depth[ready[i]]+1)
			if ways[to]--; ways[to] == 0 {
				ready = append(ready, to)
			}
		}
	}
	if len(ready) < len(ch.queue) { // a circle
		ch.order = slices.Clone(ch.queue)
		slices.Reverse(ch.order)
		return
	}

	// Level by level, each backwards: the last place of a section is the
	// first one met.
	done := make(map[int32]bool)
	var level []int32
	for _, s := range slices.Backward(roots) {
		if depth[s] == 0 && !done[s] {
			done[s] = true
			level = append(level, s)
		}
	}
	var levels []int32
	var starts []int
	for d := 1; len(level) > 0; d++ {
		starts = append(starts, len(levels))
		levels = append(levels, level...)
		var below []int32
		for _, s := range level {
			for _, to := range slices.Backward(like(s)) {
				if depth[to] == d && !done[to] {
					done[to] = true
					below = append(below, to)
				}
			}
		}
		level = below
	}
	for i, start := range slices.Backward(starts) {
		end := len(levels)
		if i+1 < len(starts) {
			end = starts[i+1]
		}
		ch.order = append(ch.order, levels[start:end]...)
	}
}
