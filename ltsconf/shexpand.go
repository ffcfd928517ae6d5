package ltsconf

import (
	"strconv"
	"strings"
)

// val is a value. When dyn is set its text is only known on the client, and s
// is the shell text for it, as between double quotes.
type val struct {
	s   string
	dyn bool
}

func (v val) raw() string {
	if v.dyn {
		return v.s
	}
	return Literal(v.s).Raw
}

// fragment is what a part of a word expands to.
type fragment struct {
	val
	quoted bool // not a pattern
	split  bool // falls apart at white space
	brk    bool // the next one is another field, as in "$@"
}

// frags expands a word.
func (ev *evaluator) frags(w []part, out []fragment) []fragment {
	for _, t := range w {
		if ev.stopped() {
			break
		}
		n := len(out)
		switch t.kind {
		case textPart:
			out = append(out, fragment{val: val{s: t.text}, quoted: t.quoted})
		case commandPart:
			out = append(out, fragment{val: ev.substitute(t), quoted: t.quoted, split: !t.quoted})
		case arithPart:
			out = append(out, fragment{val: ev.arithmetic(t), quoted: t.quoted, split: !t.quoted})
		default:
			out = ev.param(t, out)
		}
		for _, f := range out[n:] {
			if ev.bytes -= len(f.s) + 1; ev.bytes < 0 {
				if !ev.halted {
					ev.halted = true
					ev.note(ev.pos, "the values are too large")
				}
				return out[:n]
			}
		}
	}
	return out
}

// join expands a word to one text, as in an assignment.
func (ev *evaluator) join(w []part) val {
	if len(w) == 1 && w[0].kind == textPart {
		ev.bytes -= len(w[0].text)
		return val{s: w[0].text}
	}
	return ev.joinFrags(ev.frags(w, nil))
}

// separator is what $* and $@ are joined with where there are no fields.
func (ev *evaluator) separator() string {
	v := ev.vars["IFS"]
	switch {
	case v == nil || v.unset:
		return " "
	case v.val.s == "":
		return ""
	}
	return v.val.s[:1]
}

func (ev *evaluator) joinFrags(fs []fragment) val {
	if len(fs) == 1 {
		return fs[0].val
	}
	dyn := false
	for _, f := range fs {
		dyn = dyn || f.dyn
	}
	var b strings.Builder
	for i, f := range fs {
		if dyn {
			b.WriteString(f.raw())
		} else {
			b.WriteString(f.s)
		}
		if f.brk && i+1 < len(fs) {
			sep := val{s: ev.separator()}
			if dyn {
				sep.s = sep.raw()
			}
			b.WriteString(sep.s)
		}
	}
	return val{b.String(), dyn}
}

// fields expands words as the arguments of a command. ok is false when that
// needs the client.
func (ev *evaluator) fields(words [][]part) (out []string, ok bool) {
	ifs := " \t\n"
	if v := ev.vars["IFS"]; v != nil && !v.unset {
		if ifs = v.val.s; v.val.dyn {
			return nil, false
		}
	}
	var fs []fragment
	ev.budget -= len(words) / 8
	for _, w := range words {
		if len(w) == 1 && w[0].kind == textPart && (w[0].quoted || !strings.ContainsAny(w[0].text, "~*?[")) {
			ev.bytes -= len(w[0].text)
			out = append(out, w[0].text)
			continue
		}
		if len(w) > 0 && w[0].kind == textPart && !w[0].quoted && strings.HasPrefix(w[0].text, "~") {
			return nil, false
		}
		fs = ev.frags(w, fs[:0])
		if ev.stopped() {
			return nil, false
		}
		if out, ok = split(out, fs, ifs); !ok {
			return nil, false
		}
	}
	return out, true
}

// split cuts what a word expanded to into fields. ok is false for what is not
// known, and for names of files.
func split(out []string, fs []fragment, ifs string) ([]string, bool) {
	var field strings.Builder
	have, glob, bracket, soft := false, false, false, false
	flush := func() bool {
		if have {
			out = append(out, field.String())
		}
		files := glob
		field.Reset()
		have, glob, bracket = false, false, false
		return !files
	}
	for _, f := range fs {
		if f.dyn {
			return nil, false
		}
		if !f.quoted {
			for i := range len(f.s) {
				switch f.s[i] {
				case '*', '?':
					glob = true
				case '[':
					bracket = true
				case ']':
					glob = glob || bracket
				}
			}
		}
		if !f.split {
			if f.quoted || f.s != "" {
				have, soft = true, false
			}
			field.WriteString(f.s)
			if f.brk {
				if !flush() {
					return nil, false
				}
			}
			continue
		}
		for i := range len(f.s) {
			c := f.s[i]
			if strings.IndexByte(ifs, c) < 0 {
				field.WriteByte(c)
				have, soft = true, false
				continue
			}
			white := c == ' ' || c == '\t' || c == '\n'
			if !white {
				if !soft {
					have = true // the field is there, though it may be empty
				}
				soft = false
				if !flush() {
					return nil, false
				}
			} else if have {
				if !flush() {
					return nil, false
				}
				soft = true // white space, which another separator may follow
			}
		}
		if f.brk && !flush() {
			return nil, false
		}
	}
	if !flush() {
		return nil, false
	}
	return out, true
}

// substitute runs a $(...), as far as its output is known.
func (ev *evaluator) substitute(t part) val {
	out, in, last, tested := ev.out, ev.in, ev.last, ev.tested
	notes, noted := len(ev.notes), ev.noted
	ev.out, ev.tested = &capture{known: true}, false
	ev.inner = ev.subshell(func() status { return ev.exec(t.body) })
	got := ev.out
	ev.out, ev.in, ev.last, ev.tested = out, in, last, tested
	if !got.known || ev.noted > noted {
		ev.notes, ev.noted = ev.notes[:notes], noted // the value tells
		ev.inner = unknown
		return val{t.source, true}
	}
	return val{s: strings.ReplaceAll(strings.TrimRight(string(got.text), "\n"), "\x00", "")}
}

// lookup returns a parameter's value; ok is false when it is not set.
func (ev *evaluator) lookup(name string) (v val, ok bool) {
	switch c := name[0]; {
	case c >= '0' && c <= '9':
		n, err := strconv.Atoi(name)
		if n == 0 {
			return val{"$0", true}, true
		}
		if err != nil || n > len(ev.args) {
			return val{}, false
		}
		return ev.args[n-1], true
	case name == "#":
		return val{s: strconv.Itoa(len(ev.args))}, true
	case name == "?":
		if ev.last == unknown {
			return val{"$?", true}, true
		}
		return val{s: strconv.Itoa(int(ev.last))}, true
	case name == "!":
		return val{}, false
	case name == "$" || name == "-":
		return val{"$" + name, true}, true
	}
	if v := ev.vars[name]; v != nil {
		return v.val, !v.unset
	}
	switch name {
	case "IFS":
		return val{s: " \t\n"}, true
	case "PATH", "HOME", "PWD", "PPID", "LINENO", "OPTIND", "PS1", "PS2", "PS4":
		return val{"$" + name, true}, true
	}
	return val{}, false
}

// param expands a parameter.
func (ev *evaluator) param(t part, out []fragment) []fragment {
	one := func(v val) []fragment {
		return append(out, fragment{val: v, quoted: t.quoted, split: !t.quoted})
	}
	if t.op == "bad" {
		ev.die(ev.pos, "%s is no substitution", clip(t.source))
		return out
	}
	op := strings.TrimPrefix(t.op, ":")
	var v val
	ok := false
	if t.text == "@" || t.text == "*" {
		if op == "" {
			return ev.positional(t, out)
		}
		fs := make([]fragment, len(ev.args))
		for i, a := range ev.args {
			fs[i] = fragment{val: a, brk: true}
		}
		v = ev.joinFrags(fs)
		ev.bytes -= len(v.s) + len(fs)
		ok = len(ev.args) > 0
	} else {
		v, ok = ev.lookup(t.text)
	}
	switch op {
	case "":
		return one(v)
	case "len":
		if v.dyn {
			return one(val{t.source, true})
		}
		return one(val{s: strconv.Itoa(len(v.s))})
	case "-", "=", "+", "?":
		if t.op != op { // with the colon: empty counts as unset
			if v.dyn {
				return one(ev.shrug(t))
			}
			ok = ok && v.s != ""
		}
		switch {
		case op == "+" && !ok:
			return one(val{})
		case op == "+" || op == "-" && !ok:
			return ev.defaultFrags(t, out)
		case ok:
			return one(v)
		case op == "?":
			ev.die(ev.pos, "%s is not set", clip(t.text))
			return out
		}
		if nameLen(t.text) == 0 {
			ev.die(ev.pos, "%s cannot be set", clip(t.source))
			return out
		}
		v = ev.join(t.arg)
		if !ev.stopped() {
			ev.assign(ev.pos, t.text, v)
		}
		return one(v)
	}
	pat, known := ev.pattern(t.arg)
	if ev.stopped() {
		return out
	}
	if v.dyn || !known || len(v.s) > maxPattern || len(pat) > maxPattern {
		return one(ev.shrug(t))
	}
	return one(val{s: ev.strip(t.op, v.s, pat)})
}

// shrug is the value of a substitution that only the client can make.
func (ev *evaluator) shrug(t part) val {
	ev.note(ev.pos, "only the client can tell what %s is", clip(t.source))
	if _, err := checkQuoted(t.source); err != nil {
		return val{"", true}
	}
	return val{t.source, true}
}

// defaultFrags expands the word of ${A-word}: outside of quotes it falls apart too.
func (ev *evaluator) defaultFrags(t part, out []fragment) []fragment {
	if len(t.arg) == 0 {
		return append(out, fragment{quoted: t.quoted, split: !t.quoted})
	}
	n := len(out)
	out = ev.frags(t.arg, out)
	for i := range out[n:] {
		if f := &out[n+i]; !f.quoted {
			f.split = true
		}
	}
	return out
}

// positional expands $@ and $*.
func (ev *evaluator) positional(t part, out []fragment) []fragment {
	sep := ev.separator()
	for i, a := range ev.args {
		last := i == len(ev.args)-1
		f := fragment{val: a, quoted: t.quoted, split: !t.quoted, brk: !last && !(t.text == "*" && t.quoted)}
		out = append(out, f)
		if t.text == "*" && t.quoted && !last && sep != "" {
			out = append(out, fragment{val: val{s: sep}, quoted: true})
		}
	}
	if len(ev.args) == 0 && t.text == "*" && t.quoted {
		out = append(out, fragment{quoted: true})
	}
	return out
}

// strip takes what a pattern matches off an end of s.
func (ev *evaluator) strip(op, s, pat string) string {
	n := len(s)
	for i := range n + 1 {
		var head, tail string
		switch op {
		case "%":
			head, tail = s[:n-i], s[n-i:]
		case "%%":
			head, tail = s[:i], s[i:]
		case "#":
			head, tail = s[i:], s[:i]
		case "##":
			head, tail = s[n-i:], s[:n-i]
		}
		if ev.matches(pat, tail) {
			return head
		}
		if ev.halted {
			return s
		}
	}
	return s
}

// matches is shellMatch within the bounds of an evaluation.
func (ev *evaluator) matches(pat, s string) bool {
	if ev.bytes -= len(s) * (1 + len(pat)/16); ev.bytes < 0 {
		if !ev.halted {
			ev.halted = true
			ev.note(ev.pos, "this takes too long to evaluate")
		}
		return false
	}
	return shellMatch(pat, s)
}

// pattern expands a word as a pattern: what is quoted matches itself.
func (ev *evaluator) pattern(w []part) (string, bool) {
	var b strings.Builder
	for _, f := range ev.frags(w, nil) {
		if f.dyn {
			return "", false
		}
		for i := range len(f.s) {
			if f.quoted && strings.IndexByte(`*?[]\!^-`, f.s[i]) >= 0 {
				b.WriteByte('\\')
			}
			b.WriteByte(f.s[i])
		}
		if f.brk {
			b.WriteString(ev.separator())
		}
	}
	return b.String(), true
}

// tilde replaces a ~ that stands for the home directory.
func tilde(w []part) []part {
	if len(w) == 0 || w[0].quoted || w[0].kind != textPart || !strings.HasPrefix(w[0].text, "~") {
		return w
	}
	rest := w[0].text[1:]
	if rest != "" && rest[0] != '/' && rest[0] != ':' || rest == "" && len(w) > 1 {
		return w
	}
	return append([]part{{kind: paramPart, quoted: true, text: "HOME"}, {text: rest}}, w[1:]...)
}
