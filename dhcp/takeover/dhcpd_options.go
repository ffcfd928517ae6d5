package takeover

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/seed-3ec230fa/diskless/dhcp"
)

// define takes "option name code 150 = ip-address;".
func (t *taker) define(n *node) {
	name := n.word(1)
	code, err := strconv.ParseUint(n.word(3), 10, 8)
	kind := ""
	if len(n.words) > 5 && n.words[4].is("=") {
		kind = strings.TrimSpace(joinWords(n.words[5:]))
	}
	kind = strings.TrimPrefix(kind, "array of ")
	switch {
	case err != nil || code == 0 || code == 255 || strings.Contains(name, "."):
		t.note(n.words[0], "the definition of option %q is not taken over", name)
	case kind == "text" || kind == "string" || kind == "ip-address" || kind == "boolean" || kind == "domain-list" ||
		strings.HasSuffix(kind, "integer 8") || strings.HasSuffix(kind, "integer 16") || strings.HasSuffix(kind, "integer 32"):
		t.c.defined[name] = definedOption{uint8(code), kind}
	default:
		t.note(n.words[0], "option %q of type %q cannot be set, only asked for", name, kind)
		t.c.defined[name] = definedOption{code: uint8(code)}
	}
}

// option takes a statement that is not in a condition.
func (t *taker) option(n *node, s *scope, in place) {
	if in.host != nil && n.word(1) == "dhcp-client-identifier" && len(n.words) > 2 {
		w := n.words[2]
		if in.host.id = hexBytes(w.text); w.quoted || in.host.id == nil {
			in.host.id = []byte(w.text)
		}
		return
	}
	if st, ok := t.step(n); ok {
		s.steps = append(s.steps, st)
	}
}

// step compiles a statement that sets something.
func (t *taker) step(n *node) (st step, ok bool) {
	at := n.words[0]
	value := func() (string, bool) {
		if len(n.words) != 2 {
			t.note(at, "%s takes one value, and no expression", at.text)
			return "", false
		}
		return n.words[1].text, true
	}
	switch at.text {
	case "if", "elsif":
		e, err := t.c.condition(n.words)
		if err != nil {
			t.noteError(at, err)
			return st, false
		}
		return step{when: e, then: t.steps(n.block), otherwise: t.steps(n.otherwise)}, true
	case "filename":
		v, ok := value()
		return step{set: func(r *result) { r.boot.File = v }}, ok
	case "server-name":
		v, ok := value()
		return step{set: func(r *result) { r.boot.ServerName = v }}, ok
	case "next-server":
		v, ok := value()
		if !ok {
			return st, false
		}
		a, err := t.o.resolve(t.ctx, v)
		if err != nil {
			t.note(n.words[1], "the next-server %q cannot be found: %v; this server is named instead", v, err)
			return st, false
		}
		return step{set: func(r *result) { r.boot.NextServer = a }}, true
	case "option":
		return t.setOption(n)
	}
	t.note(at, "%q is not taken over here", at.text)
	return st, false
}

func (t *taker) steps(nodes []*node) []step {
	var list []step
	for _, n := range nodes {
		if len(n.words) == 0 {
			continue
		}
		if st, ok := t.step(n); ok {
			list = append(list, st)
		}
	}
	return list
}

func (t *taker) setOption(n *node) (step, bool) {
	at := n.words[0]
	name := n.word(1)
	if len(n.words) < 3 {
		t.note(at, "option %s has no value", name)
		return step{}, false
	}
	words := n.words[2:]
	if words[0].is("=") {
		words = words[1:]
	}
	var b strings.Builder
	for i, w := range words {
		if i > 0 && !w.is(",") && !words[i-1].is(",") {
			b.WriteByte(' ')
		}
		b.WriteString(w.text)
	}
	text := b.String()
	code, data, err := t.optionValue(name, text, words)
	if err != nil {
		t.note(n.words[1], "%v", err)
		return step{}, false
	}
	switch {
	case code == 17:
		return step{set: func(r *result) { r.boot.RootPath = string(data); r.option(code, data) }}, true
	case code == 66:
		return step{set: func(r *result) { r.boot.ServerName = string(data) }}, true
	case code == 67:
		return step{set: func(r *result) { r.boot.File = string(data) }}, true
	case code == 60:
		t.harmless(n.words[1], "option %s is sent to those that it is for", name)
		return step{}, false
	case code == 43:
		if pxe, control, err := dhcp.ParsePXE(data); err == nil && control {
			return step{set: func(r *result) { r.boot.PXE = pxe }}, true
		}
	case code >= 50 && code <= 57 || code == 61 || code == 82 || code == 80 || code == 97 || code == 118:
		t.note(n.words[1], "option %s is the protocol's own and is not taken over", name)
		return step{}, false
	case code == 1 || code == 28:
		t.harmless(n.words[1], "option %s follows from the subnet", name)
		return step{}, false
	}
	return step{set: func(r *result) { r.option(code, data) }}, true
}

func (res *result) option(code uint8, data []byte) {
	res.options[code] = optionValue{data, res.depth > 0}
}

// optionValue makes a value of a defined or a known option; host names in
// place of addresses are resolved.
func (t *taker) optionValue(name, text string, words []token) (uint8, []byte, error) {
	asks := name
	if d, ok := t.c.defined[name]; ok {
		kind := map[string]string{"text": "host-name", "string": "224", "ip-address": "routers", "boolean": "ip-forwarding", "domain-list": "domain-search"}[d.kind]
		switch {
		case strings.HasSuffix(d.kind, "integer 8"):
			kind = "default-ip-ttl"
		case strings.HasSuffix(d.kind, "integer 16"):
			kind = "interface-mtu"
		case strings.HasSuffix(d.kind, "integer 32"):
			kind = "T1"
			if !strings.HasPrefix(d.kind, "unsigned") {
				kind = "time-offset"
			}
		}
		if kind == "" {
			return 0, nil, fmt.Errorf("option %q has a type that is not supported", name)
		}
		if words[0].quoted && kind == "224" {
			return d.code, []byte(text), nil
		}
		_, data, err := dhcp.ParseOption(kind, text)
		return d.code, data, err
	}
	code, data, err := dhcp.ParseOption(asks, text)
	if err == nil || code != 0 {
		return code, data, err
	}
	var resolved []string
	for _, w := range words {
		if w.is(",") || w.quoted {
			continue
		}
		a, rerr := t.o.resolve(t.ctx, w.text)
		if rerr != nil {
			return 0, nil, err
		}
		resolved = append(resolved, a.String())
	}
	return dhcp.ParseOption(asks, strings.Join(resolved, ","))
}
