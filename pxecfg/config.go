package pxecfg

import (
	"context"
	"fmt"
	"io/fs"
	"net/url"
	"strings"
	"time"
)

// DefaultTimeout is how long a menu waits when [Config.Timeout] is 0.
const DefaultTimeout = 5 * time.Second

// MaxCommandLine is the longest kernel command line, in bytes, that x86 and arm64
// kernels and PXELINUX take (COMMAND_LINE_SIZE less the final NUL). Kernels
// cut off what is longer without a word, so rendering refuses it.
const MaxCommandLine = 2047

// retrySeconds is the pause after an entry did not load. Machines without a
// disk have nothing better to do than to try again.
const retrySeconds = 10

// Config is what a machine is offered at boot, whatever loader reads it. With
// one entry it boots at once; with several there is a menu.
//
// A Config is not changed by this package and may be shared by any number of
// machines and goroutines.
type Config struct {
	// Title heads a menu. It may be empty.
	Title string
	// Default is the Label of the entry that the menu begins with, and that
	// boots when nobody chooses. It may be in a submenu, which then is shown
	// first (GRUB shows the main menu). Empty means the first that boots.
	Default string
	// OnTimeout is the Label of the entry that boots when the Timeout is over,
	// if it is another than Default. iPXE and GRUB then wait before they show
	// the menu. Empty means Default.
	OnTimeout string
	// OnError is the Label of the entry that boots when another one does not
	// load. Whichever that was, PXELINUX adds the text of DEFAULT to the
	// arguments: the Label of the default entry or, in a menu with UI, that
	// program's name. Empty means that the entry is tried again.
	OnError string
	// Timeout is how long a menu waits for somebody to choose. 0 means
	// [DefaultTimeout]; a negative value waits for ever. Loaders count in
	// seconds or tenths of seconds: it is rounded up.
	Timeout time.Duration
	// TotalTimeout is how long a menu waits although somebody presses keys.
	// Only PXELINUX has it. 0 means for ever.
	TotalTimeout time.Duration
	// UI is PXELINUX's menu program, such as "menu.c32", as a path in the
	// tree. Empty means PXELINUX's own boot prompt, which needs no further
	// file. Other loaders bring their menus.
	UI string
	// Entries are in the order of the menu. There is at least one that boots.
	Entries []Entry
	// Fallback says that this is what any unknown machine gets rather than
	// what this one is configured for. Where a machine is known only by the
	// name it asks for, a [Tree] hands a fallback out at the end of the
	// ladder, so that it does not hide a better name.
	Fallback bool

	// verbatim is the file that PXELINUX gets as it is: see Existing.
	verbatim *verbatim
}

// Config returns c itself: a Config is the [Source] that has the same answer
// for every machine.
func (c *Config) Config(context.Context, Client) (*Config, error) { return c, nil }

// LocalDisk returns a Config with which a machine boots from its own disk.
func LocalDisk() *Config {
	return &Config{Entries: []Entry{{Label: "local", Title: "Boot from the local disk", LocalBoot: true}}}
}

// Entry is one line of a menu: a thing to boot (a kernel, the local disk, or
// another boot program), a submenu, or a separator. Exactly one of Kernel,
// LocalBoot, Chain, Entries and Separator is set.
type Entry struct {
	// Label names the entry within its Config, submenus included: letters,
	// digits and ._@~+- Separators need none.
	Label string
	// Title is what a menu shows. Empty means Label.
	Title string
	// Hotkey is the key that chooses the entry: an ASCII letter in lower case
	// or a digit. PXELINUX can only mark one that is in the Title; GRUB keeps
	// c and e to itself. 0 means none.
	Hotkey byte
	// Help are lines of explanation. PXELINUX's menu programs show them when
	// the entry is selected, iPXE below the entry, and GRUB, which has no place
	// for them in its menu, when it was chosen.
	Help string
	// Hidden keeps the entry out of the menu. PXELINUX boots it by its Label,
	// typed at the prompt; otherwise it is there for Default, OnTimeout and
	// OnError to name, of which GRUB cannot have the first.
	Hidden bool

	// Kernel and Initrd are paths in the boot tree ("debian12/vmlinuz"), or
	// whole URLs where the loader has the protocol. Several initrds are
	// concatenated by the loader in this order (U-Boot takes only one).
	Kernel string
	Initrd []string
	// Root writes the arguments that name the root file system. They come
	// before Args. It may be nil.
	Root Root
	// Args are further kernel arguments, one element each, as the kernel
	// will see them: a space in one is kept together with the kernel's own
	// double quotes, which the kernel and systemd understand, but which the
	// shell scripts of an initramfs do not.
	Args []string
	// SysAppend is PXELINUX's SYSAPPEND mask: arguments that the loader adds.
	// 1 is ip=, 2 is BOOTIF=. iPXE can do these two, GRUB only BOOTIF= and
	// only in a file written for one machine; anything else is an error there.
	SysAppend uint32

	// LocalBoot goes on with the machine's own disk.
	LocalBoot bool
	// Chain starts another boot program: a path in the tree or a URL.
	Chain string

	// Entries are those of a submenu. They have no timeout of their own.
	Entries []Entry
	// Separator is a line that cannot be chosen: a heading if there is a
	// Title, or an empty one. GRUB has only lines that can be chosen: this one
	// then does nothing.
	Separator bool
}

func (e *Entry) title() string {
	if e.Title == "" {
		return e.Label
	}
	return e.Title
}

// appendArgs appends all kernel arguments, checked for what no loader can
// express.
func (e *Entry) appendArgs(args []string) ([]string, error) {
	if e.Root != nil {
		a, err := e.Root.Args()
		if err != nil {
			return nil, fmt.Errorf("entry %q: root: %w", e.Label, err)
		}
		args = append(args, a...)
	}
	args = append(args, e.Args...)
	for _, a := range args {
		if strings.HasPrefix(a, "initrd=") {
			return nil, e.errorf("", "argument", a, "the loader would take it for a file to load; use Entry.Initrd")
		}
		if _, reason := kernelWord(a); reason != "" {
			return nil, e.errorf("", "argument", a, reason)
		}
	}
	return args, nil
}

// RenderError says which part of a [Config] cannot be written in a loader's
// language. It is an [fs.ErrInvalid].
type RenderError struct {
	Format string // "PXELINUX", "iPXE", "GRUB", or empty if no loader can
	Entry  string // the entry's Label; empty for the Config itself
	Field  string // what it is: "argument", "kernel", "title" ...
	Value  string
	Reason string
}

func (e *RenderError) Error() string {
	var b strings.Builder
	if e.Entry != "" {
		fmt.Fprintf(&b, "entry %q: ", e.Entry)
	}
	fmt.Fprintf(&b, "%s %q", e.Field, e.Value)
	if e.Format != "" {
		fmt.Fprintf(&b, " cannot be written for %s", e.Format)
	}
	return b.String() + ": " + e.Reason
}

// Is makes a RenderError an fs.ErrInvalid.
func (e *RenderError) Is(target error) bool { return target == fs.ErrInvalid }

func (e *Entry) errorf(format, field, value, reason string, args ...any) error {
	if len(args) > 0 {
		reason = fmt.Sprintf(reason, args...)
	}
	return &RenderError{Format: format, Entry: e.Label, Field: field, Value: value, Reason: reason}
}

// Validate checks what does not depend on a loader: labels, titles, the
// default, paths and arguments. Rendering does it too.
func (c *Config) Validate() error {
	if c.verbatim != nil && c.verbatim.err != nil {
		return c.verbatim.err
	}
	if len(c.Entries) == 0 {
		return fmt.Errorf("configuration without entries: add at least one: %w", fs.ErrInvalid)
	}
	if reason := checkText(c.Title); reason != "" {
		return &RenderError{Field: "title", Value: c.Title, Reason: reason}
	}
	if c.UI != "" {
		if reason := checkPath(c.UI); reason != "" {
			return &RenderError{Field: "UI", Value: c.UI, Reason: reason}
		}
	}
	if c.TotalTimeout < 0 {
		return &RenderError{Field: "total timeout", Value: c.TotalTimeout.String(), Reason: "it is negative"}
	}
	return c.validateMenu()
}

// buffer is one that most menus fit into.
func (c *Config) buffer() []byte { return make([]byte, 0, 256+512*len(c.Entries)) }

// timeout returns whole units, rounded up, or -1 for ever.
func (c *Config) timeout(unit time.Duration) int64 {
	switch {
	case c.Timeout < 0:
		return -1
	case c.Timeout == 0:
		return int64(DefaultTimeout / unit)
	}
	return int64((c.Timeout-1)/unit) + 1
}

// Target is where a rendered file will be read, which decides how it must
// spell the files it refers to. The zero Target is a loader that was started
// from the root of the tree.
type Target struct {
	// Prefix is what PXELINUX puts before every name (see [Prefix]), with
	// its slash, relative to the tree: "ltsp/amd64/". Files below it are
	// named relative to it, others as "::path", which is the TFTP root, or by
	// BaseURL. U-Boot, which reads PXELINUX's files, has no such form: give
	// it a boot file in the root of the tree or beside the kernels.
	Prefix string
	// BaseURL is the URL of the tree, if the loader can use it. iPXE then
	// loads everything from there; without it iPXE gets absolute paths,
	// relative to the host that the script came from. GRUB uses only its
	// path, on the device that it was started from.
	BaseURL string
	// Client is the machine it is for. GRUB's BOOTIF= needs its MAC.
	Client Client
}

func isURL(p string) bool { return strings.Contains(p, "://") }

// treePath strips the optional leading slash.
func treePath(p string) string { return strings.TrimPrefix(p, "/") }

// joinURL appends a path in the tree to the URL of the tree.
func joinURL(base, p string) string {
	return strings.TrimSuffix(base, "/") + "/" + escapePath(treePath(p))
}

// escapePath leaves only bytes that every loader's URL parser takes as they are.
func escapePath(p string) string {
	const hexDigits = "0123456789ABCDEF"
	plain := func(c byte) bool { return isLabelByte(c) || c == '/' || c == ',' || c == '=' }
	i := 0
	for i < len(p) && plain(p[i]) {
		i++
	}
	if i == len(p) {
		return p
	}
	var b strings.Builder
	b.WriteString(p[:i])
	for ; i < len(p); i++ {
		c := p[i]
		if plain(c) {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(hexDigits[c>>4])
		b.WriteByte(hexDigits[c&15])
	}
	return b.String()
}

func parseURL(p string) (*url.URL, string) {
	u, err := url.Parse(p)
	if err != nil || u.Scheme == "" || u.Host == "" {
		return nil, "it is not a URL with a scheme and a host"
	}
	return u, ""
}
