package pxecfg

import (
	"bytes"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// WriteGRUB writes c as a grub.cfg. Paths begin at the root of the device that
// GRUB was started from; http and tftp URLs become (http,host)/path. An entry
// that does not load says so and the machine starts over.
//
// Every word is in single quotes, in which GRUB's script language changes
// nothing. But where it builds the kernel's command line GRUB puts a backslash
// before quotes and backslashes, which the kernel does not understand: an
// argument with one of these is a [*RenderError].
func (c *Config) WriteGRUB(w io.Writer, t Target) error {
	var b bytes.Buffer
	if err := c.writeGRUB(&b, t); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}

func (c *Config) writeGRUB(b *bytes.Buffer, t Target) error {
	const format = "GRUB"
	if err := c.Validate(); err != nil {
		return err
	}
	fmt.Fprintf(b, "set default=%s\n", c.grubDefault())
	timeout := int64(0)
	if len(c.Entries) > 1 {
		timeout = c.timeout(time.Second)
		if c.Timeout == 0 {
			timeout = int64(DefaultTimeout / time.Second)
		}
	}
	fmt.Fprintf(b, "set timeout=%d\n", timeout)
	for i := range c.Entries {
		if err := c.Entries[i].writeGRUB(b, t, format); err != nil {
			return err
		}
	}
	return nil
}

// grubDefault names the default entry. GRUB takes what begins with a digit for
// the number of an entry.
func (c *Config) grubDefault() string {
	first := c.first()
	if first[0] < '0' || first[0] > '9' {
		return grubQuote(first)
	}
	return strconv.Itoa(slices.IndexFunc(c.Entries, func(e Entry) bool { return e.Label == first }))
}

func (e *Entry) writeGRUB(b *bytes.Buffer, t Target, format string) error {
	if e.title()[0] == '-' {
		return e.errorf(format, "title", e.title(), "it would be an option of the menuentry command")
	}
	fmt.Fprintf(b, "menuentry %s --id %s {\n", grubQuote(e.title()), grubQuote(e.Label))
	switch {
	case e.LocalBoot:
		b.WriteString("\texit\n}\n")
		return nil
	case e.Chain != "":
		chain, reason := t.grub(e.Chain)
		if reason != "" {
			return e.errorf(format, "chain", e.Chain, reason)
		}
		fmt.Fprintf(b, "\tif chainloader %s; then\n\t\tboot\n\tfi\n", grubQuote(chain))
		e.writeGRUBFailed(b)
		return nil
	}

	kernel, reason := t.grub(e.Kernel)
	if reason != "" {
		return e.errorf(format, "kernel", e.Kernel, reason)
	}
	args, err := e.args()
	if err != nil {
		return err
	}
	if e.SysAppend&^2 != 0 {
		return e.errorf(format, "SysAppend", fmt.Sprintf("%#x", e.SysAppend), "only 2 (BOOTIF=) has an equivalent")
	}
	if e.SysAppend&2 != 0 {
		if len(t.Client.MAC) == 0 {
			return e.errorf(format, "SysAppend", fmt.Sprintf("%#x", e.SysAppend),
				"GRUB cannot spell BOOTIF= itself, and the machine's hardware address is not known here")
		}
		args = append(args, string(t.Client.appendTypedMAC([]byte("BOOTIF="))))
	}
	fmt.Fprintf(b, "\tif linux %s", grubQuote(kernel))
	line := "BOOT_IMAGE=" + kernel
	for _, a := range args {
		if strings.ContainsAny(a, `'"\`) {
			return e.errorf(format, "argument", a, "GRUB puts a backslash before quotes and backslashes, which the kernel does not take off")
		}
		if strings.Contains(a, " ") {
			line += "  " // the double quotes that GRUB adds
		}
		line += " " + a
		b.WriteString(" " + grubQuote(a))
	}
	if err := e.checkLength(format, line, 0); err != nil {
		return err
	}
	b.WriteString("; then\n")
	if len(e.Initrd) == 0 {
		b.WriteString("\t\tboot\n\tfi\n")
		e.writeGRUBFailed(b)
		return nil
	}
	b.WriteString("\t\tif initrd")
	for _, p := range e.Initrd {
		name, reason := t.grub(p)
		if reason != "" {
			return e.errorf(format, "initrd", p, reason)
		}
		b.WriteString(" " + grubQuote(name))
	}
	// GRUB's scripts have no && to join the two.
	b.WriteString("; then\n\t\t\tboot\n\t\tfi\n\tfi\n")
	e.writeGRUBFailed(b)
	return nil
}

func (e *Entry) writeGRUBFailed(b *bytes.Buffer) {
	fmt.Fprintf(b, "\techo %s\n", grubQuote(e.Label+" did not boot: the lines above say why. Starting over."))
	fmt.Fprintf(b, "\tsleep --interruptible %d\n\treboot\n}\n", retrySeconds)
}

// grubQuote makes one literal word of s. Within single quotes GRUB takes every
// byte as it is, except the quote.
func grubQuote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// grub spells a file for GRUB: absolute on the device that GRUB came from, or
// on a network device made from a URL.
func (t Target) grub(p string) (name, reason string) {
	if !isURL(p) {
		base, err := url.Parse(t.BaseURL)
		if err != nil {
			return "", "the base URL is not a URL"
		}
		return strings.TrimSuffix(base.Path, "/") + "/" + treePath(p), ""
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
