package pxecfg

import (
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// WriteGRUB writes c as a grub.cfg. Paths begin at the root of the device that
// GRUB was started from; http and tftp URLs become (http,host)/path. An entry
// that does not load says so and the machine starts over, or boots
// [Config.OnError].
//
// Every word is in single quotes, in which GRUB's script language changes
// nothing. But where it builds the kernel's command line GRUB puts a backslash
// before quotes and backslashes, which the kernel does not understand: an
// argument, or a kernel's name, with one of these is a [*RenderError].
func (c *Config) WriteGRUB(w io.Writer, t Target) error {
	b, err := c.appendGRUB(c.buffer(), t)
	if err == nil {
		_, err = w.Write(b)
	}
	return err
}

// grubWriter writes one file.
type grubWriter struct {
	b       []byte
	c       *Config
	t       Target
	base    string // of every path in the tree
	depth   int    // of the line
	inError bool   // within the function onerror
	args    []string
}

// line begins a line, n tabs further in.
func (w *grubWriter) line(n int, parts ...string) {
	for range w.depth + n {
		w.b = append(w.b, '\t')
	}
	w.add(parts...)
}

func (w *grubWriter) add(parts ...string) {
	for _, p := range parts {
		w.b = append(w.b, p...)
	}
}

// quote writes one literal word. Within single quotes GRUB takes every byte as
// it is, except the quote.
func (w *grubWriter) quote(s string) { w.b = appendGRUBQuote(w.b, s) }

func appendGRUBQuote(b []byte, s string) []byte {
	b = append(b, '\'')
	for {
		i := strings.IndexByte(s, '\'')
		if i < 0 {
			break
		}
		b = append(append(b, s[:i]...), `'\''`...)
		s = s[i+1:]
	}
	return append(append(b, s...), '\'')
}

func grubQuote(s string) string { return string(appendGRUBQuote(nil, s)) }

func (c *Config) appendGRUB(b []byte, t Target) ([]byte, error) {
	const format = "GRUB"
	if err := c.Validate(); err != nil {
		return nil, err
	}
	base, err := url.Parse(t.BaseURL)
	if err != nil {
		return nil, &RenderError{Format: format, Field: "base URL", Value: t.BaseURL, Reason: "it is not a URL"}
	}
	first, menu := c.first(), c.isMenu()
	switch {
	case c.TotalTimeout > 0 && menu:
		return nil, &RenderError{Format: format, Field: "total timeout", Value: c.TotalTimeout.String(), Reason: "it has only one that a key stops"}
	case first.Hidden:
		return nil, first.errorf(format, "hidden entry", first.Label, "the default entry is always shown")
	}
	w := &grubWriter{b: b, c: c, t: t, base: strings.TrimSuffix(base.Path, "/")}
	timeout := int64(0)
	if menu {
		timeout = c.timeout(time.Second)
	}
	if c.OnError != "" {
		w.inError = true
		if err := w.function("onerror", c.OnError); err != nil {
			return nil, err
		}
		w.inError = false
	}
	if label := c.onTimeout(first); label != "" {
		if err := w.function("ontimeout", label); err != nil {
			return nil, err
		}
		w.add("echo 'Press ESC for the menu.'\nif sleep --verbose --interruptible ")
		w.b = strconv.AppendInt(w.b, timeout, 10)
		w.add("; then\n\tontimeout\nfi\n")
		timeout = -1
	}
	w.add("set default=")
	w.defaultPath(first)
	w.add("\nset timeout=")
	w.b = append(strconv.AppendInt(w.b, timeout, 10), '\n')
	if err := w.entries(c.Entries); err != nil {
		return nil, err
	}
	return w.b, nil
}

// function writes what boots an entry without choosing it.
func (w *grubWriter) function(name, label string) error {
	w.add("function ", name, " {\n")
	if err := w.body(find(w.c.Entries, label)); err != nil {
		return err
	}
	w.add("}\n")
	return nil
}

// defaultPath names the default entry, by way of the menus that it is in. GRUB
// takes what begins with a digit for the number of an entry.
func (w *grubWriter) defaultPath(first *Entry) {
	var path []byte
	for list := w.c.Entries; list != nil; {
		shown, next := 0, []Entry(nil)
		for i := range list {
			e := &list[i]
			if e == first || find(e.Entries, first.Label) != nil {
				if c := e.Label[0]; c >= '0' && c <= '9' {
					path = strconv.AppendInt(path, int64(shown), 10)
				} else {
					path = append(path, e.Label...)
				}
				if next = e.Entries; next != nil {
					path = append(path, '>')
				}
				break
			}
			if !e.Hidden {
				shown++
			}
		}
		list = next
	}
	w.quote(string(path))
}

func (w *grubWriter) entries(list []Entry) error {
	for i := range list {
		e := &list[i]
		switch {
		case e.Hidden:
			continue
		case len(e.Entries) > 0:
			w.line(0, "submenu ")
		default:
			w.line(0, "menuentry ")
		}
		if err := w.head(e); err != nil {
			return err
		}
		switch {
		case e.Separator:
			w.line(1, "true\n")
		case len(e.Entries) > 0:
			w.depth++
			if err := w.entries(e.Entries); err != nil {
				return err
			}
			w.depth--
		default:
			if err := w.body(e); err != nil {
				return err
			}
		}
		w.line(0, "}\n")
	}
	return nil
}

func (w *grubWriter) head(e *Entry) error {
	title := e.title()
	if title == "" {
		title = " "
	} else if title[0] == '-' {
		return e.errorf("GRUB", "title", title, "it would be an option of the menuentry command")
	}
	w.quote(title)
	if e.Label != "" {
		w.add(" --id ")
		w.quote(e.Label)
	}
	if e.Hotkey == 'c' || e.Hotkey == 'e' {
		return e.errorf("GRUB", "hot key", string(e.Hotkey), "GRUB's menu has that key for itself")
	}
	if e.Hotkey != 0 {
		w.add(" --hotkey=")
		w.b = append(w.b, e.Hotkey)
	}
	w.add(" {\n")
	return nil
}

// body writes the commands that boot an entry.
func (w *grubWriter) body(e *Entry) error {
	const format = "GRUB"
	if e.Help != "" {
		for line := range strings.SplitSeq(e.Help, "\n") {
			w.line(1, "echo -- ")
			w.quote(line)
			w.add("\n")
		}
	}
	switch {
	case e.LocalBoot:
		w.line(1, "exit\n")
		return nil
	case e.Chain != "":
		chain, reason := w.path(e.Chain)
		if reason != "" {
			return e.errorf(format, "chain", e.Chain, reason)
		}
		w.line(1, "if chainloader ")
		w.quote(chain)
		w.add("; then\n")
		w.line(2, "boot\n")
		w.line(1, "fi\n")
		w.failed(e)
		return nil
	}
	if err := w.kernel(e); err != nil {
		return err
	}
	if len(e.Initrd) == 0 {
		w.line(2, "boot\n")
		w.line(1, "fi\n")
		w.failed(e)
		return nil
	}
	w.line(2, "if initrd")
	for _, p := range e.Initrd {
		name, reason := w.path(p)
		if reason != "" {
			return e.errorf(format, "initrd", p, reason)
		}
		w.add(" ")
		w.quote(name)
	}
	// GRUB's scripts have no && to join the two.
	w.add("; then\n")
	w.line(3, "boot\n")
	w.line(2, "fi\n")
	w.line(1, "fi\n")
	w.failed(e)
	return nil
}

// kernel writes the line that loads a kernel.
func (w *grubWriter) kernel(e *Entry) error {
	const format, special = "GRUB", `'"\`
	kernel, reason := w.path(e.Kernel)
	if reason == "" && strings.ContainsAny(kernel, special) {
		reason = "GRUB puts a backslash before quotes and backslashes in BOOT_IMAGE=, which the kernel does not take off"
	}
	if reason != "" {
		return e.errorf(format, "kernel", e.Kernel, reason)
	}
	if e.SysAppend&^2 != 0 {
		return e.errorf(format, "SysAppend", "0x"+strconv.FormatUint(uint64(e.SysAppend), 16), "only 2 (BOOTIF=) has an equivalent")
	}
	if e.SysAppend&2 != 0 && len(w.t.Client.MAC) == 0 {
		return e.errorf(format, "SysAppend", "0x"+strconv.FormatUint(uint64(e.SysAppend), 16),
			"GRUB cannot spell BOOTIF= itself, and the machine's hardware address is not known here")
	}
	args, err := e.appendArgs(w.args[:0])
	if err != nil {
		return err
	}
	w.args = args
	w.line(1, "if linux ")
	w.quote(kernel)
	n := len("BOOT_IMAGE=") + len(kernel) + spread(args)
	for _, a := range args {
		if strings.ContainsAny(a, special) {
			return e.errorf(format, "argument", a, "GRUB puts a backslash before quotes and backslashes, which the kernel does not take off")
		}
		if strings.IndexByte(a, ' ') >= 0 {
			n += 2 // the double quotes that GRUB adds
		}
		w.add(" ")
		w.quote(a)
	}
	if e.SysAppend&2 != 0 {
		start := len(w.b)
		w.add(" 'BOOTIF=")
		w.b = append(w.t.Client.appendTypedMAC(w.b), '\'')
		n += len(w.b) - start - 2
	}
	w.add("; then\n")
	return e.checkLength(format, args, n)
}

// failed says what happens when an entry did not load.
func (w *grubWriter) failed(e *Entry) {
	onError := w.c.OnError != "" && w.c.OnError != e.Label && !w.inError
	then := ": the lines above say why. Starting over."
	if onError {
		then = ": the lines above say why. Trying " + w.c.OnError + "."
	}
	w.line(1, "echo ")
	w.quote(e.Label + " did not boot" + then)
	w.add("\n")
	if onError {
		w.line(1, "onerror\n")
		return
	}
	w.line(1, "sleep --interruptible ")
	w.b = append(strconv.AppendInt(w.b, retrySeconds, 10), '\n')
	w.line(1, "reboot\n")
}

// path spells a file for GRUB: absolute on the device that GRUB came from, or
// on a network device made from a URL.
func (w *grubWriter) path(p string) (name, reason string) {
	if !isURL(p) {
		return w.base + "/" + treePath(p), ""
	}
	u, reason := parseURL(p)
	if reason != "" {
		return "", reason
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "tftp":
		return "", "GRUB has http and tftp only"
	case u.User != nil || u.Fragment != "":
		return "", "GRUB has no form for a user or a fragment in a URL"
	case strings.ContainsAny(u.Host, "()[],"):
		return "", "GRUB has no form for this host"
	}
	path := (&url.URL{Path: u.Path, RawQuery: u.RawQuery}).String()
	return "(" + u.Scheme + "," + u.Host + ")" + path, ""
}
