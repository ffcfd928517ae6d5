package pxecfg

import (
	"io"
	"strconv"
	"strings"
	"time"
)

// WritePXELINUX writes c as a file for pxelinux.cfg/. The order of lines is
// safe for U-Boot's reader too, which ends an entry at the first word that it
// does not know and cannot have initrd= at the end of APPEND; it shows submenus
// as one list.
//
// Without [Config.UI] the entries are listed above PXELINUX's prompt, at which
// their labels can be typed. There is no quoting and no way to continue a line:
// what does not fit is a [*RenderError]. When an entry fails to load, PXELINUX
// comes back to its prompt and tries the default again after the timeout.
func (c *Config) WritePXELINUX(w io.Writer, t Target) error {
	if done, err := c.verbatim.write(w, t); done {
		return err
	}
	b, err := c.appendPXELINUX(c.buffer(), t)
	if err == nil {
		_, err = w.Write(b)
	}
	return err
}

// pxelinuxWriter writes one file.
type pxelinuxWriter struct {
	b        []byte
	t        Target
	args     []string // of one entry, kept for the next one
	headings int
	labelled bool // U-Boot is within a label
}

func (w *pxelinuxWriter) add(parts ...string) {
	for _, p := range parts {
		w.b = append(w.b, p...)
	}
}

func (w *pxelinuxWriter) number(keyword string, n int64) {
	w.add(keyword, " ")
	w.b = append(strconv.AppendInt(w.b, n, 10), '\n')
}

func (c *Config) appendPXELINUX(b []byte, t Target) ([]byte, error) {
	const format = "PXELINUX"
	if err := c.Validate(); err != nil {
		return nil, err
	}
	w := &pxelinuxWriter{b: b, t: t}
	first, menu := c.first(), c.isMenu()
	w.add("DEFAULT ", first.Label, "\n")
	if menu && c.UI != "" {
		ui, reason := t.pxelinux(c.UI)
		if reason != "" {
			return nil, &RenderError{Format: format, Field: "UI", Value: c.UI, Reason: reason}
		}
		w.add("UI ", ui, "\n")
	} else if menu {
		w.add("PROMPT 1\n")
	} else {
		w.add("PROMPT 0\n")
	}
	if !menu {
		// It starts at once; this is the pause before it is tried again.
		w.number("TIMEOUT", retrySeconds*10)
	} else if n := c.timeout(100 * time.Millisecond); n >= 0 {
		w.number("TIMEOUT", n)
	}
	if c.TotalTimeout > 0 {
		w.number("TOTALTIMEOUT", int64((c.TotalTimeout-1)/(100*time.Millisecond))+1)
	}
	if label := c.onTimeout(first); label != "" {
		w.add("ONTIMEOUT ", label, "\n")
	}
	if c.OnError != "" {
		w.add("ONERROR ", c.OnError, "\n")
	}
	if c.Title != "" {
		w.add("MENU TITLE ", c.Title, "\n")
	}
	if menu && c.UI == "" {
		w.say(c.Entries)
	}
	if err := w.entries(c.Entries, 0); err != nil {
		return nil, err
	}
	return w.b, nil
}

// say lists what can be typed.
func (w *pxelinuxWriter) say(list []Entry) {
	for i := range list {
		switch e := &list[i]; {
		case e.Separator && e.Title == "":
			w.add("SAY\n")
		case e.Separator:
			w.add("SAY ", e.Title, "\n")
		case len(e.Entries) > 0:
			w.add("SAY ", e.title(), "\n")
			w.say(e.Entries)
		case !e.Hidden:
			w.add("SAY ", e.Label, ": ", e.title(), "\n")
		}
	}
}

func (w *pxelinuxWriter) entries(list []Entry, depth int) error {
	for i := range list {
		var err error
		switch e := &list[i]; {
		case e.Separator && e.Title == "":
			w.add("MENU SEPARATOR\n")
		case e.Separator:
			// An entry has a label, and this one no other entry can have.
			w.headings++
			w.add("LABEL =")
			w.b = append(strconv.AppendInt(w.b, int64(w.headings), 10), '\n')
			w.labelled = true
			if err = w.menuLabel(e); err == nil {
				w.add("  MENU DISABLE\n")
			}
		case len(e.Entries) > 0:
			err = w.submenu(e, depth)
		default:
			err = w.entry(e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *pxelinuxWriter) submenu(e *Entry, depth int) error {
	if e.Hotkey != 0 && w.labelled {
		// MENU LABEL would rename the entry before for U-Boot: a word that it
		// does not know ends that.
		w.add("TEXT HELP\nENDTEXT\n")
		w.labelled = false
	}
	w.add("MENU BEGIN ", e.Label, "\n")
	if e.Hotkey != 0 {
		if err := w.menuLabel(e); err != nil {
			return err
		}
	}
	// It names the line of the menu above too.
	w.add("  MENU TITLE ", e.title(), "\n")
	if err := w.entries(e.Entries, depth+1); err != nil {
		return err
	}
	w.add("MENU END\n")
	return nil
}

// menuLabel writes what a menu shows.
func (w *pxelinuxWriter) menuLabel(e *Entry) error {
	title := e.title()
	if strings.Contains(title, "^") {
		return e.errorf("PXELINUX", "title", title, "^ marks a hot key in MENU LABEL")
	}
	if e.Hotkey == 0 {
		w.add("  MENU LABEL ", title, "\n")
		return nil
	}
	i := strings.IndexByte(title, e.Hotkey)
	if upper := strings.IndexByte(title, e.Hotkey&^0x20); e.Hotkey >= 'a' && upper >= 0 && (i < 0 || upper < i) {
		i = upper
	}
	if i < 0 {
		return e.errorf("PXELINUX", "hot key", string(e.Hotkey), "it can only be marked where it is in the title")
	}
	w.add("  MENU LABEL ", title[:i], "^", title[i:], "\n")
	return nil
}

func (w *pxelinuxWriter) entry(e *Entry) error {
	const format = "PXELINUX"
	w.add("LABEL ", e.Label, "\n")
	w.labelled = true
	if e.Title != "" || e.Hotkey != 0 {
		if err := w.menuLabel(e); err != nil {
			return err
		}
	}
	switch {
	case e.LocalBoot:
		w.add("  LOCALBOOT 0\n")
	case e.Chain != "":
		chain, reason := w.t.pxelinux(e.Chain)
		if reason != "" {
			return e.errorf(format, "chain", e.Chain, reason)
		}
		// Only these have types of their own; anything else is a network
		// boot program whatever its name (undionly.kpxe).
		keyword := "PXE"
		switch {
		case strings.HasSuffix(chain, ".c32"):
			keyword = "COM32"
		case strings.HasSuffix(chain, ".efi"):
			keyword = "KERNEL"
		}
		w.add("  ", keyword, " ", chain, "\n")
	default:
		if err := w.kernel(e); err != nil {
			return err
		}
	}
	if e.Hidden {
		w.add("  MENU HIDE\n")
	}
	return w.help(e)
}

// help goes last: the word ends the entry for U-Boot.
func (w *pxelinuxWriter) help(e *Entry) error {
	if e.Help == "" {
		return nil
	}
	for line := range strings.SplitSeq(e.Help, "\n") {
		word, _ := firstWord(line)
		switch {
		case fold(word) == "endtext":
			return e.errorf("PXELINUX", "help", line, "the word ends the text")
		case ubootTopWords[strings.ToLower(word)]:
			return e.errorf("PXELINUX", "help", line, "U-Boot, which reads the file too, takes the line for a directive: begin it with another word")
		}
	}
	w.add("  TEXT HELP\n", e.Help, "\n  ENDTEXT\n")
	w.labelled = false
	return nil
}

func (w *pxelinuxWriter) kernel(e *Entry) error {
	const format = "PXELINUX"
	kernel, reason := w.t.pxelinux(e.Kernel)
	switch {
	case reason != "":
	case strings.Contains(kernel, "initrd="):
		reason = initrdInWord
	}
	if reason != "" {
		return e.errorf(format, "kernel", e.Kernel, reason)
	}
	// Not KERNEL, which goes by the name's ending: vmlinuz-6.1.0 would be
	// started as a boot program.
	w.add("  LINUX ", kernel, "\n")
	n := len("BOOT_IMAGE=") + len(kernel)
	for i, p := range e.Initrd {
		name, reason := w.t.pxelinux(p)
		switch {
		case reason != "":
		case strings.Contains(p, ","):
			reason = "a comma separates files"
		}
		if reason != "" {
			return e.errorf(format, "initrd", p, reason)
		}
		if i == 0 {
			w.add("  INITRD ", name)
			n += len(" initrd=") + len(name)
		} else {
			w.add(",", name)
			n += 1 + len(name)
		}
	}
	if len(e.Initrd) > 0 {
		w.add("\n")
	}
	args, err := e.appendArgs(w.args[:0])
	if err != nil {
		return err
	}
	w.args = args
	if len(args) == 1 && args[0] == "-" {
		return e.errorf(format, "argument", "-", "APPEND - means no arguments")
	}
	for i, a := range args {
		if strings.Contains(a, "initrd=") {
			return e.errorf(format, "argument", a, initrdInWord)
		}
		word, _ := kernelWord(a) // checked by appendArgs
		if i == 0 {
			w.add("  APPEND")
		}
		w.add(" ", word)
		n += 1 + len(word)
	}
	if len(args) > 0 {
		w.add("\n")
	}
	if e.SysAppend != 0 {
		// The older spelling of SYSAPPEND, and the only one for U-Boot.
		w.number("  IPAPPEND", int64(e.SysAppend))
	}
	return e.checkLength(format, args, n+sysAppendLen(e.SysAppend))
}

// initrdInWord is why nothing before the initrds holds their keyword.
const initrdInWord = "PXELINUX takes initrd= even from within a word, and loads what follows"

// pxelinux spells a file for PXELINUX, which puts its prefix before everything
// that is neither a URL nor begins with "::" (the root of the TFTP server).
func (t Target) pxelinux(p string) (name, reason string) {
	switch {
	case isURL(p):
		name = p
	case strings.Contains(p, "::"):
		return "", "PXELINUX takes :: for the end of a host name"
	case strings.HasPrefix(treePath(p), t.Prefix):
		name = treePath(p)[len(t.Prefix):]
	case t.BaseURL != "":
		name = joinURL(t.BaseURL, p)
	default:
		name = "::" + treePath(p)
	}
	if name == "" {
		return "", "it is the prefix itself"
	}
	if len(name)+len(t.Prefix) > 255 {
		return "", "with its prefix it is longer than 255 bytes, which PXELINUX cuts off"
	}
	return name, ""
}
