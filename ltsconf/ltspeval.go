package ltsconf

import (
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
)

// LTSPClient is what a client of LTSP 19 and later is known by, and what it
// is doing.
type LTSPClient struct {
	Client

	// Applet is the part of LTSP that asks, such as init, initrd-bottom or
	// login; the sections [Applet/] apply to it. When it is empty they do not.
	Applet string

	// Server resolves for the server itself: the section [server] applies in
	// place of [clients].
	Server bool

	// Env holds other variables that the sections can use, such as those from
	// the kernel command line. They are not among the results. What is
	// neither here nor set by a section is empty.
	Env map[string]string
}

// Bounds on what one evaluation may do.
const (
	maxSteps   = 1 << 17 // commands run
	maxExpand  = 4 << 20 // bytes of values
	maxPattern = 4 << 10 // bytes that ${A%pattern} works on
)

// Resolve returns the settings that a client gets, each once, in the order in
// which they are set first.
//
// The sections that apply run in this order, later settings replacing earlier
// ones: the lines above all sections, [clients] (or [server], on the server,
// behind [common]), [common], then for the MAC address, the IP address, and
// the host name, which these may have set: the first section in the file that
// matches, exactly or as a pattern; then [applet/], and [applet/...] for the
// three. INCLUDE runs a section in place. No section runs twice.
//
// A pattern such as [*] or [c*] matches the words clients and common too, and
// when it stands first it runs in their place. Section names are in lower
// case, so a host name with capitals matches only where * or ? cover them.
//
// Values are as [Literal] has them. One with a $(command) in it is returned as
// written, for the client to run.
func (f *LTSPFile) Resolve(c LTSPClient) iter.Seq2[string, Value] {
	return func(yield func(string, Value) bool) {
		ev := f.run(c, false)
		for i, name := range ev.order {
			if v := ev.vars[name]; v != nil && v.set && v.pos == i {
				if !yield(name, v.value) {
					return
				}
			}
		}
	}
}

// Undecided returns where the settings of a client depend on what only a shell
// on the client can tell: commands in conditions, files, loops. What is below
// such a condition counts as not set.
func (f *LTSPFile) Undecided(c LTSPClient) []*SyntaxError { return f.run(c, false).notes }

// Explain returns the sections that were looked for, in the order in which
// they run, and what became of each setting there.
func (f *LTSPFile) Explain(c LTSPClient) []Step {
	ev := f.run(c, true)
	for i := range ev.steps {
		for j := range ev.steps[i].Settings {
			s := &ev.steps[i].Settings[j]
			switch v := ev.vars[s.Name]; {
			case v == nil || !v.set:
				s.Why = "unset later"
			case v.value == s.Value:
				s.Used = true
			default:
				s.Why = fmt.Sprintf("overridden by [%s], line %d", clip(v.value.Section), v.value.Line)
			}
		}
	}
	return ev.steps
}

type variable struct {
	raw   string // as inside of double quotes
	set   bool   // by the file
	pos   int    // in order
	value Value
}

type status byte

const (
	success status = iota
	failure
	unknown
)

type evaluator struct {
	f       *LTSPFile
	vars    map[string]*variable
	order   []string
	ran     map[string]bool // by function
	notes   []*SyntaxError
	steps   []Step
	cur     *ltspSection
	step    int // of the current section
	explain bool
	budget  int
	bytes   int
	stop    bool // return from the section
	depth   int
	halted  bool
}

func (f *LTSPFile) run(c LTSPClient, explain bool) *evaluator {
	ev := &evaluator{f: f, explain: explain, vars: make(map[string]*variable), ran: make(map[string]bool), budget: maxSteps, bytes: maxExpand}
	if f.broken {
		return ev
	}
	seed := func(name, value string) {
		if value != "" {
			ev.vars[name] = &variable{raw: Literal(value).Raw}
		}
	}
	for name, v := range c.Env {
		seed(name, v)
	}
	mac, ip := c.MAC.String(), ""
	if a := c.IP.Unmap(); a.IsValid() {
		ip = a.String()
	}
	seed("HOSTNAME", c.Hostname)
	seed("IP_ADDRESS", ip)
	seed("MAC_ADDRESS", mac)
	if c.Server {
		ev.call("", unnamed, "common", "server", mac, ip)
	} else {
		ev.call("", unnamed, "clients", "common", mac, ip)
	}
	ev.call("", ev.text("HOSTNAME"))
	if c.Applet != "" && c.Applet != "ltsp" {
		p := c.Applet + "/"
		ev.call("", p, p+ev.text("MAC_ADDRESS"), p+ev.text("IP_ADDRESS"), p+ev.text("HOSTNAME"))
	}
	return ev
}

// text is the value of a variable that a section's name is made from.
func (ev *evaluator) text(name string) string {
	v := ev.vars[name]
	if v == nil {
		return ""
	}
	s, _ := Value{Raw: v.raw}.Literal()
	return s
}

func (ev *evaluator) note(off int, format string, args ...any) {
	if len(ev.notes) >= maxProblems {
		return
	}
	line, col := 1, 1
	if ev.cur != nil {
		line, col = ev.cur.at(off)
	}
	ev.notes = append(ev.notes, &SyntaxError{File: ev.f.name, Line: line, Col: col, Msg: fmt.Sprintf(format, args...)})
}

// find returns the section that a name leads to.
func (f *LTSPFile) find(name string) (int32, bool) {
	i, ok := f.exact[name]
	if name == unnamed {
		return i, true // its case comes first
	}
	j, matched := f.patterns.first(name, func(p string) bool { return globMatch(p, name) })
	if matched && (!ok || j < i) {
		return j, true
	}
	return i, ok
}

// call runs the sections of these names; by is the section that includes them.
func (ev *evaluator) call(by string, names ...string) status {
	st := success
	for _, name := range names {
		st = success
		step := Step{}
		if ev.explain {
			step.Why = strconv.Quote(name)
			if by != "" {
				step.Why = "INCLUDE in " + bracket(by)
			}
		}
		i, ok := ev.f.find(name)
		id, s := "", (*ltspSection)(nil)
		if ok {
			id = ev.f.sections[i].id
			s = &ev.f.sections[ev.f.byID[id]]
			step.Section, step.File, step.Line = s.label, ev.f.name, s.line
		}
		switch {
		case !ok:
			step.Why += ": no section"
		case id == "call" || id == "list":
			step.Why += ": LTSP has a function of that name"
		case ev.ran[id]:
			step.Why += ": has run already"
		case ev.depth >= maxDepth*16:
			step.Why += ": nested too deeply"
			ev.note(0, "INCLUDE is nested too deeply")
		default:
			step.Applies = true
		}
		if ev.explain {
			ev.steps = append(ev.steps, step)
		}
		if !step.Applies {
			continue
		}
		ev.ran[id] = true
		cur, at := ev.cur, ev.step
		ev.cur, ev.step = s, len(ev.steps)-1
		ev.depth++
		st = ev.exec(s.body)
		ev.depth--
		ev.stop = false
		ev.cur, ev.step = cur, at
	}
	return st
}

// exec runs a command.
func (ev *evaluator) exec(n *node) status {
	if ev.stop || ev.halted || n == nil {
		return success
	}
	if ev.budget--; ev.budget < 0 {
		ev.halted = true
		ev.note(n.off, "this takes too long to evaluate")
		return unknown
	}
	switch n.kind {
	case listNode:
		st := success
		for _, c := range n.list {
			if ev.stop || ev.halted {
				break
			}
			st = ev.exec(c)
		}
		return st
	case groupNode:
		return ev.exec(n.list[0])
	case chainNode:
		st := ev.exec(n.list[0])
		for i, or := range n.ors {
			next := n.list[i+1]
			switch {
			case st == unknown:
				if sets(next) {
					ev.note(next.off, "only the client can tell whether this is done")
				}
			case or == (st == failure):
				st = ev.exec(next)
			}
		}
		return st
	case notNode:
		switch ev.exec(n.list[0]) {
		case success:
			return failure
		case failure:
			return success
		}
		return unknown
	case ifNode:
		for i := 0; i+1 < len(n.list); i += 2 {
			switch ev.exec(n.list[i]) {
			case success:
				return ev.exec(n.list[i+1])
			case unknown:
				ev.note(n.list[i].off, "only the client can tell this condition")
				return unknown
			}
		}
		if len(n.list)%2 == 1 {
			return ev.exec(n.list[len(n.list)-1])
		}
		return success
	case caseNode:
		return ev.execCase(n)
	case forNode:
		st := success
		fields, ok := ev.fields(n.words)
		if !ok || !isName(n.name) {
			ev.note(n.off, "only the client can tell what this loops over")
			return unknown
		}
		for _, w := range fields {
			ev.assign(n.off, n.name, Literal(w).Raw)
			if st = ev.exec(n.list[0]); ev.stop || ev.halted {
				break
			}
		}
		return st
	case simpleNode:
		return ev.simple(n)
	}
	ev.note(n.off, "%s: only the client can tell what it sets", n.name)
	return unknown
}

// sets reports whether n does more than test or run something.
func sets(n *node) bool {
	if n.kind == opaqueNode || len(n.assigns) > 0 || len(n.list)+len(n.arms) > 0 {
		return true
	}
	return len(n.words) > 0 && slices.Contains([]string{"export", "readonly", "unset", "return", includeCommand}, plainText(n.words[0]))
}

func (ev *evaluator) execCase(n *node) status {
	raw, dynamic := ev.expand(n.words[0])
	subject, ok := Value{Raw: raw}.Literal()
	if dynamic || !ok {
		ev.note(n.off, "only the client can tell which of these cases applies")
		return unknown
	}
	for _, a := range n.arms {
		for _, p := range a.patterns {
			pat, ok := ev.pattern(p)
			if !ok {
				ev.note(a.body.off, "only the client can tell which of these cases applies")
				return unknown
			}
			if shellMatch(pat, subject) {
				return ev.exec(a.body)
			}
		}
	}
	return success
}

func isKnownCommand(name string) bool {
	switch name {
	case ":", "true", "false", "test", "[", "echo", "printf", "export", "readonly", "unset", "return", includeCommand:
		return true
	}
	return false
}

func (ev *evaluator) simple(n *node) status {
	if len(n.words) == 0 {
		for _, a := range n.assigns {
			raw, _ := ev.expand(ev.tilde(a.val))
			ev.assign(a.off, a.name, raw)
		}
		return success
	}
	args, ok := ev.fields(n.words)
	if !ok || len(args) == 0 {
		if name := plainText(n.words[0]); name != "test" && name != "[" && name != "echo" {
			ev.note(n.off, "only the client can tell what this command is given")
		}
		return unknown
	}
	switch args[0] {
	case ":", "export", "readonly", "unset", "return":
		// Special: what is set in front of them stays set.
		for _, a := range n.assigns {
			raw, _ := ev.expand(ev.tilde(a.val))
			ev.assign(a.off, a.name, raw)
		}
	}
	switch args[0] {
	case ":", "true", "echo", "printf":
		return success
	case "false":
		return failure
	case "test":
		return test(args[1:])
	case "[":
		if args[len(args)-1] != "]" {
			return failure
		}
		return test(args[1 : len(args)-1])
	case "export", "readonly":
		for _, a := range args[1:] {
			if name, v, ok := strings.Cut(a, "="); ok && isName(name) {
				ev.assign(n.off, name, Literal(v).Raw)
			}
		}
		return success
	case "unset":
		for _, a := range args[1:] {
			delete(ev.vars, a)
		}
		return success
	case "return":
		ev.stop = true
		if len(args) > 1 && args[1] != "0" {
			return failure
		}
		return success
	case includeCommand:
		return ev.call(ev.cur.label, args[1:]...)
	}
	return unknown
}

// assign sets a variable.
func (ev *evaluator) assign(off int, name, raw string) {
	line, col := ev.cur.at(off)
	v := Value{Raw: raw, Section: ev.cur.label, File: ev.f.name, Line: line, Col: col}
	old := ev.vars[name]
	if old == nil || !old.set {
		ev.order = append(ev.order, name)
		old = &variable{pos: len(ev.order) - 1}
	}
	ev.vars[name] = &variable{raw: raw, set: true, pos: old.pos, value: v}
	if !ev.explain {
		return
	}
	st := &ev.steps[ev.step]
	st.Settings = append(st.Settings, StepSetting{Name: name, Value: v})
}

// test is test(1); what it needs the client for is unknown.
func test(args []string) status {
	is := func(b bool) status {
		if b {
			return success
		}
		return failure
	}
	switch len(args) {
	case 0:
		return failure
	case 1:
		return is(args[0] != "")
	case 2:
		switch args[0] {
		case "!":
			return is(args[1] == "")
		case "-n":
			return is(args[1] != "")
		case "-z":
			return is(args[1] == "")
		}
		return unknown
	case 3:
		a, b := args[0], args[2]
		switch args[1] {
		case "=":
			return is(a == b)
		case "!=":
			return is(a != b)
		case "==": // an error in the shells that run this
			return failure
		case "-eq", "-ne", "-lt", "-le", "-gt", "-ge":
			x, err := strconv.ParseInt(strings.TrimSpace(a), 10, 64)
			y, err2 := strconv.ParseInt(strings.TrimSpace(b), 10, 64)
			if err != nil || err2 != nil {
				return failure
			}
			switch args[1] {
			case "-eq":
				return is(x == y)
			case "-ne":
				return is(x != y)
			case "-lt":
				return is(x < y)
			case "-le":
				return is(x <= y)
			case "-gt":
				return is(x > y)
			}
			return is(x >= y)
		}
	}
	for _, op := range []string{"-o", "-a"} {
		i := slices.Index(args[1:len(args)-1], op) + 1
		if i == 0 {
			continue
		}
		x, y := test(args[:i]), test(args[i+1:])
		decides := success // for -o
		if op == "-a" {
			decides = failure
		}
		switch {
		case x == decides || y == decides:
			return decides
		case x == unknown || y == unknown:
			return unknown
		}
		return x
	}
	if args[0] == "!" {
		switch test(args[1:]) {
		case success:
			return failure
		case failure:
			return success
		}
	}
	return unknown
}
