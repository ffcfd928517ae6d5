package pxecfg

import (
	"strconv"
	"strings"
)

// converter makes entries for any loader of PXELINUX's.
type converter struct {
	prefix string
	labels map[string]bool
	count  map[string]int        // of equal labels
	of     map[*MenuEntry]string // the label given
	left   []error
	size   int // of all command lines: a long global APPEND is in each
}

// menu converts the entries of a menu and the menus in it.
func (cv *converter) menu(m *Menu, depth int) (list []Entry) {
	var keys [256]bool
	for _, e := range m.Entries {
		var entry Entry
		switch e.Action {
		case ActionSubmenu:
			if depth == maxMenuDepth {
				continue // no loader shows that, and nobody writes it
			}
			if e.Password != "" {
				cv.leave(e, "submenu", "only PXELINUX asks for its password")
				continue
			}
			entry = Entry{Label: cv.label(e.Target.Tag), Entries: cv.menu(e.Target, depth+1)}
			if title := cleanTitle(e.Display); title != entry.Label {
				entry.Title = title
			}
			if len(entry.Entries) == 0 || checkText(entry.Title) != "" {
				list = append(list, entry.Entries...)
				continue
			}
			cv.labels[entry.Label] = true
		case ActionDisabled:
			entry = Entry{Separator: true, Title: cleanTitle(e.Display)}
			if checkText(entry.Title) != "" {
				continue
			}
		case ActionCommand:
			var err error
			if entry, err = cv.entry(e, ""); err != nil {
				cv.left = append(cv.left, err)
				continue
			}
			cv.of[e] = entry.Label
		case ActionExit:
			if e.Target != m.Parent { // every menu has a way back
				cv.leave(e, "MENU EXIT", "only PXELINUX goes to another menu")
			}
			continue
		case ActionGoto:
			cv.leave(e, "MENU GOTO", "only PXELINUX goes to another menu")
			continue
		default:
			cv.leave(e, "MENU QUIT", "only PXELINUX has a prompt under the menu")
			continue
		}
		// GRUB has the keys c and e for itself.
		if key := e.Hotkey | 0x20; e.Hotkey != 0 && key != 'c' && key != 'e' && !keys[key] && key >= 'a' && key <= 'z' {
			keys[key], entry.Hotkey = true, key
		}
		list = append(list, entry)
	}
	return list
}

// leave leaves out a line of a menu that boots nothing.
func (cv *converter) leave(e *MenuEntry, field, reason string) {
	cv.left = append(cv.left, &RenderError{Format: "another loader than PXELINUX", Entry: e.Label, Field: field, Value: cutShort(e.Display), Reason: reason})
}

// locked tells whether PXELINUX asks for a password before this boots.
func (e *MenuEntry) locked() bool {
	if e.Password != "" {
		return true
	}
	for m := e.Menu; m != nil && m.entry != nil; m = m.Parent {
		if m.entry.Password != "" {
			return true
		}
	}
	return false
}

// entry converts one entry, with further arguments. What it returns is valid.
func (cv *converter) entry(e *MenuEntry, extra string) (Entry, error) {
	out := Entry{Label: cv.label(e.Label), Help: cleanHelp(e.Help)}
	if title := cleanTitle(e.Display); title != e.Label {
		out.Title = title
	}
	file, _ := firstWord(e.Kernel)
	refuse := func(field, value, reason string) (Entry, error) {
		return Entry{}, out.errorf("another loader than PXELINUX", field, value, reason)
	}
	if cv.size += e.commandLen() + len(extra); cv.size > maxConfig {
		return refuse("entry", e.Label, "the command lines take more than 4 MiB")
	}
	var err error
	switch typ := e.ImageType(); {
	case e.locked():
		return refuse("entry", e.Label, "only PXELINUX asks for its password")
	case typ == "localboot":
		out.LocalBoot = true
	case typ == "pxe", typ == "linux" && e.Type == "kernel" && strings.HasSuffix(file, ".efi"):
		if e.Append != "" || extra != "" || file != e.Kernel {
			return refuse("argument", e.Kernel+" "+e.Append, "only kernels have arguments")
		}
		if out.Chain, err = cv.path(file); err != nil {
			return refuse("chain", file, err.Error())
		}
	case typ != "linux":
		return refuse("type", typ, "only PXELINUX has it")
	default:
		if reason, value := cv.linux(&out, e, extra); reason != "" {
			return refuse("entry", value, reason)
		}
	}
	if err := out.validate(); err != nil {
		return Entry{}, err
	}
	cv.labels[out.Label] = true
	return out, nil
}

// linux fills in a kernel, its initrds and its arguments.
func (cv *converter) linux(out *Entry, e *MenuEntry, extra string) (reason, value string) {
	line, _ := e.KernelLine(SysStrings{})
	if extra != "" {
		line += " " + extra
	}
	image, args := firstWord(line)
	file := strings.TrimPrefix(image, "BOOT_IMAGE=")
	kernel, err := cv.path(file)
	if err != nil {
		return err.Error(), file
	}
	out.Kernel, out.SysAppend = kernel, e.SysAppend
	before, list, found := strings.Cut(args, "initrd=")
	if found {
		if before != "" && !isSpace(before[len(before)-1]) {
			return "PXELINUX takes initrd= within a word for a file to load", args
		}
		list, _, _ = strings.Cut(list, " ")
		for name := range strings.SplitSeq(list, ",") {
			p, err := cv.path(name)
			if err != nil {
				return err.Error(), name
			}
			out.Initrd = append(out.Initrd, p)
		}
	}
	if strings.Count(args, `"`)%2 != 0 {
		return "a double quote is never closed, and takes in whatever a loader adds", args
	}
	for _, a := range splitKernel(strings.ReplaceAll(args, "\t", " ")) {
		// PXELINUX loads the first and leaves all to the kernel, which
		// has no use for them.
		if a == "" || strings.HasPrefix(a, "initrd=") {
			continue
		}
		if _, reason := kernelWord(a); reason != "" {
			return reason, a
		}
		out.Args = append(out.Args, a)
	}
	return "", ""
}

type pathError string

func (e pathError) Error() string { return string(e) }

// path returns a file as the tree has it, or a URL.
func (cv *converter) path(name string) (string, error) {
	full := RequestName(cv.prefix, name)
	p, ok := treeName(cv.prefix, name)
	if !ok {
		p = full
		if host, rest, old := strings.Cut(full, "::"); old {
			if host == "" {
				return "", pathError("it names no file")
			}
			p = "tftp://" + host + "/" + strings.TrimLeft(rest, "/")
		}
	}
	if reason := checkPath(p); reason != "" {
		return "", pathError(reason)
	}
	return p, nil
}

// label makes a label that all loaders take and no other entry has.
func (cv *converter) label(s string) string {
	clean := strings.TrimLeft(strings.Map(func(r rune) rune {
		if r >= 0x80 || strings.IndexByte(labelBytes, byte(r)) < 0 {
			return '_'
		}
		return r
	}, s), "-")
	if clean == "" {
		clean = "entry"
	}
	base := clean
	for cv.labels[clean] {
		cv.count[base]++
		clean = base + "-" + strconv.Itoa(cv.count[base]+1)
	}
	return clean
}

// cleanText makes text that every menu can show of what PXELINUX shows.
func cleanText(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }), " ")
}

// cleanTitle is cleanText for what has hot keys in it.
func cleanTitle(s string) string { return cleanText(strings.ReplaceAll(s, "^", "")) }

// cleanHelp makes help of what PXELINUX shows, or none if others cannot have it.
func cleanHelp(s string) string {
	if s == "" {
		return ""
	}
	lines := strings.Split(strings.TrimRight(s, "\r\n"), "\n")
	for i, line := range lines {
		lines[i] = cleanText(line)
	}
	s = strings.TrimRight(strings.Join(lines, "\n"), "\n")
	if checkHelp(s) != "" {
		return ""
	}
	return s
}
