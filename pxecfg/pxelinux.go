package pxecfg

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"
)

// WritePXELINUX writes c as a file for pxelinux.cfg/. The order of lines is
// safe for U-Boot's reader too, which ends an entry at the first word that it
// does not know and cannot have initrd= at the end of APPEND.
//
// There is no quoting and no way to continue a line: what does not fit is a
// [*RenderError]. When an entry fails to load, PXELINUX comes back to its
// prompt and tries the default again after the timeout.
func (c *Config) WritePXELINUX(w io.Writer, t Target) error {
	const format = "PXELINUX"
	if done, err := c.verbatim.write(w, t); done {
		return err
	}
	if err := c.Validate(); err != nil {
		return err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "DEFAULT %s\n", c.first())
	menu := len(c.Entries) > 1
	if menu && c.UI != "" {
		ui, reason := t.pxelinux(c.UI)
		if reason != "" {
			return &RenderError{Format: format, Field: "UI", Value: c.UI, Reason: reason}
		}
		fmt.Fprintf(&b, "UI %s\n", ui)
	} else if menu {
		b.WriteString("PROMPT 1\n")
	} else {
		b.WriteString("PROMPT 0\n")
	}
	if !menu {
		// It starts at once; this is the pause before it is tried again.
		fmt.Fprintf(&b, "TIMEOUT %d\n", retrySeconds*10)
	} else if n := c.timeout(100 * time.Millisecond); n >= 0 {
		fmt.Fprintf(&b, "TIMEOUT %d\n", n)
	}
	if c.Title != "" {
		fmt.Fprintf(&b, "MENU TITLE %s\n", c.Title)
	}
	if menu && c.UI == "" {
		for i := range c.Entries {
			e := &c.Entries[i]
			fmt.Fprintf(&b, "SAY %s: %s\n", e.Label, e.title())
		}
	}
	for i := range c.Entries {
		if err := c.Entries[i].writePXELINUX(&b, t, format); err != nil {
			return err
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

func (e *Entry) writePXELINUX(b *bytes.Buffer, t Target, format string) error {
	fmt.Fprintf(b, "LABEL %s\n", e.Label)
	if e.Title != "" {
		if strings.Contains(e.Title, "^") {
			return e.errorf(format, "title", e.Title, "^ marks a hot key in MENU LABEL")
		}
		fmt.Fprintf(b, "  MENU LABEL %s\n", e.Title)
	}
	switch {
	case e.LocalBoot:
		b.WriteString("  LOCALBOOT 0\n")
		return nil
	case e.Chain != "":
		chain, reason := t.pxelinux(e.Chain)
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
		fmt.Fprintf(b, "  %s %s\n", keyword, chain)
		return nil
	}

	kernel, reason := t.pxelinux(e.Kernel)
	if reason != "" {
		return e.errorf(format, "kernel", e.Kernel, reason)
	}
	// Not KERNEL, which goes by the name's ending: vmlinuz-6.1.0 would be
	// started as a boot program.
	fmt.Fprintf(b, "  LINUX %s\n", kernel)
	line := "BOOT_IMAGE=" + kernel
	if len(e.Initrd) > 0 {
		names := make([]string, len(e.Initrd))
		for i, p := range e.Initrd {
			if names[i], reason = t.pxelinux(p); reason != "" {
				return e.errorf(format, "initrd", p, reason)
			}
			if strings.Contains(p, ",") {
				return e.errorf(format, "initrd", p, "a comma separates files")
			}
		}
		list := strings.Join(names, ",")
		fmt.Fprintf(b, "  INITRD %s\n", list)
		line += " initrd=" + list
	}
	words, err := e.words()
	if err != nil {
		return err
	}
	if words == "-" {
		return e.errorf(format, "argument", words, "APPEND - means no arguments")
	}
	if words != "" {
		fmt.Fprintf(b, "  APPEND %s\n", words)
		line += " " + words
	}
	if e.SysAppend != 0 {
		// The older spelling of SYSAPPEND, and the only one for U-Boot.
		fmt.Fprintf(b, "  IPAPPEND %d\n", e.SysAppend)
	}
	return e.checkLength(format, line, sysAppendLen(e.SysAppend))
}

// words returns the arguments in the kernel's own quoting.
func (e *Entry) words() (string, error) {
	args, err := e.args()
	if err != nil {
		return "", err
	}
	for i, a := range args {
		args[i], _ = kernelWord(a) // checked by args
	}
	return strings.Join(args, " "), nil
}

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
