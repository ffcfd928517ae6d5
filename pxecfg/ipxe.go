package pxecfg

import (
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// WriteIPXE writes c as an iPXE script. An entry that does not load says so
// and is tried again, unless somebody presses a key, which gives iPXE's shell.
// The local disk is reached by SAN boot on a BIOS and by leaving iPXE
// elsewhere.
//
// iPXE splits a line at white space and knows no quoting; settings in ${} are
// expanded everywhere. What cannot be written so is a [*RenderError].
func (c *Config) WriteIPXE(w io.Writer, t Target) error {
	b, err := c.appendIPXE(append(c.buffer(), "#!ipxe\n"...), t)
	if err == nil {
		_, err = w.Write(b)
	}
	return err
}

// ipxeWriter writes one script.
type ipxeWriter struct {
	b    []byte
	c    *Config
	t    Target
	args []string
}

func (w *ipxeWriter) add(parts ...string) {
	for _, p := range parts {
		w.b = append(w.b, p...)
	}
}

func (w *ipxeWriter) int(n int64) { w.b = strconv.AppendInt(w.b, n, 10) }

// appendIPXE appends the script without its first line.
func (c *Config) appendIPXE(b []byte, t Target) ([]byte, error) {
	const format = "iPXE"
	if err := c.Validate(); err != nil {
		return nil, err
	}
	w := &ipxeWriter{b: b, c: c, t: t}
	first := c.first()
	switch menu := c.isMenu(); {
	case menu && c.TotalTimeout > 0:
		return nil, &RenderError{Format: format, Field: "total timeout", Value: c.TotalTimeout.String(), Reason: "it has only one that a key stops"}
	case menu:
		if err := w.menus(first); err != nil {
			return nil, err
		}
	case &c.Entries[0] != first:
		w.add("goto entry-", first.Label, "\n")
	}
	var err error
	each(c.Entries, func(e *Entry) bool {
		if e.Hidden && e != first && e.Label != c.OnTimeout && e.Label != c.OnError {
			return true // nothing leads to it
		}
		err = w.entry(e)
		return err == nil
	})
	return w.b, err
}

// menus writes all menus. The one that has the first entry is shown first, and
// has the timeout.
func (w *ipxeWriter) menus(first *Entry) error {
	timeout := w.c.timeout(time.Millisecond)
	if label := w.c.onTimeout(first); label != "" {
		w.add("prompt --timeout ")
		w.int(timeout)
		w.add(" Press a key for the menu || goto entry-", label, "\n")
		timeout = -1
	}
	start := ""
	for list := w.c.Entries; ; {
		i := slices.IndexFunc(list, func(e Entry) bool { return find(e.Entries, first.Label) != nil })
		if i < 0 {
			break
		}
		start, list = list[i].Label, list[i].Entries
	}
	if start != "" {
		w.add("goto menu-", start, "\n")
	}
	return w.menu(nil, "menu", "menu", first, start, timeout)
}

// menu writes a menu and those in it; up is where its Esc key leads.
func (w *ipxeWriter) menu(e *Entry, label, up string, first *Entry, start string, timeout int64) error {
	const format = "iPXE"
	title, list, this := w.c.Title, w.c.Entries, ""
	if e != nil {
		title, list, this = e.title(), e.Entries, e.Label
	}
	w.add(":", label, "\nmenu")
	if title != "" {
		reason := checkIPXE(title)
		if reason == "" && title[0] == '-' {
			reason = "it would be an option of the menu command"
		}
		if reason != "" {
			return &RenderError{Format: format, Field: "title", Value: title, Reason: reason}
		}
		w.add(" ", title)
	}
	w.add("\n")
	chosen := ""
	for i := range list {
		item := &list[i]
		kind := "entry-"
		switch {
		case item.Hidden:
			continue
		case item.Separator:
			if err := w.gap(item, "title", item.Title); err != nil {
				return err
			}
			continue
		case len(item.Entries) > 0:
			kind = "menu-"
		}
		if reason := checkIPXE(item.title()); reason != "" {
			return item.errorf(format, "title", item.title(), reason)
		}
		w.add("item ")
		if item.Hotkey != 0 {
			w.add("--key ", string(item.Hotkey), " ")
		}
		w.add(kind, item.Label, " ", item.title(), "\n")
		if item.Help != "" {
			for line := range strings.SplitSeq(item.Help, "\n") {
				if err := w.gap(item, "help", line); err != nil {
					return err
				}
			}
		}
		if item == first || chosen == "" && find(item.Entries, first.Label) != nil {
			chosen = kind + item.Label
		}
	}
	w.add("choose")
	if chosen != "" {
		w.add(" --default ", chosen)
	}
	if this == start && timeout >= 0 {
		w.add(" --timeout ")
		w.int(timeout)
	}
	w.add(" entry || goto ", up, "\ngoto ${entry}\n")
	for i := range list {
		if sub := &list[i]; len(sub.Entries) > 0 {
			if err := w.menu(sub, "menu-"+sub.Label, label, first, start, timeout); err != nil {
				return err
			}
		}
	}
	return nil
}

// gap writes a line that cannot be chosen.
func (w *ipxeWriter) gap(e *Entry, field, text string) error {
	if text == "" {
		w.add("item --gap\n")
		return nil
	}
	if reason := checkIPXE(text); reason != "" {
		return e.errorf("iPXE", field, text, reason)
	}
	w.add("item --gap -- ", text, "\n")
	return nil
}

func (w *ipxeWriter) entry(e *Entry) error {
	const format = "iPXE"
	w.add(":entry-", e.Label, "\n")
	switch {
	case e.LocalBoot:
		// Without an operand the last || swallows a failure.
		w.add("iseq ${platform} pcbios && sanboot --no-describe --drive 0x80 ||\nexit\n")
		return nil
	case e.Chain != "":
		chain, reason := w.t.ipxe(e.Chain)
		if reason != "" {
			return e.errorf(format, "chain", e.Chain, reason)
		}
		w.add("chain ", chain, " || goto failed-", e.Label, "\nexit\n")
		w.failed(e)
		return nil
	}

	kernel, reason := w.t.ipxe(e.Kernel)
	if reason != "" {
		return e.errorf(format, "kernel", e.Kernel, reason)
	}
	// Images of an earlier try would be found first.
	w.add("imgfree\nkernel ", kernel)
	start := len(w.b)
	for i := range e.Initrd {
		// The EFI stub of a kernel finds its initrds by these names.
		w.add(" initrd=initrd")
		w.int(int64(i))
	}
	args, err := e.appendArgs(w.args[:0])
	if err != nil {
		return err
	}
	w.args = args
	for _, a := range args {
		word, _ := kernelWord(a) // checked by appendArgs
		if reason := checkIPXEArg(word); reason != "" {
			return e.errorf(format, "argument", a, reason)
		}
		w.add(" ", word)
	}
	if e.SysAppend&^3 != 0 {
		return e.errorf(format, "SysAppend", "0x"+strconv.FormatUint(uint64(e.SysAppend), 16), "only 1 (ip=) and 2 (BOOTIF=) have an equivalent")
	}
	n := len(w.b) - start + len(e.Kernel) + sysAppendLen(e.SysAppend)
	if e.SysAppend&1 != 0 {
		w.add(" ip=${ip}:${next-server}:${gateway}:${netmask}")
	}
	if e.SysAppend&2 != 0 {
		w.add(" BOOTIF=01-${netX/mac:hexhyp}")
	}
	if err := e.checkLength(format, args, n); err != nil {
		return err
	}
	w.add(" || goto failed-", e.Label, "\n")
	for i, p := range e.Initrd {
		u, reason := w.t.ipxe(p)
		if reason != "" {
			return e.errorf(format, "initrd", p, reason)
		}
		w.add("initrd --name initrd")
		w.int(int64(i))
		w.add(" ", u, " || goto failed-", e.Label, "\n")
	}
	w.add("boot\n")
	w.failed(e)
	return nil
}

func (w *ipxeWriter) failed(e *Entry) {
	next := w.c.OnError
	if next == "" || next == e.Label {
		next = e.Label
	}
	w.add(":failed-", e.Label, "\necho ", e.Label, " did not boot: the lines above say why\nprompt --timeout ")
	w.int(retrySeconds * 1000)
	if next == e.Label {
		w.add(" Press a key for the iPXE shell, or wait to try again || goto entry-", next, "\n")
	} else {
		w.add(" Press a key for the iPXE shell, or wait for ", next, " || goto entry-", next, "\n")
	}
	w.add("shell\ngoto entry-", e.Label, "\n")
}

// checkIPXE checks words at the end of a line for what iPXE does not take
// literally.
func checkIPXE(s string) (reason string) {
	if strings.HasSuffix(s, `\`) {
		return "a backslash at the end of a line joins it with the next"
	}
	return checkIPXEWords(s)
}

func checkIPXEWords(s string) (reason string) {
	switch {
	case strings.Contains(s, "${"):
		return "iPXE would expand ${"
	case strings.Contains(s, "  "):
		return "iPXE makes one space of several"
	}
	for word := range strings.SplitSeq(s, " ") {
		switch {
		case strings.HasPrefix(word, "#"):
			return "a word that begins with # starts a comment"
		case word == "||", word == "&&", word == ";":
			return "it ends the command"
		}
	}
	return ""
}

// checkIPXEArg also refuses what iPXE does not convert for EFI.
func checkIPXEArg(s string) (reason string) {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			return "iPXE does not carry characters beyond ASCII to the kernel unharmed"
		}
	}
	return checkIPXEWords(s)
}

// ipxe spells a file for iPXE, which resolves it against the URL of the script.
func (t Target) ipxe(p string) (uri, reason string) {
	switch {
	case isURL(p):
		if strings.Contains(p, "${") {
			return "", "iPXE would expand ${"
		}
		return p, ""
	case t.BaseURL != "":
		return joinURL(t.BaseURL, p), ""
	}
	return "/" + escapePath(treePath(p)), ""
}
