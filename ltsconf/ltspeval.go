package ltsconf

import (
	"fmt"
	"iter"
	"strconv"
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
// Values are as [Literal] has them. One that needs a $(command) of the client
// is returned as written, for the client to run. A client that stops its boot
// while it reads the sections has no settings: see [LTSPFile.Stops].
func (f *LTSPFile) Resolve(c LTSPClient) iter.Seq2[string, Value] {
	return func(yield func(string, Value) bool) {
		ev := f.run(c, false)
		if ev.fatal != nil {
			return
		}
		for i, name := range ev.order {
			if v := ev.vars[name]; v != nil && v.set && v.pos == i {
				if !yield(name, ev.value(v)) {
					return
				}
			}
		}
	}
}

// Undecided returns where the settings of a client depend on what only a shell
// on the client can tell: what a command answers, files, what is read from
// them. What is below such a condition counts as not set.
func (f *LTSPFile) Undecided(c LTSPClient) []*SyntaxError { return f.run(c, false).notes }

// Stops returns where a client stops its boot while it reads the sections; nil
// when it does not. A shell stops at an error, such as ${A:?}, a setting that
// is readonly, arithmetic that is none, or exit. LTSP stops when the last
// section that it runs of a group ends in a command that fails: a section that
// ends in "test x = y && A=1" does where x is not y, and wants an if instead.
func (f *LTSPFile) Stops(c LTSPClient) *SyntaxError {
	ev := f.run(c, false)
	if ev.fatal != nil {
		return ev.fatal
	}
	return ev.failed
}

// Explain returns the sections that were looked for, in the order in which
// they run, and what became of each setting there.
func (f *LTSPFile) Explain(c LTSPClient) []Step {
	ev := f.run(c, true)
	for i := range ev.steps {
		for j := range ev.steps[i].Settings {
			s := &ev.steps[i].Settings[j]
			v := ev.vars[s.Name]
			if v == nil || !v.set || ev.fatal != nil {
				s.Why = "unset later"
				continue
			}
			if now := ev.value(v); now == s.Value {
				s.Used = true
			} else {
				s.Why = fmt.Sprintf("overridden by [%s], line %d", clip(now.Section), now.Line)
			}
		}
	}
	return ev.steps
}

// variable is one of the shell's. It is replaced, never changed, so that a
// shell of its own can be left by putting the old ones back.
type variable struct {
	val      val
	set      bool // by the file
	pos      int  // in order
	off      int  // where it was set
	readonly bool
	unset    bool // readonly without a value
}

func (ev *evaluator) value(v *variable) Value {
	section, line, col := ev.f.at(v.off)
	return Value{Raw: v.val.raw(), Section: ev.f.sections[section].label, File: ev.f.name, Line: line, Col: col}
}

// The variables of LTSP that are local while the sections run: what a section
// sets them to is lost.
var ltspLocals = [...]string{"config", "applet", "clients_section", "server_section", "sub_dir", "want", "got"}

func (f *LTSPFile) run(c LTSPClient, explain bool) *evaluator {
	ev := &evaluator{f: f, explain: explain, vars: make(map[string]*variable), ran: make(map[string]bool), budget: maxSteps, bytes: maxExpand, errexit: true, tested: true}
	if f.broken {
		return ev
	}
	for name, v := range c.Env {
		ev.seed(name, v)
	}
	mac, ip := c.MAC.String(), ""
	if a := c.IP.Unmap(); a.IsValid() {
		ip = a.String()
	}
	ev.seed("HOSTNAME", c.Hostname)
	ev.seed("IP_ADDRESS", ip)
	ev.seed("MAC_ADDRESS", mac)
	var locals [len(ltspLocals)]*variable
	for i, name := range ltspLocals {
		locals[i] = ev.vars[name]
	}
	ev.vars["applet"] = &variable{val: val{s: c.Applet}}
	defer func() {
		for i, name := range ltspLocals {
			ev.restore(name, locals[i])
		}
	}()
	if f.top != nil {
		ev.cur = &f.sections[0]
		ev.steps = append(ev.steps, Step{Why: "outside of the sections", Section: unnamed, File: f.name, Line: 1, Applies: true})
		ev.exec(f.top)
		ev.ctl = ctlNone
	}
	if c.Server {
		ev.group(unnamed, "common", "server", mac, ip)
	} else {
		ev.group(unnamed, "clients", "common", mac, ip)
	}
	ev.group(ev.text("HOSTNAME"))
	if applet := ev.text("applet"); applet != "" && applet != "ltsp" {
		p := applet + "/"
		ev.group(p, p+ev.text("MAC_ADDRESS"), p+ev.text("IP_ADDRESS"), p+ev.text("HOSTNAME"))
	}
	return ev
}

func (ev *evaluator) seed(name, value string) {
	if value != "" {
		ev.vars[name] = &variable{val: val{s: value}}
	}
}

func (ev *evaluator) restore(name string, v *variable) {
	if v == nil {
		delete(ev.vars, name)
	} else {
		ev.vars[name] = v
	}
}

// text is the value of a variable that a section's name is made from.
func (ev *evaluator) text(name string) string {
	if v := ev.vars[name]; v != nil && !v.val.dyn {
		return v.val.s
	}
	return ""
}

func (ev *evaluator) problem(off int, format string, args ...any) *SyntaxError {
	_, line, col := ev.f.at(off)
	return &SyntaxError{File: ev.f.name, Line: line, Col: col, Msg: fmt.Sprintf(format, args...)}
}

func (ev *evaluator) note(off int, format string, args ...any) {
	ev.noted++
	if len(ev.notes) < maxProblems {
		ev.notes = append(ev.notes, ev.problem(off, format, args...))
	}
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

// group runs the sections of these names as LTSP does, which stops when the
// last one fails.
func (ev *evaluator) group(names ...string) {
	args := make([]val, len(names))
	for i, n := range names {
		args[i] = val{s: n}
	}
	st := ev.call("", args)
	if st > 0 && ev.failed == nil && ev.fatal == nil && !ev.halted {
		ev.failed = ev.problem(ev.lastFail, "the section ends in a command that fails, and the client stops its boot; use an if, or put true behind it")
	}
}

// call runs the sections of these names; by is the section that includes them.
func (ev *evaluator) call(by string, names []val) status {
	outer := ev.vars["section"]
	ev.depth++ // it is a function too
	defer func() {
		ev.depth--
		ev.restore("section", outer)
	}()
	st := status(0)
	for _, name := range names {
		if ev.ctl != ctlNone || ev.halted {
			break
		}
		ev.vars["section"] = &variable{val: name}
		if name.dyn {
			ev.note(ev.pos, "only the client can tell which section this includes")
			st = unknown
			continue
		}
		st = ev.section(by, name.s, names)
	}
	return st
}

// section runs the section that a name leads to, unless it has run.
func (ev *evaluator) section(by, name string, args []val) status {
	step := Step{}
	if ev.explain {
		step.Why = strconv.Quote(name)
		if by != "" {
			step.Why = "INCLUDE in " + bracket(by)
		}
	}
	ev.bytes -= ev.f.patterns.count
	i, ok := ev.f.find(name)
	id := ""
	if ok {
		id = ev.f.sections[i].id
		s := &ev.f.sections[ev.f.byID[id]]
		step.Section, step.File, step.Line = s.label, ev.f.name, s.line
	}
	switch {
	case !ok:
		step.Why += ": no section"
	case id == "call" || id == "list":
		step.Why += ": LTSP has a function of that name"
	case ev.hasRun(id):
		step.Why += ": has run already"
	default:
		step.Applies = true
	}
	if ev.explain {
		ev.steps = append(ev.steps, step)
	}
	if !step.Applies {
		return 0
	}
	return ev.enter(id, args)
}

// hasRun knows a section that ran by the variable that LTSP sets then.
func (ev *evaluator) hasRun(id string) bool {
	if v := ev.vars[sectionPrefix+id]; v != nil {
		return v.val == val{s: "1"}
	}
	return ev.ran[id]
}

// enter runs a section's function.
func (ev *evaluator) enter(id string, args []val) status {
	ev.ran[id] = true
	delete(ev.vars, sectionPrefix+id)
	s := &ev.f.sections[ev.f.byID[id]]
	body := s.body
	if ev.f.top != nil {
		fn := ev.funcs[sectionPrefix+id]
		if fn == nil {
			return 127
		}
		body = fn.list[0]
	}
	cur, at := ev.cur, ev.step
	ev.cur, ev.step = s, len(ev.steps)-1
	st := ev.function(body, args)
	ev.cur, ev.step = cur, at
	return st
}
