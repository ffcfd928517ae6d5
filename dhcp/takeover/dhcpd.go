package takeover

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

// DHCPD reads a dhcpd.conf of ISC's server. file is its name, for messages.
// The error is a [*SyntaxError] for a file that is none; what is understood
// only in part is in [Config.Notes].
//
// Taken over are subnets with ranges, shared networks, pools with what they
// allow and deny, groups, hosts with hardware addresses or client identifiers,
// classes with "match if" or "match" and subclasses, includes (see
// [Options.Open]), conditions, option definitions of simple types,
// all options that [dhcp.ParseOption] knows, filename, next-server,
// server-name, lease times, authoritative, and what is allowed or denied of
// booting, bootp and unknown clients. Host names are resolved once, now.
//
// The value of an inner block goes before that of
// an outer one, a host's before a class's before a pool's or subnet's.
func DHCPD(ctx context.Context, file string, data []byte, o *Options) (*Config, error) {
	nodes, p, err := parseBlocks(file, data)
	if err != nil {
		return nil, err
	}
	if o == nil {
		o = new(Options)
	}
	t := &taker{ctx: ctx, p: p, o: o, c: &compiler{p: p, defined: make(map[string]definedOption)}, config: new(Config)}
	global := t.newScope(nil)
	t.walk(nodes, global, place{})
	if t.err != nil {
		return nil, t.err
	}
	t.build(global)
	sortNotes(t.config.Notes, file)
	if err := t.config.Validate(); err != nil {
		return nil, &SyntaxError{Pos{file, 1, 1}, err.Error()}
	}
	return t.config, nil
}

// scope is the statements of a block that apply to clients, within an outer
// scope.
type scope struct {
	parent *scope
	steps  []step
	params map[string]token // such as default-lease-time
}

// step is one statement: it sets something, or it is a condition.
type step struct {
	when      boolExpr // nil for a plain one
	then      []step
	otherwise []step
	set       func(*result)
}

// result is what the statements come to for a client.
type result struct {
	boot dhcp.Boot
	// options by number; conditional ones are known to be.
	options map[uint8]optionValue
	depth   int // of conditions
}

type optionValue struct {
	data        []byte
	conditional bool
}

type subnetDecl struct {
	at     token
	prefix netip.Prefix
	scope  *scope
	ranges []dhcp.Range
	bootp  bool
	pools  []*poolDecl
	name   string // of the shared network
	group  int    // subnets of one shared network have the same
}

type hostDecl struct {
	at    token
	name  string
	hw    net.HardwareAddr
	id    []byte
	addrs []netip.Addr
	scope *scope
}

type classDecl struct {
	name  string
	match boolExpr
	scope *scope
	// Of a class with "match" and subclasses: what tells its members.
	key     dataExpr
	members map[string]*scope
}

// place is where the walk is.
type place struct {
	subnet  *subnetDecl
	pool    *poolDecl
	host    *hostDecl
	network string
	group   int
}

type taker struct {
	ctx     context.Context
	p       *parser
	o       *Options
	c       *compiler
	config  *Config
	subnets []*subnetDecl
	hosts   []*hostDecl
	classes []*classDecl
	groups  int
	depth   int   // of includes
	err     error // of a file that was included
}

func (t *taker) newScope(parent *scope) *scope {
	return &scope{parent: parent, params: make(map[string]token)}
}

func (t *taker) note(at token, format string, args ...any) {
	t.config.Notes = append(t.config.Notes, Note{Pos: t.p.pos(at), Msg: fmt.Sprintf(format, args...)})
}

func (t *taker) harmless(at token, format string, args ...any) {
	t.note(at, format, args...)
	t.config.Notes[len(t.config.Notes)-1].Harmless = true
}

// walk takes the statements of a block.
func (t *taker) walk(nodes []*node, s *scope, in place) {
	for _, n := range nodes {
		if len(n.words) == 0 {
			t.walk(n.block, s, in)
			continue
		}
		t.statement(n, s, in)
	}
}

func (t *taker) statement(n *node, s *scope, in place) {
	at := n.words[0]
	switch key := at.text; key {
	case "subnet":
		t.subnet(n, s, in)
	case "shared-network":
		t.groups++
		t.walk(n.block, t.newScope(s), place{network: n.word(1), group: t.groups})
	case "group":
		t.walk(n.block, t.newScope(s), in)
	case "pool":
		t.pool4(n, s, in)
	case "include":
		t.include(n, s, in)
	case "host":
		h := &hostDecl{at: at, name: n.word(1), scope: t.newScope(s)}
		t.walk(n.block, h.scope, place{host: h})
		t.hosts = append(t.hosts, h)
	case "class":
		t.class(n, s)
	case "subclass":
		t.subclass(n)
	case "range":
		t.addRange(n, in)
	case "hardware":
		t.hardware(n, in)
	case "fixed-address":
		t.fixedAddress(n, in)
	case "option":
		switch {
		case len(n.words) > 3 && n.words[2].is("code"):
			t.define(n)
			return
		case n.word(1) == "space":
			t.note(at, "option spaces are not taken over")
			return
		}
		t.option(n, s, in)
	case "filename", "server-name", "next-server", "if":
		if st, ok := t.step(n); ok {
			s.steps = append(s.steps, st)
		}
	case "authoritative":
		s.params[key] = token{text: "true"}
	case "not":
		s.params[n.word(1)] = token{text: "false"}
	case "default-lease-time", "max-lease-time", "use-host-decl-names", "server-identifier", "ping-check":
		if len(n.words) != 2 {
			t.note(at, "%s takes one value", key)
			return
		}
		s.params[key] = n.words[1]
	case "allow", "deny", "ignore":
		t.permit(n, s, in)
	case "get-lease-hostnames":
		if on(n.word(1)) {
			t.note(at, "get-lease-hostnames: host names are not looked up in the DNS for each lease: give the machines host blocks with their names")
		}
	case "ddns-update-style", "ddns-updates", "log-facility", "one-lease-per-client", "update-static-leases", "omapi-port", "pid-file-name", "lease-file-name",
		"dhcp-cache-threshold", "ping-timeout", "min-lease-time", "local-address", "delayed-ack", "max-ack-delay", "always-broadcast", "boot-unknown-clients",
		"get-lease-hostname", "dynamic-bootp-lease-length", "update-conflict-detection", "update-optimization", "server-duid", "lease-id-format", "ddns-domainname", "ddns-rev-domainname":
		t.harmless(at, "%s has no effect here", key)
	default:
		t.note(at, "%q is not taken over", key)
	}
}

func on(s string) bool { return s == "on" || s == "true" || s == "yes" }

func (t *taker) subnet(n *node, s *scope, in place) {
	at := n.words[0]
	addr, err1 := netip.ParseAddr(n.word(1))
	mask, err2 := netip.ParseAddr(n.word(3))
	if err1 != nil || err2 != nil || n.word(2) != "netmask" || !addr.Is4() || !mask.Is4() {
		t.note(at, "a subnet has the form: subnet 10.0.0.0 netmask 255.255.255.0 { ... }")
		return
	}
	ones, bits := net.IPMask(mask.AsSlice()).Size()
	prefix := netip.PrefixFrom(addr, ones)
	if bits == 0 || prefix.Masked() != prefix {
		t.note(at, "%v netmask %v is no subnet", addr, mask)
		return
	}
	if in.group == 0 {
		t.groups++
		in.group = t.groups
	}
	d := &subnetDecl{at: at, prefix: prefix, scope: t.newScope(s), name: in.network, group: in.group}
	t.subnets = append(t.subnets, d)
	t.walk(n.block, d.scope, place{subnet: d, network: in.network, group: in.group})
}

func (t *taker) addRange(n *node, in place) {
	at := n.words[0]
	words := n.words[1:]
	if in.subnet == nil {
		t.note(at, "a range outside of a subnet is not taken over: move it into its subnet")
		return
	}
	if len(words) > 0 && words[0].is("dynamic-bootp") {
		in.subnet.bootp = true
		words = words[1:]
	}
	if len(words) == 1 {
		words = append(words, words[0])
	}
	if len(words) != 2 {
		t.note(at, "a range has a first and a last address")
		return
	}
	first, err1 := netip.ParseAddr(words[0].text)
	last, err2 := netip.ParseAddr(words[1].text)
	if err1 != nil || err2 != nil || !in.subnet.prefix.Contains(first) || !in.subnet.prefix.Contains(last) || last.Less(first) {
		t.note(words[0], "%s to %s is no range of the subnet %v", words[0].text, words[1].text, in.subnet.prefix)
		return
	}
	to := &in.subnet.ranges
	if in.pool != nil {
		to = &in.pool.ranges
	}
	*to = append(*to, dhcp.Range{First: first, Last: last})
}

func (t *taker) hardware(n *node, in place) {
	at := n.words[0]
	if in.host == nil || n.word(1) != "ethernet" && n.word(1) != "token-ring" && n.word(1) != "fddi" {
		t.note(at, "hardware %s is not taken over", n.word(1))
		return
	}
	if b := hexBytes(n.word(2)); len(b) > 0 && len(b) <= 16 {
		in.host.hw = b
		return
	}
	t.note(n.words[min(2, len(n.words)-1)], "%q is no hardware address", n.word(2))
}

func (t *taker) fixedAddress(n *node, in place) {
	if in.host == nil {
		t.note(n.words[0], "fixed-address outside of a host")
		return
	}
	for _, w := range n.words[1:] {
		if w.is(",") {
			continue
		}
		a, err := t.o.resolve(t.ctx, w.text)
		if err != nil {
			t.note(w, "the fixed address %q cannot be found: %v; the host gets an address of the pool", w.text, err)
			continue
		}
		in.host.addrs = append(in.host.addrs, a)
	}
}

// permit takes allow, deny and ignore.
func (t *taker) permit(n *node, s *scope, in place) {
	at := n.words[0]
	what := n.word(1)
	if in.pool != nil && t.poolPermit(n, in.pool) {
		return
	}
	if what == "dynamic" || what == "unknown" || what == "known" {
		what += "-" + strings.TrimPrefix(n.word(2), "-")
	}
	allowed := at.text == "allow"
	switch what {
	case "bootp", "unknown-clients", "unknown-clients-":
		s.params[strings.TrimSuffix(what, "-")] = token{text: strconv.FormatBool(allowed)}
	case "booting":
		if !allowed {
			if in.host == nil {
				t.note(at, "%s booting outside of a host is not taken over", at.text)
				return
			}
			s.params["booting"] = token{text: "false"}
			t.note(at, "%s booting: the host is not refused; it gets an address, and nothing to boot", at.text)
		}
	case "client-updates", "duplicates", "declines", "leasequery":
		t.harmless(at, "%s %s has no effect here", at.text, what)
	default:
		t.note(at, "%s %s is not taken over: all clients may have these addresses", at.text, strings.TrimSpace(joinWords(n.words[1:])))
	}
}

func joinWords(words []token) string {
	var b strings.Builder
	for _, w := range words {
		b.WriteString(w.text + " ")
	}
	return b.String()
}

func (t *taker) class(n *node, s *scope) {
	d := &classDecl{name: n.word(1), scope: t.newScope(s)}
	var rest []*node
	for _, b := range n.block {
		if b.word(0) == "match" && b.word(1) == "if" {
			e, err := t.c.condition(b.words[1:])
			if err != nil {
				t.noteError(b.words[0], err)
				return
			}
			d.match = e
			continue
		}
		if b.word(0) == "match" && len(b.words) > 1 {
			e, err := t.c.value(b.words)
			if err != nil {
				t.noteError(b.words[0], err)
				return
			}
			d.key, d.members = e, make(map[string]*scope)
			d.match = func(r *dhcp.Request) bool { return d.member(r) != nil }
			continue
		}
		rest = append(rest, b)
	}
	if d.match == nil {
		t.note(n.words[0], "class %q has no \"match\": its members are not known, and its statements are not taken over", d.name)
		return
	}
	t.walk(rest, d.scope, place{})
	t.classes = append(t.classes, d)
}

func (t *taker) noteError(at token, err error) {
	if s, ok := err.(*SyntaxError); ok {
		t.config.Notes = append(t.config.Notes, Note{Pos: s.Pos, Msg: s.Msg})
		return
	}
	t.note(at, "%v", err)
}
