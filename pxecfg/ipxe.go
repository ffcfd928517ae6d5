package pxecfg

import (
	"bytes"
	"fmt"
	"io"
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
	b := bytes.NewBufferString("#!ipxe\n")
	if err := c.writeIPXE(b, t); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}

// writeIPXE writes the script without its first line.
func (c *Config) writeIPXE(b *bytes.Buffer, t Target) error {
	const format = "iPXE"
	if err := c.Validate(); err != nil {
		return err
	}
	if len(c.Entries) > 1 {
		if err := c.writeIPXEMenu(b, format); err != nil {
			return err
		}
	}
	for i := range c.Entries {
		if err := c.Entries[i].writeIPXE(b, t, format); err != nil {
			return err
		}
	}
	return nil
}

func (c *Config) writeIPXEMenu(b *bytes.Buffer, format string) error {
	b.WriteString(":menu\nmenu")
	if c.Title != "" {
		if reason := checkIPXE(c.Title); reason != "" {
			return &RenderError{Format: format, Field: "title", Value: c.Title, Reason: reason}
		}
		if c.Title[0] == '-' {
			return &RenderError{Format: format, Field: "title", Value: c.Title, Reason: "it would be an option of the menu command"}
		}
		b.WriteString(" " + c.Title)
	}
	b.WriteString("\n")
	for i := range c.Entries {
		e := &c.Entries[i]
		if reason := checkIPXE(e.title()); reason != "" {
			return e.errorf(format, "title", e.title(), reason)
		}
		fmt.Fprintf(b, "item entry-%s %s\n", e.Label, e.title())
	}
	fmt.Fprintf(b, "choose --default entry-%s", c.first())
	if n := c.timeout(time.Millisecond); n >= 0 {
		fmt.Fprintf(b, " --timeout %d", n)
	}
	b.WriteString(" entry || goto menu\ngoto ${entry}\n")
	return nil
}

func (e *Entry) writeIPXE(b *bytes.Buffer, t Target, format string) error {
	fmt.Fprintf(b, ":entry-%s\n", e.Label)
	switch {
	case e.LocalBoot:
		// Without an operand the last || swallows a failure.
		b.WriteString("iseq ${platform} pcbios && sanboot --no-describe --drive 0x80 ||\nexit\n")
		return nil
	case e.Chain != "":
		chain, reason := t.ipxe(e.Chain)
		if reason != "" {
			return e.errorf(format, "chain", e.Chain, reason)
		}
		fmt.Fprintf(b, "chain %s || goto failed-%s\nexit\n", chain, e.Label)
		e.writeIPXEFailed(b)
		return nil
	}

	kernel, reason := t.ipxe(e.Kernel)
	if reason != "" {
		return e.errorf(format, "kernel", e.Kernel, reason)
	}
	// Images of an earlier try would be found first.
	b.WriteString("imgfree\n")
	line := ""
	for i := range e.Initrd {
		// The EFI stub of a kernel finds its initrds by these names.
		line += fmt.Sprintf(" initrd=initrd%d", i)
	}
	args, err := e.args()
	if err != nil {
		return err
	}
	for _, a := range args {
		word, _ := kernelWord(a) // checked by args
		if reason := checkIPXEArg(word); reason != "" {
			return e.errorf(format, "argument", a, reason)
		}
		line += " " + word
	}
	if e.SysAppend&^3 != 0 {
		return e.errorf(format, "SysAppend", fmt.Sprintf("%#x", e.SysAppend), "only 1 (ip=) and 2 (BOOTIF=) have an equivalent")
	}
	length := line
	if e.SysAppend&1 != 0 {
		line += " ip=${ip}:${next-server}:${gateway}:${netmask}"
	}
	if e.SysAppend&2 != 0 {
		line += " BOOTIF=01-${netX/mac:hexhyp}"
	}
	if err := e.checkLength(format, length, len(e.Kernel)+sysAppendLen(e.SysAppend)); err != nil {
		return err
	}
	fmt.Fprintf(b, "kernel %s%s || goto failed-%s\n", kernel, line, e.Label)
	for i, p := range e.Initrd {
		u, reason := t.ipxe(p)
		if reason != "" {
			return e.errorf(format, "initrd", p, reason)
		}
		fmt.Fprintf(b, "initrd --name initrd%d %s || goto failed-%s\n", i, u, e.Label)
	}
	b.WriteString("boot\n")
	e.writeIPXEFailed(b)
	return nil
}

func (e *Entry) writeIPXEFailed(b *bytes.Buffer) {
	fmt.Fprintf(b, ":failed-%s\necho %s did not boot: the lines above say why\n", e.Label, e.Label)
	fmt.Fprintf(b, "prompt --timeout %d000 Press a key for the iPXE shell, or wait to try again || goto entry-%s\n", retrySeconds, e.Label)
	fmt.Fprintf(b, "shell\ngoto entry-%s\n", e.Label)
}

// checkIPXE checks a run of words for what iPXE does not take literally.
func checkIPXE(s string) (reason string) {
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
	return checkIPXE(s)
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
