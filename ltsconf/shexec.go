package ltsconf

import "slices"

// status is what a command returns; unknown when only the client can tell.
type status int

const unknown status = -1

type control byte

const (
	ctlNone control = iota
	ctlBreak
	ctlContinue
	ctlReturn
	ctlExit
)

// maxCalls bounds the nesting of functions: dash ends at 1000, and LTSP itself
// has some around.
const maxCalls = 990

type evaluator struct {
	f        *LTSPFile
	vars     map[string]*variable
	funcs    map[string]*node
	order    []string
	ran      map[string]bool // sections, by function
	args     []val           // $1 and on
	last     status          // $?
	inner    status          // of the last $(...)
	notes    []*SyntaxError
	noted    int          // notes, those above the limit included
	fatal    *SyntaxError // the shell has ended
	failed   *SyntaxError // LTSP has
	lastFail int          // offset of the last command that failed
	steps    []Step
	cur      *ltspSection
	step     int // of the current section
	pos      int // offset of the current command
	explain  bool
	budget   int
	bytes    int
	depth    int
	loops    int // around the current command, in its function
	ctl      control
	levels   int    // of loops that break and continue have left to do
	code     status // of return and exit
	halted   bool
	locals   [][]saved // of each function that runs
	subs     int       // shells of their own around
	errexit  bool      // set -e, as LTSP has it
	tested   bool      // something looks at the status: set -e does not count
	undo     []func()  // what they have changed
	out      *capture
	in       *input
}

type saved struct {
	name string
	v    *variable
}

// capture is the standard output that a $(...) takes.
type capture struct {
	text  []byte
	known bool
}

// input is the standard input, where it is known.
type input struct {
	text string
}

func (ev *evaluator) stopped() bool { return ev.ctl != ctlNone || ev.halted }

// exec runs a command.
func (ev *evaluator) exec(n *node) status {
	if ev.stopped() || n == nil {
		return ev.last
	}
	if ev.budget--; ev.budget < 0 || ev.bytes < 0 {
		ev.halted = true
		ev.note(n.off, "this takes too long to evaluate")
		return unknown
	}
	ev.pos = n.off
	if n.kind != simpleNode && len(n.redirs) > 0 {
		in, out := ev.in, ev.out
		sure := ev.redirect(n.redirs)
		st := ev.execNode(n)
		ev.in, ev.out = in, out
		if !sure {
			st = unknown
		}
		ev.last = st
		return st
	}
	st := ev.execNode(n)
	ev.last = st
	if k := n.kind; st != 0 && ev.errexit && !ev.tested && !ev.stopped() && (k == simpleNode || k == subNode || k == pipeNode) {
		if st == unknown {
			ev.note(n.off, "only the client can tell whether this ends the $( )")
		}
		ev.ctl, ev.code = ctlExit, st
	}
	return st
}

// test runs a command whose status is looked at.
func (ev *evaluator) test(n *node) status {
	tested := ev.tested
	ev.tested = true
	st := ev.exec(n)
	ev.tested = tested
	return st
}

func (ev *evaluator) execNode(n *node) status {
	switch n.kind {
	case listNode:
		st := status(0)
		for _, c := range n.list {
			if ev.stopped() {
				break
			}
			st = ev.exec(c)
		}
		return st
	case groupNode:
		return ev.exec(n.list[0])
	case chainNode:
		return ev.chain(n)
	case notNode:
		switch ev.test(n.list[0]) {
		case unknown:
			return unknown
		case 0:
			ev.lastFail = n.off
			return 1
		}
		return 0
	case ifNode:
		return ev.ifCommand(n)
	case caseNode:
		return ev.caseCommand(n)
	case forNode:
		return ev.forLoop(n)
	case loopNode:
		return ev.whileLoop(n)
	case subNode:
		if n.async {
			return 0
		}
		return ev.subshell(func() status { return ev.exec(n.list[0]) })
	case pipeNode:
		return ev.pipeline(n)
	case funcNode:
		ev.define(n)
		return 0
	}
	return ev.simple(n)
}

func (ev *evaluator) chain(n *node) status {
	st := ev.test(n.list[0])
	for i, or := range n.ors {
		if ev.stopped() {
			break
		}
		next := n.list[i+1]
		switch {
		case st == unknown:
			if ev.sets(next) {
				ev.note(next.off, "only the client can tell whether this is done")
			}
		case or != (st != 0):
		case i+1 < len(n.ors):
			st = ev.test(next)
		default:
			st = ev.exec(next)
		}
	}
	return st
}

func (ev *evaluator) ifCommand(n *node) status {
	for i := 0; i+1 < len(n.list); i += 2 {
		st := ev.test(n.list[i])
		if ev.stopped() {
			return st
		}
		switch st {
		case 0:
			return ev.exec(n.list[i+1])
		case unknown:
			ev.note(n.list[i].off, "only the client can tell this condition")
			return unknown
		}
	}
	if len(n.list)%2 == 1 {
		return ev.exec(n.list[len(n.list)-1])
	}
	return 0
}

func (ev *evaluator) caseCommand(n *node) status {
	subject := ev.join(n.words[0])
	if ev.stopped() {
		return unknown
	}
	if subject.dyn {
		ev.note(n.off, "only the client can tell which of these cases applies")
		return unknown
	}
	for _, a := range n.arms {
		for _, p := range a.patterns {
			ev.bytes -= 8
			pat, ok := ev.pattern(p)
			if ev.stopped() {
				return unknown
			}
			if !ok {
				ev.note(a.body.off, "only the client can tell which of these cases applies")
				return unknown
			}
			if ev.matches(pat, subject.s) {
				return ev.exec(a.body)
			}
		}
	}
	return 0
}

func (ev *evaluator) forLoop(n *node) status {
	var fields []val
	if n.all {
		fields = ev.args
	} else {
		list, ok := ev.fields(n.words)
		if !ok {
			if !ev.stopped() {
				ev.note(n.off, "only the client can tell what this loops over")
			}
			return unknown
		}
		for _, w := range list {
			fields = append(fields, val{s: w})
		}
	}
	st := status(0)
	ev.loops++
	for _, w := range fields {
		ev.assign(n.off, n.name, w)
		if st = ev.exec(n.list[0]); ev.leaves() {
			break
		}
	}
	ev.loops--
	return st
}

func (ev *evaluator) whileLoop(n *node) status {
	st := status(0)
	ev.loops++
	for {
		cond := ev.test(n.list[0])
		if ev.ctl != ctlNone {
			if ev.leaves() {
				break
			}
			continue
		}
		if ev.halted {
			break
		}
		if cond == unknown {
			ev.note(n.list[0].off, "only the client can tell this condition")
			st = unknown
			break
		}
		if (cond == 0) == (n.name == "until") {
			break
		}
		if st = ev.exec(n.list[1]); ev.leaves() {
			break
		}
	}
	ev.loops--
	return st
}

// leaves ends an iteration, and reports whether the loop ends too.
func (ev *evaluator) leaves() bool {
	switch ev.ctl {
	case ctlNone:
		return ev.halted
	case ctlBreak, ctlContinue:
		if ev.levels--; ev.levels > 0 {
			return true
		}
		again := ev.ctl == ctlContinue
		ev.ctl = ctlNone
		return !again
	}
	return true
}

// subshell runs something that cannot change anything around it.
func (ev *evaluator) subshell(do func() status) status {
	mark, args, loops, cur := len(ev.undo), ev.args, ev.loops, ev.locals
	var frame []saved
	if len(cur) > 0 {
		frame = cur[len(cur)-1]
	}
	ev.subs++
	st := do()
	if ev.ctl != ctlNone {
		if ev.ctl == ctlReturn || ev.ctl == ctlExit {
			st = ev.code
		}
		ev.ctl = ctlNone
	}
	for i := len(ev.undo) - 1; i >= mark; i-- {
		ev.undo[i]()
	}
	ev.undo, ev.args, ev.loops, ev.locals = ev.undo[:mark], args, loops, cur
	if len(cur) > 0 {
		cur[len(cur)-1] = frame
	}
	ev.subs--
	return st
}

// pipeline runs commands, each in a shell of its own.
func (ev *evaluator) pipeline(n *node) status {
	in, out := ev.in, ev.out
	var st status
	for i, c := range n.list {
		ev.out = out
		if i < len(n.list)-1 {
			ev.out = &capture{known: true}
		}
		st = ev.subshell(func() status { return ev.exec(c) })
		if i < len(n.list)-1 {
			if ev.in = nil; ev.out.known {
				ev.in = &input{string(ev.out.text)}
			}
		}
	}
	ev.in, ev.out = in, out
	return st
}

func (ev *evaluator) define(n *node) {
	if ev.funcs == nil {
		ev.funcs = make(map[string]*node)
	}
	old, name := ev.funcs[n.name], n.name
	if ev.subs > 0 {
		ev.undo = append(ev.undo, func() { ev.funcs[name] = old })
	}
	ev.funcs[name] = n
}

// function runs the body of a function.
func (ev *evaluator) function(body *node, args []val) status {
	if ev.depth >= maxCalls {
		ev.die(ev.pos, "functions are nested too deeply")
		return 2
	}
	outer, loops := ev.args, ev.loops
	ev.args, ev.loops = args, 0
	ev.locals = append(ev.locals, nil)
	ev.depth++
	st := ev.exec(body)
	ev.depth--
	if n := len(ev.locals) - 1; n >= 0 {
		for _, s := range slices.Backward(ev.locals[n]) {
			ev.restore(s.name, s.v)
		}
		ev.locals = ev.locals[:n]
	}
	ev.args, ev.loops = outer, loops
	if ev.ctl == ctlReturn {
		ev.ctl = ctlNone
		st = ev.code
	}
	return st
}

// assign sets a variable.
func (ev *evaluator) assign(off int, name string, v val) {
	old := ev.vars[name]
	if old != nil && old.readonly {
		ev.die(off, "%s is readonly", clip(name))
		return
	}
	ev.bytes -= 8
	set := &variable{val: v, set: true, off: off}
	if old == nil || !old.set {
		ev.order = append(ev.order, name)
		set.pos = len(ev.order) - 1
	} else {
		set.pos = old.pos
	}
	ev.replace(name, old, set)
	if ev.explain && ev.subs == 0 {
		st := &ev.steps[ev.step]
		st.Settings = append(st.Settings, StepSetting{Name: name, Value: ev.value(set)})
	}
}

func (ev *evaluator) replace(name string, old, now *variable) {
	if ev.subs > 0 {
		ev.undo = append(ev.undo, func() { ev.restore(name, old) })
	}
	ev.restore(name, now)
}

// die ends the shell, as an error does that a shell does not survive.
func (ev *evaluator) die(off int, format string, args ...any) {
	if ev.ctl == ctlExit {
		return
	}
	ev.ctl, ev.code = ctlExit, 2
	if ev.subs == 0 {
		ev.fatal = ev.problem(off, format+"; the client stops its boot here", args...)
	}
}

// sets reports whether n does more than test or run something.
func (ev *evaluator) sets(n *node) bool {
	found := false
	walk(n, func(n *node) {
		ev.budget--
		if len(n.assigns) > 0 && len(n.words) == 0 || n.kind == forNode || n.kind == funcNode {
			found = true
		}
		if len(n.words) > 0 && n.kind == simpleNode {
			switch name := plainText(n.words[0]); name {
			case "export", "readonly", "unset", "return", "exit", "eval", "read", "local", "set", "shift", "break", "continue", includeCommand:
				found = true
			}
		}
	})
	return found
}
