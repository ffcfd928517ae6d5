package pxecfg

import (
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
)

// Profile is a part of a configuration that several rules have in common.
// Profiles are laid one over the other: what is inherited first, in its order,
// then the profile itself. In a later one
//
//   - what is set for the whole menu (Title, Default, Timeout, UI ...) replaces
//     what was before;
//   - an entry whose Label was there before, in whatever menu, changes that
//     entry: all that is set is replaced, but Args are appended, and the
//     Entries of a submenu are laid over in the same way; other entries are
//     appended to the menu;
//   - Drop takes arguments out that were there before;
//   - Args are appended to those of each entry with a kernel.
//
// A profile is laid down once, at the first place where it is inherited.
type Profile struct {
	// Inherit are the names of profiles in [Rules.Profiles].
	Inherit []string
	// Config holds what the profile sets. Entries may be incomplete.
	Config Config
	// Args are kernel arguments for every entry with a kernel, wherever it
	// comes from. They follow the entry's own.
	Args []string
	// Drop are kernel arguments, or names with = for arguments with any value
	// ("console="), that were set before and are not wanted.
	Drop []string
}

func (p *Profile) empty() bool {
	c := &p.Config
	return len(p.Inherit) == 0 && len(p.Args) == 0 && len(p.Drop) == 0 && len(c.Entries) == 0 &&
		c.Title == "" && c.Default == "" && c.OnTimeout == "" && c.OnError == "" &&
		c.Timeout == 0 && c.TotalTimeout == 0 && c.UI == "" && !c.Fallback
}

// profiles resolves names.
type profiles struct {
	all   map[string]Profile
	known map[string][]string
}

// chain returns a profile and all that it inherits, in the order of laying
// down. path is how we got there.
func (p *profiles) chain(name string, path []string) ([]string, error) {
	if slices.Contains(path, name) {
		return nil, fmt.Errorf("profile %q inherits from itself: %s: %w", name, strings.Join(append(path, name), ", "), fs.ErrInvalid)
	}
	if c, ok := p.known[name]; ok {
		return c, nil
	}
	profile, ok := p.all[name]
	if !ok {
		if len(path) > 0 {
			return nil, fmt.Errorf("profile %q inherits from %q, which there is not: %w", path[len(path)-1], name, fs.ErrInvalid)
		}
		return nil, fmt.Errorf("there is no profile %q: %w", name, fs.ErrInvalid)
	}
	chain, err := p.chains(profile.Inherit, append(path[:len(path):len(path)], name))
	if err != nil {
		return nil, err
	}
	chain = append(chain, name)
	if p.known == nil {
		p.known = make(map[string][]string)
	}
	p.known[name] = chain
	return chain, nil
}

// chains returns those of several profiles, one after the other, and each
// profile once.
func (p *profiles) chains(names, path []string) ([]string, error) {
	var list []string
	seen := make(map[string]bool)
	for _, name := range names {
		chain, err := p.chain(name, path)
		if err != nil {
			return nil, err
		}
		for _, n := range chain {
			if !seen[n] {
				seen[n] = true
				list = append(list, n)
			}
		}
	}
	return list, nil
}

// layers lays down what own inherits, and own itself.
func (p *profiles) layers(own *Profile, name string) (*layered, error) {
	chain, err := p.chains(own.Inherit, nil)
	if err != nil {
		return nil, err
	}
	l := &layered{labels: make(map[string]*layer), origin: make(map[Value]string)}
	for _, n := range chain {
		profile := p.all[n]
		l.add(&profile, fmt.Sprintf("profile %q", n))
	}
	l.add(own, name)
	return l, l.err
}

// layered is a configuration in the making, and where each value came from.
type layered struct {
	cfg    Config            // without Entries
	list   []*layer          // its entries
	labels map[string]*layer // at any depth
	args   []string          // for every entry with a kernel
	origin map[Value]string  // with an empty From; nil if nobody looks
	err    error
}

// layer is an entry in the making.
type layer struct {
	Entry          // without Entries
	list  []*layer // which are these
	open  bool     // something is being laid over list
}

func (l *layered) clone(look bool) *layered {
	out := &layered{cfg: l.cfg, args: slices.Clone(l.args), labels: make(map[string]*layer, len(l.labels))}
	if look {
		out.origin = maps.Clone(l.origin)
	}
	out.list = out.copy(l.list)
	return out
}

func (l *layered) copy(list []*layer) []*layer {
	out := make([]*layer, len(list))
	for i, from := range list {
		n := l.layer(&from.Entry)
		n.list = l.copy(from.list)
		out[i] = n
	}
	return out
}

// layer makes one of an entry, without its Entries.
func (l *layered) layer(e *Entry) *layer {
	n := &layer{Entry: *e}
	n.Args, n.Entries = slices.Clip(n.Args), nil
	if n.Label != "" {
		l.labels[n.Label] = n
	}
	return n
}

func (l *layered) add(p *Profile, from string) {
	for _, d := range p.Drop {
		gone := func(a string) bool { return a == d || strings.HasSuffix(d, "=") && strings.HasPrefix(a, d) }
		l.args = without(l.args, gone)
		for _, n := range l.labels {
			n.Args = without(n.Args, gone)
		}
	}
	c, into := &p.Config, &l.cfg
	if c.Title != "" {
		into.Title = c.Title
	}
	if c.Default != "" {
		into.Default = c.Default
	}
	if c.OnTimeout != "" {
		into.OnTimeout = c.OnTimeout
	}
	if c.OnError != "" {
		into.OnError = c.OnError
	}
	if c.Timeout != 0 {
		into.Timeout = c.Timeout
	}
	if c.TotalTimeout != 0 {
		into.TotalTimeout = c.TotalTimeout
	}
	if c.UI != "" {
		into.UI = c.UI
	}
	into.Fallback = into.Fallback || c.Fallback
	if l.origin != nil {
		for v := range c.values {
			l.origin[v] = from
		}
		for _, a := range p.Args {
			l.origin[Value{Entry: anyEntry, Field: "arg", Value: a}] = from
		}
	}
	for i := range c.Entries {
		l.addEntry(&l.list, &c.Entries[i], from, 0)
	}
	l.args = append(l.args, p.Args...)
}

// anyEntry is no label.
const anyEntry = "*"

func (l *layered) addEntry(list *[]*layer, e *Entry, from string, depth int) {
	if l.origin != nil {
		for v := range e.values {
			l.origin[v] = from
		}
	}
	n := l.labels[e.Label]
	switch {
	case n == nil:
		n = l.layer(e)
		*list = append(*list, n)
	case n.open:
		l.err = e.errorf("", "submenu", e.Label, "it is within itself")
		return
	default:
		if e.what() && len(e.Entries) == 0 {
			l.forget(n.list)
			if n.list = nil; l.err != nil {
				return
			}
		}
		n.set(e)
	}
	if depth > maxMenuDepth {
		l.err = e.errorf("", "submenu", e.Label, "menus are more than %d deep", maxMenuDepth)
		return
	}
	n.open = true
	for i := range e.Entries {
		l.addEntry(&n.list, &e.Entries[i], from, depth+1)
	}
	n.open = false
}

// forget takes entries out of the index.
func (l *layered) forget(list []*layer) {
	for _, n := range list {
		if n.open {
			l.err = n.errorf("", "submenu", n.Label, "an entry in it takes the menu away that it is in")
		}
		delete(l.labels, n.Label)
		l.forget(n.list)
	}
}

// what tells whether it is said what the entry is.
func (e *Entry) what() bool {
	return e.Kernel != "" || e.LocalBoot || e.Chain != "" || len(e.Entries) > 0 || e.Separator
}

// set replaces what is set in the other, Entries left out.
func (e *Entry) set(o *Entry) {
	if o.Title != "" {
		e.Title = o.Title
	}
	if o.Hotkey != 0 {
		e.Hotkey = o.Hotkey
	}
	if o.Help != "" {
		e.Help = o.Help
	}
	e.Hidden = e.Hidden || o.Hidden
	if o.what() {
		e.Kernel, e.LocalBoot, e.Chain, e.Separator = o.Kernel, o.LocalBoot, o.Chain, o.Separator
		if o.Kernel == "" {
			e.Initrd, e.Root, e.Args, e.SysAppend = nil, nil, nil, 0
		}
	}
	if o.Initrd != nil {
		e.Initrd = o.Initrd
	}
	if o.Root != nil {
		e.Root = o.Root
	}
	if o.SysAppend != 0 {
		e.SysAppend = o.SysAppend
	}
	e.Args = append(e.Args, o.Args...)
}

// config returns the outcome.
func (l *layered) config() *Config {
	out := l.cfg
	out.Entries = l.entries(l.list)
	return &out
}

func (l *layered) entries(list []*layer) []Entry {
	if len(list) == 0 {
		return nil
	}
	out := make([]Entry, len(list))
	for i, n := range list {
		out[i] = n.Entry
		out[i].Entries = l.entries(n.list)
		if n.Kernel != "" {
			out[i].Args = slices.Concat(n.Args, l.args)
		}
	}
	return out
}

// without never changes the list, which may belong to a profile.
func without(list []string, gone func(string) bool) []string {
	if !slices.ContainsFunc(list, gone) {
		return list
	}
	return slices.DeleteFunc(slices.Clone(list), gone)
}
