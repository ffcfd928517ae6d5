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
//   - Title, Default, Timeout and UI replace those before, if they are set;
//   - an entry whose Label was there before changes that entry: Title, Kernel
//     or LocalBoot or Chain, Initrd, Root and SysAppend are replaced if they
//     are set, and Args are appended; other entries are appended to the menu;
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
		c.Title == "" && c.Default == "" && c.Timeout == 0 && c.UI == "" && !c.Fallback
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
	var chain []string
	for _, parent := range profile.Inherit {
		c, err := p.chain(parent, append(path[:len(path):len(path)], name))
		if err != nil {
			return nil, err
		}
		chain = appendNew(chain, c...)
	}
	chain = appendNew(chain, name)
	if p.known == nil {
		p.known = make(map[string][]string)
	}
	p.known[name] = chain
	return chain, nil
}

func appendNew(list []string, names ...string) []string {
	for _, n := range names {
		if !slices.Contains(list, n) {
			list = append(list, n)
		}
	}
	return list
}

// layers lays down what own inherits, and own itself.
func (p *profiles) layers(own *Profile, name string) (*layered, error) {
	var chain []string
	for _, parent := range own.Inherit {
		c, err := p.chain(parent, nil)
		if err != nil {
			return nil, err
		}
		chain = appendNew(chain, c...)
	}
	l := &layered{origin: make(map[Value]string)}
	for _, n := range chain {
		profile := p.all[n]
		l.add(&profile, fmt.Sprintf("profile %q", n))
	}
	l.add(own, name)
	return l, nil
}

// layered is a configuration in the making, and where each value came from.
type layered struct {
	cfg    Config
	args   []string         // for every entry with a kernel
	origin map[Value]string // with an empty From; nil if nobody looks
}

func (l *layered) clone(look bool) *layered {
	out := &layered{cfg: l.cfg, args: slices.Clone(l.args)}
	if look {
		out.origin = maps.Clone(l.origin)
	}
	out.cfg.Entries = slices.Clone(l.cfg.Entries)
	for i := range out.cfg.Entries {
		out.cfg.Entries[i].Args = slices.Clip(out.cfg.Entries[i].Args)
	}
	return out
}

func (l *layered) add(p *Profile, from string) {
	for _, d := range p.Drop {
		gone := func(a string) bool { return a == d || strings.HasSuffix(d, "=") && strings.HasPrefix(a, d) }
		l.args = without(l.args, gone)
		for i := range l.cfg.Entries {
			l.cfg.Entries[i].Args = without(l.cfg.Entries[i].Args, gone)
		}
	}
	c, into := &p.Config, &l.cfg
	if c.Title != "" {
		into.Title = c.Title
	}
	if c.Default != "" {
		into.Default = c.Default
	}
	if c.Timeout != 0 {
		into.Timeout = c.Timeout
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
		l.addEntry(&c.Entries[i], from)
	}
	l.args = append(l.args, p.Args...)
}

// anyEntry is no label.
const anyEntry = "*"

func (l *layered) addEntry(e *Entry, from string) {
	if l.origin != nil {
		for v := range e.values {
			l.origin[v] = from
		}
	}
	i := slices.IndexFunc(l.cfg.Entries, func(x Entry) bool { return x.Label == e.Label })
	if i < 0 {
		n := *e
		n.Args = slices.Clip(n.Args)
		l.cfg.Entries = append(l.cfg.Entries, n)
		return
	}
	into := &l.cfg.Entries[i]
	if e.Title != "" {
		into.Title = e.Title
	}
	if e.Kernel != "" || e.LocalBoot || e.Chain != "" {
		into.Kernel, into.LocalBoot, into.Chain = e.Kernel, e.LocalBoot, e.Chain
		if e.Kernel == "" {
			into.Initrd, into.Root, into.Args, into.SysAppend = nil, nil, nil, 0
		}
	}
	if e.Initrd != nil {
		into.Initrd = e.Initrd
	}
	if e.Root != nil {
		into.Root = e.Root
	}
	if e.SysAppend != 0 {
		into.SysAppend = e.SysAppend
	}
	into.Args = append(into.Args, e.Args...)
}

// config returns the outcome.
func (l *layered) config() *Config {
	out := l.cfg
	out.Entries = slices.Clone(out.Entries)
	for i := range out.Entries {
		if e := &out.Entries[i]; e.Kernel != "" {
			e.Args = slices.Concat(e.Args, l.args)
		}
	}
	return &out
}

// without never changes the list, which may belong to a profile.
func without(list []string, gone func(string) bool) []string {
	if !slices.ContainsFunc(list, gone) {
		return list
	}
	return slices.DeleteFunc(slices.Clone(list), gone)
}
