package ltsconf

import (
	"slices"
	"strconv"
	"strings"
)

const (
	sectionPrefix  = "section_"
	includeCommand = "section_call"
)

// isSpecialBuiltin knows the builtins of POSIX.1-2017, XCU 2.14: what is set
// in front of them stays set, and the shell does not survive their errors.
func isSpecialBuiltin(name string) bool {
	switch name {
	case ":", ".", "break", "continue", "eval", "exec", "exit", "export", "readonly", "return", "set", "shift", "times", "trap", "unset":
		return true
	}
	return false
}

// isKnownCommand knows the commands that are evaluated here.
func isKnownCommand(name string) bool {
	switch name {
	case ":", "break", "continue", "eval", "exit", "export", "readonly", "return", "shift", "unset", "set",
		"true", "false", "test", "[", "echo", "printf", "local", "read", "command", includeCommand:
		return true
	}
	return false
}

func (ev *evaluator) simple(n *node) status {
	if len(n.words) == 0 {
		return ev.assignments(n)
	}
	switch name := literalWord(n.words[0]); name {
	case "export", "readonly", "local":
		if !ev.isFunction(name) {
			return ev.declare(n, n.words[1:], name)
		}
	}
	args, ok := ev.fields(n.words)
	if ev.stopped() {
		return unknown
	}
	if !ok {
		switch name := plainText(n.words[0]); {
		case isKnownCommand(name) && name != "test" && name != "[" && name != "echo" && name != "printf" && name != ":" || ev.isFunction(name):
			ev.note(n.off, "only the client can tell what this command is given")
		}
		if ev.out != nil {
			ev.out.known = false
		}
		return unknown
	}
	if len(args) == 0 {
		return ev.assignments(n)
	}
	in, out := ev.in, ev.out
	sure := ev.redirect(n.redirs)
	st := ev.command(n, args)
	ev.in, ev.out = in, out
	if !sure {
		return unknown
	}
	if st > 0 {
		ev.lastFail = n.off
	}
	return st
}

// assignments sets variables for good.
func (ev *evaluator) assignments(n *node) status {
	ev.inner = 0
	for _, a := range n.assigns {
		v := ev.join(tilde(a.val))
		if ev.stopped() {
			return unknown
		}
		ev.assign(a.off, a.name, v)
	}
	st := ev.inner
	if in, out := ev.in, ev.out; len(n.redirs) > 0 {
		sure := ev.redirect(n.redirs)
		if ev.in, ev.out = in, out; !sure {
			return unknown
		}
	}
	if st > 0 {
		ev.lastFail = n.off
	}
	return st
}

func (ev *evaluator) isFunction(name string) bool {
	if ev.funcs[name] != nil {
		return true
	}
	id, ok := strings.CutPrefix(name, sectionPrefix)
	_, known := ev.f.byID[id]
	return ok && known
}

// command runs a command that has arguments. What is set in front of it goes
// with it, but for special builtins and functions in dash's way.
func (ev *evaluator) command(n *node, args []string) status {
	name := args[0]
	fn := ev.isFunction(name) && !isSpecialBuiltin(name) && name != includeCommand
	if len(n.assigns) > 0 && (fn || name == "read" || name == "eval" || isSpecialBuiltin(name) || name == includeCommand) {
		var old []saved
		for _, a := range n.assigns {
			v := ev.join(tilde(a.val))
			if ev.stopped() {
				return unknown
			}
			old = append(old, saved{a.name, ev.vars[a.name]})
			ev.assign(a.off, a.name, v)
		}
		if !isSpecialBuiltin(name) {
			defer func() {
				for _, s := range slices.Backward(old) {
					ev.replace(s.name, ev.vars[s.name], s.v)
				}
			}()
		}
	} else {
		for _, a := range n.assigns {
			ev.frags(a.val, nil) // for what ${A:=x} does
		}
	}
	if ev.stopped() {
		return unknown
	}
	if fn {
		return ev.callFunction(name, literals(args[1:]))
	}
	return ev.builtin(n, name, args[1:])
}

func literals(args []string) []val {
	out := make([]val, len(args))
	for i, a := range args {
		out[i] = val{s: a}
	}
	return out
}

func (ev *evaluator) callFunction(name string, args []val) status {
	if fn := ev.funcs[name]; fn != nil && !(ev.f.top != nil && strings.HasPrefix(name, sectionPrefix)) {
		return ev.function(fn.list[0], args)
	}
	id := strings.TrimPrefix(name, sectionPrefix)
	if ev.hasRun(id) {
		return 0
	}
	if ev.explain {
		s := &ev.f.sections[ev.f.byID[id]]
		ev.steps = append(ev.steps, Step{Why: "command " + name, Section: s.label, File: ev.f.name, Line: s.line, Applies: true})
	}
	return ev.enter(id, args)
}

func (ev *evaluator) builtin(n *node, name string, args []string) status {
	switch name {
	case ":", "true":
		return 0
	case "":
		return 127
	case "false":
		return 1
	case "test":
		return test(args)
	case "[":
		if len(args) == 0 || args[len(args)-1] != "]" {
			return 2
		}
		return test(args[:len(args)-1])
	case "echo": // LTSP has one that knows no escapes
		ev.print(strings.Join(args, " ") + "\n")
		return 0
	case "printf":
		s, ok := printf(args)
		if !ok {
			if ev.out != nil {
				ev.out.known = false
			}
			return unknown
		}
		ev.print(s)
		return 0
	case "export", "readonly", "local":
		words := make([][]part, len(args))
		for i, a := range args {
			words[i] = []part{{text: a, quoted: true}}
		}
		return ev.declare(n, words, name)
	case "unset":
		return ev.unset(n, args)
	case "set":
		return ev.set(n, args)
	case "shift":
		k := 1
		if len(args) > 0 {
			var err error
			if k, err = strconv.Atoi(args[0]); err != nil || k < 0 {
				ev.die(n.off, "shift takes a number")
				return 2
			}
		}
		if k > len(ev.args) {
			ev.die(n.off, "shift takes more than there is")
			return 2
		}
		ev.args = ev.args[k:]
		return 0
	case "break", "continue":
		return ev.leave(n, name, args)
	case "return", "exit":
		return ev.end(n, name, args)
	case "eval":
		return ev.eval(n, strings.Join(args, " "))
	case "read":
		return ev.read(n, args)
	case "command":
		for len(args) > 0 && args[0] == "--" {
			args = args[1:]
		}
		if len(args) == 0 {
			return 0
		}
		if !strings.HasPrefix(args[0], "-") {
			return ev.builtin(n, args[0], args[1:])
		}
	case includeCommand:
		label := ""
		if ev.cur != nil {
			label = ev.cur.label
		}
		return ev.call(label, literals(args))
	case ".", "exec", "getopts", "alias", "unalias":
		ev.note(n.off, "only the client can tell what %s does", name)
	}
	if ev.out != nil {
		ev.out.known = false
	}
	return unknown
}

func (ev *evaluator) print(s string) {
	if ev.out == nil {
		return
	}
	if ev.bytes -= len(s); ev.bytes < 0 {
		if !ev.halted {
			ev.halted = true
			ev.note(ev.pos, "the values are too large")
		}
		return
	}
	ev.out.text = append(ev.out.text, s...)
}

// declare is export, readonly and local, whose arguments are expanded as
// assignments are.
func (ev *evaluator) declare(n *node, words [][]part, name string) status {
	if name != "local" {
		for _, a := range n.assigns {
			ev.assign(a.off, a.name, ev.join(tilde(a.val)))
		}
	}
	for _, w := range words {
		if key, v, ok := splitAssign(w); ok {
			to := ev.join(tilde(v))
			if ev.stopped() {
				return unknown
			}
			ev.declareOne(n, name, key, to, true)
			continue
		}
		args, ok := ev.fields([][]part{w})
		if ev.stopped() {
			return unknown
		}
		if !ok {
			ev.note(n.off, "only the client can tell what this command is given")
			return unknown
		}
		for _, a := range args {
			key, v, assigned := strings.Cut(a, "=")
			if strings.HasPrefix(a, "-") && name != "local" {
				continue
			}
			if !isName(key) {
				ev.die(n.off, "%s: %q is no name", name, clip(key))
				return 2
			}
			ev.declareOne(n, name, key, val{s: v}, assigned)
		}
	}
	return 0
}

func (ev *evaluator) declareOne(n *node, name, key string, v val, assigned bool) {
	if k := len(ev.locals) - 1; name == "local" && k >= 0 && !slices.ContainsFunc(ev.locals[k], func(s saved) bool { return s.name == key }) {
		ev.locals[k] = append(ev.locals[k], saved{key, ev.vars[key]})
	}
	if assigned {
		ev.assign(n.off, key, v)
	}
	if old := ev.vars[key]; name == "readonly" {
		now := &variable{unset: true}
		if old != nil {
			*now = *old
		}
		now.readonly = true
		ev.replace(key, old, now)
	}
}

func (ev *evaluator) unset(n *node, args []string) status {
	function := false
	for _, a := range args {
		switch {
		case a == "-f":
			function = true
		case a == "-v":
			function = false
		case function:
			if old := ev.funcs[a]; old != nil {
				if ev.subs > 0 {
					ev.undo = append(ev.undo, func() { ev.funcs[a] = old })
				}
				delete(ev.funcs, a)
			}
		case !isName(a):
			ev.die(n.off, "unset: %q is no name", clip(a))
			return 2
		default:
			old := ev.vars[a]
			if old != nil && old.readonly {
				ev.die(n.off, "%s is readonly", clip(a))
				return 2
			}
			ev.replace(a, old, nil)
			if id, ok := strings.CutPrefix(a, sectionPrefix); ok {
				delete(ev.ran, id)
			}
		}
	}
	return 0
}

func (ev *evaluator) set(n *node, args []string) status {
	if len(args) > 0 && args[0] == "--" {
		ev.args = literals(args[1:])
		return 0
	}
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") && !strings.HasPrefix(args[0], "+") {
		ev.args = literals(args)
		return 0
	}
	for _, a := range args {
		if strings.Trim(a, "-+ex") != "" {
			ev.note(n.off, "only the client can tell what set %s does", clip(a))
			return unknown
		}
		if strings.Contains(a, "e") {
			if old := ev.errexit; ev.subs > 0 {
				ev.undo = append(ev.undo, func() { ev.errexit = old })
			}
			ev.errexit = a[0] == '-'
		}
	}
	return 0
}

func (ev *evaluator) leave(n *node, name string, args []string) status {
	k := 1
	if len(args) > 0 {
		var err error
		if k, err = strconv.Atoi(args[0]); err != nil || k < 1 {
			ev.die(n.off, "%s takes a number from 1", name)
			return 2
		}
	}
	if ev.loops == 0 {
		return 0
	}
	ev.levels = min(k, ev.loops)
	ev.ctl = ctlBreak
	if name == "continue" {
		ev.ctl = ctlContinue
	}
	return 0
}

// end is return and exit.
func (ev *evaluator) end(n *node, name string, args []string) status {
	st := ev.last
	if len(args) > 0 {
		k, err := strconv.Atoi(args[0])
		if err != nil || k < 0 {
			ev.die(n.off, "%s takes a number", name)
			return 2
		}
		st = status(k & 255)
	}
	if name == "exit" && ev.subs == 0 {
		ev.die(n.off, "exit ends LTSP itself")
	}
	ev.ctl, ev.code = ctlReturn, st
	if name == "exit" {
		ev.ctl = ctlExit
	}
	if st > 0 {
		ev.lastFail = n.off
	}
	return st
}

func (ev *evaluator) eval(n *node, code string) status {
	if ev.budget -= len(code) / 16; ev.depth >= maxCalls {
		ev.die(n.off, "eval is nested too deeply")
		return 2
	}
	p := &shellParser{src: code, fixed: max(n.off, 1)}
	body, _, err := p.all()
	if err != nil {
		ev.die(n.off, "eval: %v", err)
		return 2
	}
	if len(body.list) == 0 {
		return 0
	}
	ev.depth++
	st := ev.exec(body)
	ev.depth--
	return st
}

// redirect follows redirections as far as their text is known. sure is false
// when files decide whether the command runs at all.
func (ev *evaluator) redirect(rs []*redir) (sure bool) {
	sure = true
	for _, r := range rs {
		target := val{}
		if r.here == nil && !strings.HasPrefix(r.op, "<<") {
			target = ev.join(r.word)
		}
		null := target == val{s: "/dev/null"}
		switch {
		case strings.HasPrefix(r.op, "<<"):
			if v := ev.join(r.here); r.fd <= 0 {
				ev.in = nil
				if !v.dyn {
					ev.in = &input{v.s}
				}
			}
		case r.op == "<" || r.op == "<>":
			sure = sure && null
			if r.fd <= 0 {
				if ev.in = nil; null {
					ev.in = &input{}
				}
			}
		case r.op == "<&":
			if r.fd <= 0 {
				ev.in = nil
			}
		case r.op == ">&":
			if (r.fd == 1 || r.fd < 0) && target != (val{s: "1"}) {
				ev.out = nil
			} else if r.fd == 2 && target == (val{s: "1"}) && ev.out != nil {
				ev.out = &capture{known: ev.out.known, text: nil}
				ev.out.known = false // messages of the shell
			}
		default:
			sure = sure && null
			if r.fd == 1 || r.fd < 0 {
				ev.out = nil
			}
		}
	}
	return sure
}
