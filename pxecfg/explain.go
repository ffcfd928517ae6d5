package pxecfg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strings"
)

// Step is one name that a machine asks for.
type Step struct {
	// Name is the file, as [Client.Names] has it, or its equivalent for the
	// client's loader.
	Name string
	// Hit says that there is such a file for the machine.
	Hit bool
	// Why says what it boots, or why there is none.
	Why string
	// Rule says which rule, machine or other part of the source decided, the
	// outermost first. It is empty where the source does not tell.
	Rule string
	// Values are what a hit consists of, and where it came from.
	Values []Value
}

// Value is one part of a [Config].
type Value struct {
	// Entry is the label of the entry, empty for the Config itself.
	Entry string
	// Field is what it is: "title", "default", "timeout", "on-timeout",
	// "on-error", "total-timeout", "ui", "kernel", "initrd", "root", "arg",
	// "sysappend", "localboot", "chain", "hotkey", "help", "hidden", "submenu"
	// or "separator".
	Field string
	// Value is its text.
	Value string
	// From is the profile, rule or source that it was set by.
	From string
}

// Explain goes through [Client.Names] as PXELINUX does beside a foreign DHCP
// server, where a machine is only what the name says, and its IP address if the
// client has one: it looks each name up on its own and stops at the first hit.
// Where the machine has a lease, all its names give the same, so the first one
// that has an identity the source knows tells what it boots.
//
// For a client whose Loader is GRUB or iPXE the names are [Client.GRUBNames] or
// [Client.IPXENames]. The source is told the client's architecture, platform and
// loader with each name.
//
// A look changes nothing: [Machines] and [Rules] do not count it as a sighting,
// and [Once] not as a boot.
func Explain(ctx context.Context, src Source, c Client) []Step {
	var steps []Step
	for _, name := range c.loaderNames() {
		step := Step{Name: name}
		l := &look{}
		cfg, err := explainName(context.WithValue(ctx, lookKey{}, l), src, c, name)
		step.Rule = strings.Join(l.path, ", ")
		switch {
		case err == nil:
			step.Hit, step.Why = true, cfg.summary()
			step.Values = l.values(cfg)
		case errors.Is(err, errShortened), errors.Is(err, errFallback):
			step.Why = err.Error()
		case errors.Is(err, fs.ErrNotExist):
			step.Why = "the source has nothing for it"
		default:
			step.Why = "the source failed: " + err.Error()
		}
		steps = append(steps, step)
		if step.Hit {
			break
		}
	}
	return steps
}

var (
	errShortened = errors.New("a shortened address names no machine, and the whole one was not configured")
	errFallback  = errors.New("only the fallback for unknown machines, which is kept for the last name")
)

func explainName(ctx context.Context, src Source, c Client, name string) (*Config, error) {
	r, ok := parseRequest(name)
	if !ok {
		return nil, fs.ErrNotExist // option 209: a file of the caller's
	}
	if r.ladder != "" {
		return nil, errShortened
	}
	asks := r.client(c.IP)
	asks.Arch, asks.ArchKnown, asks.Platform = c.Arch, c.ArchKnown, c.Platform
	asks.Loader = r.format.loader(c.Loader)
	cfg, err := ask(ctx, src, asks)
	if err == nil && cfg.Fallback && r.specific() {
		return nil, errFallback
	}
	return cfg, err
}

func (c Client) loaderNames() []string {
	switch c.Loader {
	case LoaderGRUB:
		return c.GRUBNames()
	case LoaderIPXE:
		return c.IPXENames()
	}
	return c.Names()
}

// summary says in one line what a Config boots.
func (c *Config) summary() string {
	if len(c.Entries) == 0 {
		return "a configuration without entries"
	}
	var b strings.Builder
	if c.Fallback {
		b.WriteString("fallback for unknown machines: ")
	}
	if e := c.first(); e != nil {
		switch {
		case e.LocalBoot:
			fmt.Fprintf(&b, "entry %q: the local disk", e.Label)
		case e.Chain != "":
			fmt.Fprintf(&b, "entry %q: chain %s", e.Label, e.Chain)
		default:
			fmt.Fprintf(&b, "entry %q: kernel %s", e.Label, e.Kernel)
		}
	}
	if n := len(c.Entries); n > 1 {
		fmt.Fprintf(&b, " (menu of %d)", n)
	}
	return b.String()
}

// look takes down how a decision came about. A nil look is none.
type look struct {
	path   []string
	origin map[Value]string
}

type lookKey struct{}

func lookOf(ctx context.Context) *look { l, _ := ctx.Value(lookKey{}).(*look); return l }

func isLook(ctx context.Context) bool { return lookOf(ctx) != nil }

// childLook is for a source that may turn out not to decide.
func childLook(ctx context.Context) (context.Context, *look) {
	if !isLook(ctx) {
		return ctx, nil
	}
	l := &look{}
	return context.WithValue(ctx, lookKey{}, l), l
}

// take makes a child's findings its own.
func (l *look) take(child *look) {
	if l != nil && child != nil {
		l.path = append(l.path, child.path...)
		l.from(child.origin)
	}
}

func (l *look) match(part string) {
	if l != nil {
		l.path = append(l.path, part)
	}
}

// from notes where values come from, on top of what was noted before.
func (l *look) from(origin map[Value]string) {
	if l == nil {
		return
	}
	if l.origin == nil {
		l.origin = make(map[Value]string, len(origin))
	}
	maps.Copy(l.origin, origin)
}

// values says of each value where it came from.
func (l *look) values(c *Config) []Value {
	var out []Value
	for v := range c.allValues {
		from, ok := l.origin[v]
		if !ok {
			from = l.origin[Value{Entry: anyEntry, Field: v.Field, Value: v.Value}]
		}
		if from == "" && len(l.path) > 0 {
			from = l.path[len(l.path)-1]
		}
		v.From = from
		out = append(out, v)
	}
	return out
}

// values yields what is set for the whole menu.
func (c *Config) values(yield func(Value) bool) {
	list := []Value{{Field: "title", Value: c.Title}, {Field: "default", Value: c.Default}, {Field: "ui", Value: c.UI},
		{Field: "on-timeout", Value: c.OnTimeout}, {Field: "on-error", Value: c.OnError}}
	if c.Timeout != 0 {
		list = append(list, Value{Field: "timeout", Value: c.Timeout.String()})
	}
	if c.TotalTimeout != 0 {
		list = append(list, Value{Field: "total-timeout", Value: c.TotalTimeout.String()})
	}
	for _, v := range list {
		if v.Value != "" && !yield(v) {
			return
		}
	}
}

func (c *Config) allValues(yield func(Value) bool) {
	goOn := true
	pass := func(v Value) bool { goOn = goOn && yield(v); return goOn }
	c.values(pass)
	entryValues(c.Entries, pass)
}

// entryValues yields those of entries and of the menus in them.
func entryValues(list []Entry, yield func(Value) bool) {
	for i := range list {
		list[i].values(yield)
		entryValues(list[i].Entries, yield)
	}
}

// values yields what is set.
func (e *Entry) values(yield func(Value) bool) {
	var list []Value
	add := func(field, value string) {
		if value != "" {
			list = append(list, Value{Entry: e.Label, Field: field, Value: value})
		}
	}
	add("title", e.Title)
	add("kernel", e.Kernel)
	for _, p := range e.Initrd {
		add("initrd", p)
	}
	if e.Root != nil {
		args, err := e.Root.Args()
		if err != nil {
			args = []string{err.Error()}
		}
		add("root", strings.Join(args, " "))
	}
	for _, a := range e.Args {
		add("arg", a)
	}
	if e.SysAppend != 0 {
		add("sysappend", fmt.Sprintf("%#x", e.SysAppend))
	}
	if e.LocalBoot {
		add("localboot", "true")
	}
	add("chain", e.Chain)
	if e.Hotkey != 0 {
		add("hotkey", string(e.Hotkey))
	}
	add("help", e.Help)
	if e.Hidden {
		add("hidden", "true")
	}
	if n := len(e.Entries); n > 0 {
		add("submenu", fmt.Sprintf("%d entries", n))
	}
	if e.Separator {
		add("separator", "true")
	}
	for _, v := range list {
		if !yield(v) {
			return
		}
	}
}
