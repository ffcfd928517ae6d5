package ltsconf

import "fmt"

// Step is one section that a client was, or might have been, given settings
// from.
type Step struct {
	// Why says what led to the section, as in `host name "pc01"`, `LIKE of
	// [pc01]`, `pattern for IP address "10.0.0.1"`.
	Why string
	// Section, File and Line are where it stands. Section is empty when
	// nothing was found.
	Section string
	File    string
	Line    int
	// Applies reports whether the client gets settings from it; when not,
	// Why tells the reason.
	Applies  bool
	Settings []StepSetting
}

// StepSetting is a setting of a section that applies.
type StepSetting struct {
	Name  string
	Value Value
	// Used reports whether it is the one that the client gets. When not,
	// Why tells the reason.
	Used bool
	Why  string
}

// Explain returns what [File.Resolve] did for a client: each section it looked
// for, in order of precedence, and what became of each setting there. A value
// of NONE that wins is one that is not used: it removes the setting.
func (f *File) Explain(c Client) []Step {
	var steps []Step
	ch := &chain{f: f, rank: make(map[int32]int)}
	winner := make(map[int32]int32) // by key: section
	add := func(from int, why string) {
		for n, s := range ch.queue[from:] {
			if n > 0 {
				why = "LIKE of " + bracket(f.sections[ch.by[from+n]].name)
			}
			steps = append(steps, f.step(s, why, winner))
		}
	}
	miss := func(why string, s int32, ok bool) {
		st := Step{Why: why}
		if ok {
			sec := f.sections[s]
			st.Section, st.File, st.Line = sec.name, f.names[sec.file], int(sec.line)
		}
		steps = append(steps, st)
	}
	ids := c.ids()
	exact := ""
	for _, id := range ids {
		s, ok := f.index[fold(id)]
		switch why := fmt.Sprintf("%s %q", c.kind(id), id); {
		case !ok:
			miss(why+": no section", 0, false)
		case exact != "":
			miss(why+": ignored, clients use one exact section only, "+exact, s, true)
		default:
			exact = bracket(f.sections[s].name)
			from := len(ch.queue)
			ch.follow(s)
			add(from, why)
		}
	}
	for _, id := range ids {
		why := fmt.Sprintf("pattern for %s %q", c.kind(id), id)
		s, ok := f.firstPattern(id)
		if !ok {
			miss(why+": none matches", 0, false)
			continue
		}
		from := len(ch.queue)
		if ch.follow(s); len(ch.queue) == from {
			miss(why+": applies already", s, true)
			continue
		}
		add(from, why)
	}
	if s, ok := f.index["default"]; !ok {
		miss("default: no section", 0, false)
	} else {
		from := len(ch.queue)
		if ch.add(s, s); len(ch.queue) > from {
			add(from, "default")
		}
	}
	return steps
}

func bracket(name string) string { return "[" + clip(name) + "]" }

func (f *File) step(s int32, why string, winner map[int32]int32) Step {
	sec := &f.sections[s]
	st := Step{Why: why, Section: sec.name, File: f.names[sec.file], Line: int(sec.line), Applies: true}
	for i := range sec.settings {
		set := &sec.settings[i]
		e := StepSetting{Name: f.keys[set.key], Value: f.value(s, set)}
		if by, ok := winner[set.key]; ok {
			e.Why = "overridden by " + bracket(f.sections[by].name)
		} else {
			winner[set.key] = s
			if e.Used = !equalNone(set.raw); !e.Used {
				e.Why = "NONE removes it"
			}
		}
		st.Settings = append(st.Settings, e)
	}
	return st
}

// kind says which of the client's identifiers id is.
func (c Client) kind(id string) string {
	switch id {
	case c.Hostname:
		return "host name"
	case c.IP.Unmap().String():
		return "IP address"
	}
	return "MAC address"
}
