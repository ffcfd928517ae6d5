package takeover

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

// poolDecl is a pool of a subnet, with who may have its addresses.
type poolDecl struct {
	at     token
	ranges []dhcp.Range
	// A client must be one of allow, if there are any, and none of deny.
	allow, deny []permission
}

// permission is some clients, in the words of the file.
type permission struct {
	text  string
	known bool // hosts; with not, all but hosts
	not   bool
	all   bool
	class string // members of
	at    token
}

// pool4 takes a pool. Its options are the subnet's: package dhcp has them by
// subnet, class and host.
func (t *taker) pool4(n *node, s *scope, in place) {
	if in.subnet == nil {
		t.note(n.words[0], "a pool outside of a subnet is not taken over: move it into its subnet")
		return
	}
	in.pool = &poolDecl{at: n.words[0]}
	in.subnet.pools = append(in.subnet.pools, in.pool)
	for _, b := range n.block {
		switch b.word(0) {
		case "option", "filename", "next-server", "server-name", "if", "default-lease-time", "max-lease-time":
			if len(in.subnet.pools) > 1 || len(in.subnet.ranges) > 0 {
				t.note(b.words[0], "%s of a pool is for the whole subnet %v here: give it to a class", b.word(0), in.subnet.prefix)
			}
		}
	}
	t.walk(n.block, s, in)
	if len(in.pool.allow)+len(in.pool.deny) == 0 {
		in.subnet.ranges = append(in.subnet.ranges, in.pool.ranges...)
		in.pool.ranges = nil
	}
}

// poolPermit takes allow and deny of a pool; false for what is none of clients.
func (t *taker) poolPermit(n *node, p *poolDecl) bool {
	var words []string
	for _, w := range n.words[1:] {
		words = append(words, w.text)
	}
	text := strings.Join(words, " ")
	m := permission{text: text, at: n.words[0]}
	switch text {
	case "known-clients", "known clients":
		m.known = true
	case "unknown-clients", "unknown clients":
		m.known, m.not = true, true
	case "all clients":
		m.all = true
	default:
		if len(words) != 3 || words[0] != "members" || words[1] != "of" {
			return false
		}
		m.class = words[2]
	}
	if n.word(0) == "allow" {
		p.allow = append(p.allow, m)
	} else {
		m.text = "all but " + m.text
		p.deny = append(p.deny, m)
	}
	return true
}

// restrictPools adds the ranges of pools with permissions.
func (t *taker) restrictPools(n *Network, subnets []*subnetDecl, hosts map[string]*hostDecl) {
	classes := make(map[string]*classDecl)
	for _, c := range t.classes {
		classes[c.name] = c
	}
	for i, d := range subnets {
		for _, p := range d.pools {
			if len(p.ranges) == 0 {
				continue
			}
			var names []string
			usable := true
			for _, m := range append(p.allow[:len(p.allow):len(p.allow)], p.deny...) {
				names = append(names, m.text)
				if m.class != "" && classes[m.class] == nil {
					t.note(m.at, "there is no class %q with known members: nobody gets an address of this pool", m.class)
					usable = false
				}
			}
			if !usable {
				continue
			}
			is := func(m permission, r *dhcp.Request) bool {
				switch {
				case m.known:
					return (find(hosts, r) != nil) != m.not
				case m.class != "":
					return classes[m.class].match(r)
				}
				return m.all
			}
			n.restrict(strings.Join(names, ", "), i, p.ranges, len(p.allow) == 0, func(r *dhcp.Request) bool {
				allowed := len(p.allow) == 0
				for _, m := range p.allow {
					allowed = allowed || is(m, r)
				}
				for _, m := range p.deny {
					allowed = allowed && !is(m, r)
				}
				return allowed
			})
		}
	}
	n.keepRest()
}

// find is the host that sent the request, nil for none.
func find(hosts map[string]*hostDecl, r *dhcp.Request) *hostDecl {
	if h := hosts["hw"+string(r.ClientHWAddr)]; h != nil {
		return h
	}
	return hosts["id"+string(r.Options.Get(dhcpv4.OptionClientIdentifier))]
}

// member is the statements of the subclass that the request is in, nil for
// none.
func (d *classDecl) member(r *dhcp.Request) *scope {
	if d.key == nil {
		return nil
	}
	v := d.key(r)
	if v == nil {
		return nil
	}
	return d.members[string(v)]
}

// subclass takes: subclass "class" VALUE, with or without a block.
func (t *taker) subclass(n *node) {
	at := n.words[0]
	var class *classDecl
	for _, c := range t.classes {
		if c.name == n.word(1) && c.members != nil {
			class = c
		}
	}
	if class == nil || len(n.words) < 3 {
		t.note(at, "the subclass is of no class that has a \"match\" before it")
		return
	}
	e, err := t.c.value(n.words[1:])
	if err != nil {
		t.noteError(at, err)
		return
	}
	scope := t.newScope(class.scope)
	// The value is a constant: what asks the client for something has none.
	value := e(&dhcp.Request{DHCPv4: &dhcpv4.DHCPv4{}})
	if value == nil || bytes.Equal(value, []byte{0}) {
		t.note(n.words[2], "%q is no value that a client can have", n.word(2))
		return
	}
	class.members[string(value)] = scope
	t.walk(n.block, scope, place{})
}

const maxIncludes = 16

// include reads another file in place.
func (t *taker) include(n *node, s *scope, in place) {
	at := n.words[0]
	if t.o.Open == nil || len(n.words) != 2 {
		t.note(at, "include %q is not read", n.word(1))
		return
	}
	if t.depth >= maxIncludes {
		t.fail(&SyntaxError{t.p.pos(at), fmt.Sprintf("includes are nested more than %d deep", maxIncludes)})
		return
	}
	name := n.word(1)
	data, err := t.o.Open(name)
	if err != nil {
		t.fail(&SyntaxError{t.p.pos(at), fmt.Sprintf("include %q: %v", name, err)})
		return
	}
	nodes, _, err := parseBlocks(name, data)
	if err != nil {
		t.fail(err)
		return
	}
	t.depth++
	t.walk(nodes, s, in)
	t.depth--
}

func (t *taker) fail(err error) { t.err = errors.Join(t.err, err) }
