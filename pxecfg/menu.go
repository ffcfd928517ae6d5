package pxecfg

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

const (
	// maxMenuDepth is how deep menus may be in each other: nobody finds an
	// entry farther down.
	maxMenuDepth = 16
	// maxHelp is the most that a help text may have, in bytes.
	maxHelp = 4000
)

// validateMenu checks the entries, and what names one of them.
func (c *Config) validateMenu() error {
	labels := make(map[string]*Entry, len(c.Entries))
	if err := validateEntries(c.Entries, labels, 0); err != nil {
		return err
	}
	for _, ref := range [...]struct{ field, label string }{
		{"default", c.Default}, {"on timeout", c.OnTimeout}, {"on error", c.OnError},
	} {
		if ref.label == "" {
			continue
		}
		switch e := labels[ref.label]; {
		case e == nil:
			return &RenderError{Field: ref.field, Value: ref.label, Reason: "no entry has this label"}
		case !e.boots():
			return &RenderError{Field: ref.field, Value: ref.label, Reason: "it is a submenu or a separator: name an entry that boots"}
		}
	}
	if c.first() == nil {
		return fmt.Errorf("configuration without entries to boot: add at least one: %w", fs.ErrInvalid)
	}
	return nil
}

func validateEntries(list []Entry, labels map[string]*Entry, depth int) error {
	var keys [256]bool
	for i := range list {
		e := &list[i]
		if err := e.validate(); err != nil {
			return err
		}
		if e.Label != "" {
			if labels[e.Label] != nil {
				return e.errorf("", "label", e.Label, "another entry has it too")
			}
			labels[e.Label] = e
		}
		if e.Hotkey != 0 && keys[e.Hotkey] {
			return e.errorf("", "hot key", string(e.Hotkey), "another entry of this menu has it too")
		}
		keys[e.Hotkey] = true
		if len(e.Entries) == 0 {
			continue
		}
		if depth == maxMenuDepth {
			return e.errorf("", "submenu", e.Label, "menus are more than %d deep", maxMenuDepth)
		}
		if err := validateEntries(e.Entries, labels, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (e *Entry) validate() error {
	if e.Label == "" && !e.Separator || len(e.Label) > maxTitle || !isLabel(e.Label) {
		return e.errorf("", "label", e.Label, "a label is made of up to 255 letters, digits and ._@~+- and does not begin with -")
	}
	if reason := checkText(e.Title); reason != "" {
		return e.errorf("", "title", e.Title, reason)
	}
	n := 0
	for _, set := range [...]bool{e.Kernel != "", e.LocalBoot, e.Chain != "", len(e.Entries) > 0, e.Separator} {
		if set {
			n++
		}
	}
	switch {
	case n != 1:
		return e.errorf("", "entry", e.Label, "exactly one of Kernel, LocalBoot, Chain, Entries and Separator must be set")
	case e.Kernel == "" && (len(e.Initrd) > 0 || e.Root != nil || len(e.Args) > 0 || e.SysAppend != 0):
		return e.errorf("", "entry", e.Label, "Initrd, Root, Args and SysAppend need a Kernel")
	case e.Hotkey != 0 && !(e.Hotkey >= 'a' && e.Hotkey <= 'z' || e.Hotkey >= '0' && e.Hotkey <= '9'):
		return e.errorf("", "hot key", string(e.Hotkey), "a key is an ASCII letter in lower case or a digit")
	case e.Separator && (e.Hotkey != 0 || e.Help != "" || e.Hidden):
		return e.errorf("", "separator", e.title(), "it has a Title at most")
	case len(e.Entries) > 0 && (e.Help != "" || e.Hidden):
		return e.errorf("", "submenu", e.Label, "Help and Hidden are for entries that boot")
	case len(e.Entries) > 0 && !slices.ContainsFunc(e.Entries, func(e Entry) bool { return !e.Hidden }):
		return e.errorf("", "submenu", e.Label, "nothing in it is shown")
	}
	if reason := checkHelp(e.Help); reason != "" {
		return e.errorf("", "help", e.Help, reason)
	}
	for _, f := range [...]struct{ field, path string }{{"kernel", e.Kernel}, {"chain", e.Chain}} {
		if f.path == "" {
			continue
		}
		if reason := checkPath(f.path); reason != "" {
			return e.errorf("", f.field, f.path, reason)
		}
	}
	for _, p := range e.Initrd {
		if p == "" {
			return e.errorf("", "initrd", p, "it is empty")
		}
		if reason := checkPath(p); reason != "" {
			return e.errorf("", "initrd", p, reason)
		}
	}
	return nil
}

func isLabel(s string) bool {
	for i := 0; i < len(s); i++ {
		if !isLabelByte(s[i]) {
			return false
		}
	}
	return s == "" || s[0] != '-'
}

// checkHelp checks lines of text.
func checkHelp(s string) (reason string) {
	switch {
	case s == "":
		return ""
	case len(s) > maxHelp:
		return "it is longer than 4000 bytes, which no menu shows"
	case strings.HasSuffix(s, "\n"):
		return "it ends with a line break"
	}
	for line := range strings.SplitSeq(s, "\n") {
		if reason := checkText(line); reason != "" {
			return reason
		}
	}
	return ""
}

// boots tells whether an entry is something to boot.
func (e *Entry) boots() bool { return !e.Separator && len(e.Entries) == 0 }

// each yields all entries that boot, submenus' too, in their order.
func each(list []Entry, yield func(*Entry) bool) bool {
	for i := range list {
		e := &list[i]
		switch {
		case len(e.Entries) > 0:
			if !each(e.Entries, yield) {
				return false
			}
		case !e.Separator && !yield(e):
			return false
		}
	}
	return true
}

// find returns the entry with a label, at any depth.
func find(list []Entry, label string) *Entry {
	for i := range list {
		if list[i].Label == label && label != "" {
			return &list[i]
		}
		if e := find(list[i].Entries, label); e != nil {
			return e
		}
	}
	return nil
}

// first returns the entry that boots by default, or nil.
func (c *Config) first() (first *Entry) {
	if c.Default != "" {
		return find(c.Entries, c.Default)
	}
	// A shown one of the main menu, if there is any.
	for _, want := range [...]func(*Entry) bool{
		func(e *Entry) bool { return !e.Hidden },
		func(e *Entry) bool { return true },
	} {
		for i := range c.Entries {
			if e := &c.Entries[i]; e.boots() && want(e) {
				return e
			}
		}
		each(c.Entries, func(e *Entry) bool {
			if want(e) {
				first = e
			}
			return first == nil
		})
		if first != nil {
			return first
		}
	}
	return nil
}

// isMenu tells whether there is anything to choose from.
func (c *Config) isMenu() bool {
	shown := 0
	for i := range c.Entries {
		e := &c.Entries[i]
		if len(e.Entries) > 0 {
			return true
		}
		if !e.Hidden && !e.Separator {
			shown++
		}
	}
	return shown > 1
}

// onTimeout returns the label that boots in place of first's, or "".
func (c *Config) onTimeout(first *Entry) string {
	if c.OnTimeout == first.Label || c.Timeout < 0 || !c.isMenu() {
		return ""
	}
	return c.OnTimeout
}
