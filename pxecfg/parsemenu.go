package pxecfg

import (
	"net/netip"
	"strings"
	"time"
)

// PXELINUX is what PXELINUX makes of a configuration. It is the result of
// [File.Load].
type PXELINUX struct {
	// Command is what runs when nobody does anything: the operand of UI or,
	// without UI, of DEFAULT. It is a label or a file, maybe with arguments.
	Command string
	// UI says that Command is UI's.
	UI bool
	// Default is DEFAULT's operand, which with UI is the menu's default.
	Default string
	// OnTimeout and OnError are commands; empty if they are not set.
	OnTimeout, OnError string
	// Timeout and TotalTimeout are 0 if they are not set: PXELINUX then
	// waits for ever once it prompts.
	Timeout, TotalTimeout time.Duration
	// Prompt is PROMPT: 0 boots at once unless a key is held.
	Prompt int
	// AllowOptions, Implicit, NoEscape and NoComplete are the flags of these
	// names.
	AllowOptions, Implicit, NoEscape, NoComplete bool
	// HiddenMenu is MENU HIDDEN.
	HiddenMenu bool
	// Top is the main menu, with ".top" for a tag. Hidden, ".hidden", holds
	// the entries with MENU HIDE, which boot by name. Start is the menu to
	// begin with.
	Top, Hidden, Start *Menu
	// Missing are included files that could not be read, which PXELINUX
	// passes over.
	Missing []Include

	entries   []*MenuEntry // of all menus, in the order of the text
	sysAppend uint32       // for a command that is no label

	// unmodelled is the first line that changes more than the look of a menu
	// and that a Config has no place for.
	unmodelled Position
}

// Include is an INCLUDE or MENU INCLUDE.
type Include struct {
	Pos  Position
	Name string
	Err  error
}

// Position is a place in a file, from 1; Col is in bytes.
type Position struct {
	File      string
	Line, Col int
}

// Menu is a menu, the main one or one that MENU BEGIN opens.
type Menu struct {
	// Tag is its name for MENU GOTO, and Title heads it.
	Tag, Title string
	// Parent is the menu that it is in; nil for the main menu.
	Parent *Menu
	// Entries are its lines. Default is the index of the one to begin with.
	Entries []*MenuEntry
	Default int
	// OnError and MasterPassword are the menu's own or its parent's.
	OnError, MasterPassword string

	entry    *MenuEntry // of the parent
	tagShown bool       // nothing else has named entry yet
	hotkeys  map[byte]bool
}

// Action is what choosing a [MenuEntry] does.
type Action string

// The actions.
const (
	ActionCommand  Action = "cmd"      // run its command
	ActionDisabled Action = "disabled" // nothing: a heading, a separator, a menu that is not there
	ActionSubmenu  Action = "submenu"  // open Target
	ActionGoto     Action = "goto"     // go to Target
	ActionExit     Action = "exit"     // leave for Target
	ActionQuit     Action = "quit"     // leave the menu
)

// MenuEntry is one line of a menu.
type MenuEntry struct {
	// Label is the name to boot it by; disabled entries and submenus have
	// none. Case matters.
	Label string
	// Display is what a menu shows, with ^ before the hot key.
	Display string
	// Hotkey is the key without its case bit, as PXELINUX has it; 0 is none.
	Hotkey byte
	Action Action
	// Type is the word that says how to boot it, in lower case: "kernel",
	// "linux", "localboot", "com32" ...
	Type string
	// Kernel is the operand of that word, arguments included.
	Kernel string
	// Append is what follows: the entry's own APPEND or the global one.
	Append string
	// Initrd is INITRD's list.
	Initrd string
	// SysAppend is the mask of strings that PXELINUX adds.
	SysAppend uint32
	// Help is the text between TEXT HELP and ENDTEXT.
	Help string
	// Password is MENU PASSWD's.
	Password string
	// Menu is the menu that it is in, Target the one that it leads to.
	Menu, Target *Menu
	// Pos is where it begins.
	Pos Position

	index     int    // in Menu
	labelled  bool   // Label may be the empty one
	initrdSet bool   // so may Initrd
	target    string // of a goto, until all menus are known
}

// SysStrings are the strings that SYSAPPEND adds, as they are added
// ("BOOTIF=01-..."): element n belongs to the bit 1<<n. Empty ones are left
// out.
type SysStrings [19]string

// SysStrings returns what can be known of a machine from outside: ip=, BOOTIF=
// and SYSUUID=. server, gateway and mask are what DHCP tells it; without an
// IPv4 address and a server there is no ip=.
func (c Client) SysStrings(server, gateway, mask netip.Addr) SysStrings {
	var s SysStrings
	ip, ok := c.ip4()
	if ok && server.Is4() {
		text := func(a netip.Addr) string {
			if !a.Is4() {
				return "0.0.0.0"
			}
			return a.String()
		}
		s[0] = "ip=" + ip.String() + ":" + server.String() + ":" + text(gateway) + ":" + text(mask)
	}
	if len(c.MAC) > 0 {
		s[1] = string(c.appendTypedMAC([]byte("BOOTIF=")))
	}
	if b, ok := parseUUID(c.UUID); ok && validForPXELINUX(b) {
		s[2] = "SYSUUID=" + FormatUUID(b)
	}
	return s
}

// mangle makes one word of a string from firmware. What PXELINUX adds to an
// entry's command it treats byte by byte.
func mangle(s string) string {
	b := make([]byte, 0, len(s))
	for word := ""; s != ""; {
		if word, s = cutWord(s); word != "" {
			if len(b) > 0 {
				b = append(b, '_')
			}
			b = append(b, word...)
		}
	}
	return string(b)
}

// CommandLine returns the command that PXELINUX runs for the entry: the file,
// its arguments, initrd= and the strings of SYSAPPEND. Before a type other
// than KERNEL there is its name with a dot. It is empty if the entry does not
// boot.
func (e *MenuEntry) CommandLine(sys SysStrings) string {
	if e.Action != ActionCommand {
		return ""
	}
	var b strings.Builder
	if e.Type != "kernel" {
		b.WriteString("." + e.Type + " ")
	}
	b.WriteString(e.Kernel)
	if e.Append != "" {
		b.WriteString(" " + e.Append)
	}
	if e.Initrd != "" || e.initrdSet {
		b.WriteString(" initrd=" + e.Initrd)
	}
	for i, s := range sys {
		if e.SysAppend>>i&1 != 0 && s != "" {
			b.WriteString(" " + mangle(s))
		}
	}
	return b.String()
}

// commandLen is about how long the entry's command is.
func (e *MenuEntry) commandLen() int { return len(e.Kernel) + len(e.Append) + len(e.Initrd) + 32 }

// Lookup returns the entry that a command names by its first word, or nil if
// no label is that word: it then is a file.
func (p *PXELINUX) Lookup(command string) *MenuEntry {
	word, _ := firstWord(command)
	for _, e := range p.entries {
		if e.labelled && e.Label == word {
			return e
		}
	}
	return nil
}

// Entries returns the entries of all menus in the order of the text.
func (p *PXELINUX) Entries() []*MenuEntry { return p.entries }
