package initrd

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// script is the text of calls of the functions in files/machine.
type script struct{ bytes.Buffer }

// call writes a call; words are quoted.
func (s *script) call(function string, words ...string) {
	s.WriteString(function)
	for _, w := range words {
		s.WriteByte(' ')
		s.WriteString(quote(w))
	}
	s.WriteByte('\n')
}

// set writes a call with a setting.
func (s *script) set(function string, set Setting) {
	s.WriteString(function + " " + quote(set.Name) + " " + word(set) + "\n")
}

// word is a setting's value as a word of a script.
func word(set Setting) string {
	if set.Expand {
		return `"$(value ` + set.Name + `)"`
	}
	return quote(set.Value)
}

// quote makes one word of any text without NUL.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// isName reports whether a shell can have a variable of that name.
func isName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c != '_' && (c|0x20 < 'a' || c|0x20 > 'z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != "" && len(s) <= 255
}

// shellsOwn are names that end a shell which is to assign them: dash over an
// OPTIND that is no number, and bash over the others.
var shellsOwn = [...]string{"OPTIND", "UID", "EUID", "PPID", "SHELLOPTS", "BASHOPTS", "BASH_VERSINFO", "HISTCMD", "SRANDOM"}

// Linux starts no program with a variable of more than 128 KiB, or with more
// than some 2 MiB in all. One setting must not keep all commands from running.
const (
	maxValue       = 100_000 // also in files/machine
	maxEnvironment = 1 << 20
)

// refused is a setting that cannot be carried out.
type refused struct{ name, why string }

// usable returns the settings that can be carried out, and the others. Where
// there are too many it is the last that stay: others may refer to the first,
// but what is given last is what is to happen.
func usable(settings []Setting) (ok []Setting, no []refused) {
	size := 0
	for _, set := range slices.Backward(settings) {
		n := len(set.Name) + len(set.Value) + 10 // with a pointer, = and a zero
		switch why := set.refusal(); {
		case why != "":
			no = append(no, refused{set.Name, why})
		case size+n > maxEnvironment:
			no = append(no, refused{set.Name, "with those behind it that is more than a command can be given"})
		default:
			size += n
			ok = append(ok, set)
		}
	}
	slices.Reverse(ok)
	slices.Reverse(no)
	return ok, no
}

// refusal says why a setting by itself cannot be carried out, or "".
func (s Setting) refusal() string {
	switch {
	case !isName(s.Name):
		return "a shell has no variables of that name"
	case slices.Contains(shellsOwn[:], s.Name):
		return "shells keep that name for themselves"
	case strings.IndexByte(s.Value, 0) >= 0:
		return "no shell can hold its value"
	case len(s.Value) > maxValue:
		return "no command can be given so much"
	}
	return ""
}

// environment assigns the settings. What is to be expanded the machine adds.
func environment(settings []Setting, o *Options) []byte {
	var b bytes.Buffer
	if o.Hostname != "" {
		b.WriteString("HOSTNAME=" + quote(o.Hostname) + "\n")
	}
	for _, set := range settings {
		if !set.Expand && (set.Name != "HOSTNAME" || strings.TrimSpace(set.Value) != "") {
			b.WriteString(set.Name + "=" + quote(set.Value) + "\n")
		}
	}
	return b.Bytes()
}

// last returns the last of the settings with a name.
func last(settings []Setting, name string) (Setting, bool) {
	for _, s := range slices.Backward(settings) {
		if s.Name == name {
			return s, true
		}
	}
	return Setting{Name: name}, false
}

// lines are the families whose settings are collected, and what collects them.
var lines = [...]struct{ prefix, function string }{
	{"HOSTS_", "host"}, {"FSTAB_", "fstab"}, {"CRONTAB_", "crontab"},
}

// preinit are the families that run before init, in this order.
var preinit = [...]string{"INIT_COMMAND_", "PRE_INIT_", "POST_INIT_", "PREINIT_"}

// members are the settings of a family.
func members(settings []Setting, prefix string) []Setting {
	var out []Setting
	for _, set := range settings {
		if len(set.Name) > len(prefix) && strings.HasPrefix(set.Name, prefix) {
			out = append(out, set)
		}
	}
	return out
}

func (s *script) family(settings []Setting, prefix, function string) {
	for _, set := range members(settings, prefix) {
		s.set(function, set)
	}
}

// programs reports whether the settings take programs of the new root for sure,
// so that it is not tried without.
func programs(settings []Setting, o *Options) bool {
	return len(o.AuthorizedKeys) > 0 || slices.ContainsFunc(settings, func(s Setting) bool {
		return s.Expand || strings.HasPrefix(s.Name, "FSTAB_") || strings.HasPrefix(s.Name, "MODULE_")
	})
}

// before is what happens before init.
func before(settings []Setting, no []refused, o *Options) []byte {
	var s script
	wanting, swap := swap(settings, o.Swap)
	if programs(settings, o) {
		s.call("programs")
	} else if swap != "" {
		s.WriteString(wanting + " && programs\n")
	}
	for _, r := range no {
		s.call("refused", strings.ReplaceAll(r.name, "\x00", ""), r.why)
	}
	for _, set := range settings {
		if set.Expand {
			s.call("expand", set.Name, set.Value)
		}
	}
	if name, ok := last(settings, "HOSTNAME"); ok && strings.TrimSpace(name.Value) != "" {
		s.set("hostname", name)
	} else if o.Hostname != "" {
		s.call("hostname", "HOSTNAME", o.Hostname)
	}
	s.call("machine_id", "MACHINE_ID", o.MachineID)
	for _, name := range slices.Sorted(maps.Keys(o.HostKeys)) {
		s.call("host_key", "HOST_KEY", name, string(o.HostKeys[name]))
	}
	if _, ok := o.AuthorizedKeys["root"]; !ok {
		s.call("authorize", "root", "")
	}
	for _, user := range slices.Sorted(maps.Keys(o.AuthorizedKeys)) {
		var keys string
		for _, key := range o.AuthorizedKeys[user] {
			keys += key + "\n"
		}
		s.call("authorize", user, keys)
	}
	s.resolver(settings)
	zone, _ := last(settings, "TIMEZONE")
	s.set("timezone", zone)
	s.locale(settings)
	s.keyboard(settings)
	s.services(settings, o)
	for _, f := range lines {
		s.family(settings, f.prefix, f.function)
	}
	s.call("lines")
	s.call("at_end")
	s.family(settings, "MODULE_", "module")
	s.WriteString(swap)
	return s.Bytes()
}

// swap returns the call for an area over NBD, where there may be one, and the
// call that asks whether there is to be one.
func swap(settings []Setting, o Swap) (wanting, call string) {
	wanted, asked := last(settings, "NBD_SWAP")
	server, export := Setting{}, o.Export
	port := Setting{Value: strconv.Itoa(int(cmp.Or(o.Port, 10809)))}
	if o.Server.IsValid() {
		server.Value = o.Server.String()
	}
	if other, ok := last(settings, "NBD_SWAP_HOST"); ok && other != (Setting{Name: other.Name, Value: server.Value}) {
		server, export = other, "swap" // as LTSP's own server has it
		port = Setting{Value: "10809"}
		if set, ok := last(settings, "NBD_SWAP_PORT"); ok {
			port = set
		}
	}
	if export == "" && !asked || asked && !wanted.Expand && !isTrue(wanted.Value) {
		return "", ""
	}
	below, ok := last(settings, "NBD_SWAP_THRESHOLD")
	if !ok {
		below.Value = "2100" // LTSP 5's, for machines that run everything themselves
	}
	words := word(wanted) + " " + word(below)
	return "wanted " + words, fmt.Sprintf("swap NBD_SWAP %s %s %s %s\n", words, word(server), word(port), quote(export))
}

func (s *script) resolver(settings []Setting) {
	servers, _ := last(settings, "DNS_SERVER")
	domains, _ := last(settings, "SEARCH_DOMAIN")
	fmt.Fprintf(s, "resolver DNS_SERVER %s %s\n", word(servers), word(domains))
}

// variables writes a call that makes a file of NAME="value" lines, which
// systemd and shells both read; without any, one that leaves it to the root.
func (s *script) variables(path string, names map[string]Setting) {
	if len(names) == 0 {
		s.call("file", path, path, "")
		return
	}
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`")
	fmt.Fprintf(s, "file %s %s ", quote(path), quote(path))
	for _, name := range slices.Sorted(maps.Keys(names)) {
		set := names[name]
		if set.Expand {
			fmt.Fprintf(s, `%s"$(escaped %s)"%s`, quote(name+`="`), set.Name, quote("\"\n"))
		} else {
			s.WriteString(quote(name + `="` + escape.Replace(set.Value) + "\"\n"))
		}
	}
	s.WriteByte('\n')
}

func (s *script) locale(settings []Setting) {
	names := map[string]Setting{}
	for _, set := range settings {
		if set.Name == "LANG" || set.Name == "LANGUAGE" || strings.HasPrefix(set.Name, "LC_") {
			names[set.Name] = set
		}
	}
	s.variables("/etc/default/locale", names) // Debian's
	s.variables("/etc/locale.conf", names)    // systemd's
}

func (s *script) keyboard(settings []Setting) {
	x := map[string]Setting{}
	for _, name := range []string{"XKBMODEL", "XKBLAYOUT", "XKBVARIANT", "XKBOPTIONS"} {
		if set, ok := last(settings, name); ok {
			x[name] = set
		}
	}
	s.variables("/etc/default/keyboard", x)
	console := map[string]Setting{}
	set, ok := last(settings, "CONSOLE_KEYMAP")
	if ok {
		console["KEYMAP"] = set
	}
	s.variables("/etc/vconsole.conf", console)
	if ok {
		s.set("keymap", set)
	}
}

// commandsOf are the commands of families, for files/commands.
func commandsOf(settings []Setting, prefixes ...string) []byte {
	var s script
	for _, prefix := range prefixes {
		for _, set := range members(settings, prefix) {
			code := quote(set.Value)
			if set.Expand {
				code = `"${` + set.Name + `-}"` // of the environment
			}
			s.WriteString("diskless_run " + quote(set.Name) + " " + code + "\n")
		}
	}
	return s.Bytes()
}

// report is the word to the server.
func report(o *Options) []byte {
	var s script
	if u, err := url.Parse(o.Report); err == nil && u.Host != "" {
		port := u.Port()
		if port == "" {
			port = "80"
		}
		s.call("report", u.Hostname(), port, u.EscapedPath())
	}
	return s.Bytes()
}

// options is what the initramfs has to know.
func options(settings []Setting, o *Options) []byte {
	var b bytes.Buffer
	assign := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s=%s\n", name, quote(value))
		}
	}
	assign("overlay_size", o.OverlaySize)
	assign("overlay_label", udevName(o.OverlayLabel))
	if o.OverlayKept {
		assign("overlay_kept", "1")
	}
	if o.OwnNFS {
		assign("own_nfs", "1")
	}
	for _, name := range []string{"LTSP_NBD_TO_RAM", "IMAGE_TO_RAM"} {
		if set, _ := last(settings, name); isTrue(set.Value) {
			assign("to_memory", "1")
		}
	}
	stop := o.Break
	if set, _ := last(settings, "DEBUG_SHELL"); stop == NoBreak && isTrue(set.Value) {
		stop = BreakOnError
	}
	assign("break", string(stop))
	return b.Bytes()
}

// udevName is a label as udev spells it in /dev/disk/by-label.
func udevName(label string) string {
	var b strings.Builder
	for i := range len(label) {
		c := label[i]
		if letter := c|0x20 >= 'a' && c|0x20 <= 'z'; letter || c >= 0x80 || strings.IndexByte("0123456789#+-.:=@_", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "\\x%02x", c)
		}
	}
	return b.String()
}

// isTrue reads a value as both LTSPs do.
func isTrue(value string) bool {
	switch strings.ToLower(value) {
	case "1", "true", "yes", "y":
		return true
	}
	return false
}
