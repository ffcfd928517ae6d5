package ltsconf

import (
	"slices"
	"strings"
)

// ltspVariables is what LTSP 19 to 23 reads from ltsp.conf, after
// ltsp.conf(5) and its scripts; it is not changed.
var ltspVariables = [...]Variable{
	{Name: "DEBUG_LOG", Group: "general", Kind: Switch, Type: "0|1", Default: "0", Meaning: "keep warnings and errors in /run/ltsp/debug.log"},
	{Name: "DEBUG_SHELL", Group: "general", Kind: Switch, Type: "0|1", Default: "0", Meaning: "give a shell where an error would stop the boot"},
	{Name: "LTSP_DEBUG", Group: "general", Kind: CommaList, Type: "1 or applets", Meaning: "say what runs, everywhere or in the applets named"},
	{Name: "INCLUDE", Group: "general", Kind: Text, Type: "section", Meaning: "run another section in this place; in the first column only"},
	{Name: "OMIT_FUNCTIONS", Group: "general", Kind: List, Type: "list of functions", Meaning: "functions of LTSP that do nothing"},
	{Name: "PRE_<APPLET>_*", Group: "general", Kind: Text, Type: "shell code", Meaning: "run before an applet does its work"},
	{Name: "POST_<APPLET>_*", Group: "general", Kind: Text, Type: "shell code", Meaning: "run after an applet did its work"},
	{Name: "BASE_DIR", Group: "server", Kind: Path, Type: "path", Default: "/srv/ltsp", Meaning: "where chroots and images are"},
	{Name: "TFTP_DIR", Group: "server", Kind: Path, Type: "path", Default: "/srv/tftp", Meaning: "root of the TFTP server"},
	{Name: "HOME_DIR", Group: "server", Kind: Path, Type: "path", Default: "/home", Meaning: "where the users' directories are"},
	{Name: "OVERWRITE", Group: "server", Kind: Switch, Type: "0|1", Meaning: "replace configuration files that are there already"},
	{Name: "NAT", Group: "server", Kind: Switch, Type: "0|1", Meaning: "in [server]: forward the clients' packets though no address is 192.168.67.1 yet"},
	{Name: "RPI_IMAGE", Group: "server", Kind: Text, Type: "image", Meaning: "image that Raspberry Pis boot from"},
	{Name: "ADD_IMAGE_EXCLUDES", Group: "image", Kind: Text, Type: "file or lines", Meaning: "what else an image leaves out"},
	{Name: "OMIT_IMAGE_EXCLUDES", Group: "image", Kind: Text, Type: "file or lines", Meaning: "what an image keeps after all"},
	{Name: "DEFAULT_IMAGE", Group: "boot", Kind: Text, Type: "image", Meaning: "entry of the iPXE menu that boots by itself; in [server] or a MAC section"},
	{Name: "KERNEL_PARAMETERS", Group: "boot", Kind: Text, Type: "string", Meaning: "more words for the kernel command line; in [server] or a MAC section"},
	{Name: "MENU_TIMEOUT", Group: "boot", Kind: Int, Type: "int ms", Default: "5000", Meaning: "time of the iPXE menu; 0 waits, -1 hides it; in [server] or a MAC section"},
	{Name: "IPXE_*", Group: "boot", Kind: Text, Type: "iPXE script", Meaning: "menu entry of an image in place of the usual one"},
	{Name: "IMAGE", Group: "boot", Kind: Text, Type: "string", Meaning: "ltsp.image of the kernel command line: what the root is made of"},
	{Name: "IMAGE_TO_RAM", Group: "boot", Kind: Switch, Type: "0|1", Default: "0", Meaning: "copy the image into memory while booting"},
	{Name: "HOSTNAME", Group: "network", Kind: Text, Type: "string", Default: "ltsp%{IP}", Meaning: "the client's name; %{IP} is its number in the subnet, %{MAC} its address without colons"},
	{Name: "SERVER", Group: "network", Kind: Host, Type: "host", Meaning: "the LTSP server; found out when not set"},
	{Name: "DNS_SERVER", Group: "network", Kind: IPList, Type: "list of IP", Meaning: "resolvers"},
	{Name: "SEARCH_DOMAIN", Group: "network", Kind: Text, Type: "string", Meaning: "DNS search domain, put into /etc/hosts too; default: DHCP"},
	{Name: "HOSTS_*", Group: "network", Kind: Text, Type: "line", Meaning: "lines of /etc/hosts, sorted by name"},
	{Name: "CUPS_SERVER", Group: "network", Kind: Host, Type: "host|localhost|ignore", Default: "$SERVER", Meaning: "print server of the client"},
	{Name: "FSTAB_*", Group: "client", Kind: Text, Type: "line", Meaning: "lines of /etc/fstab, sorted by name"},
	{Name: "CRONTAB_*", Group: "client", Kind: Text, Type: "line", Meaning: "lines of a system crontab"},
	{Name: "LOCAL_SWAP", Group: "client", Kind: Switch, Type: "0|1", Default: "1", Meaning: "use swap partitions of the client"},
	{Name: "MULTISEAT", Group: "client", Kind: Switch, Type: "0|1", Meaning: "split a client with two graphics cards into two seats"},
	{Name: "UDEV_SEAT_<n>_*", Group: "client", Kind: Text, Type: "pattern", Meaning: "devices of a seat"},
	{Name: "REMOTEAPPS", Group: "client", Kind: List, Type: "list of programs", Meaning: "programs that run on the server"},
	{Name: "IGNORE_EPOPTES", Group: "client", Kind: Switch, Type: "0|1", Meaning: "leave the client out of epoptes"},
	{Name: "DISABLE_SESSION_SERVICES", Group: "services", Kind: List, Type: "list of services", Meaning: "user services that do not start by themselves"},
	{Name: "DISABLE_SYSTEM_SERVICES", Group: "services", Kind: List, Type: "list of services", Meaning: "system services that do not start by themselves"},
	{Name: "KEEP_SESSION_SERVICES", Group: "services", Kind: List, Type: "list of services", Meaning: "user services that LTSP would stop and must not"},
	{Name: "KEEP_SYSTEM_SERVICES", Group: "services", Kind: List, Type: "list of services", Meaning: "system services that LTSP would stop and must not"},
	{Name: "MASK_SESSION_SERVICES", Group: "services", Kind: List, Type: "list of services", Meaning: "user services that cannot be started"},
	{Name: "MASK_SYSTEM_SERVICES", Group: "services", Kind: List, Type: "list of services", Meaning: "system services that cannot be started"},
	{Name: "AUTOLOGIN", Group: "login", Kind: Text, Type: "user or expression", Meaning: "user that is logged in; pc/user makes pc07 log in user07"},
	{Name: "RELOGIN", Group: "login", Kind: Switch, Type: "0|1", Default: "1", Meaning: "AUTOLOGIN works again after a logout"},
	{Name: "RELOGIN_TIMEOUT", Group: "login", Kind: Int, Type: "int s", Meaning: "wait before logging in again"},
	{Name: "GDM3_CONF", Group: "login", Kind: Text, Type: "file or lines", Meaning: "more configuration of GDM"},
	{Name: "LIGHTDM_CONF", Group: "login", Kind: Text, Type: "file or lines", Meaning: "more configuration of LightDM"},
	{Name: "SDDM_CONF", Group: "login", Kind: Text, Type: "file or lines", Meaning: "more configuration of SDDM"},
	{Name: "SLICK_CONF", Group: "login", Kind: Text, Type: "file or lines", Meaning: "more configuration of the slick greeter"},
	{Name: "LTSPDM_USERS", Group: "login", Kind: Text, Type: "expression", Meaning: "users that the login screen offers"},
	{Name: "PASSWORDS_*", Group: "login", Kind: List, Type: "list of user/base64", Meaning: "passwords that the client knows; base64 hides nothing"},
	{Name: "PAM_AUTH_TYPE", Group: "login", Kind: Text, Type: "string", Meaning: "which logins pamltsp handles"},
	{Name: "SSH_SERVER", Group: "login", Kind: Host, Type: "host", Default: "$SERVER", Meaning: "where passwords are checked and homes come from"},
	{Name: "SSH_OPTIONS", Group: "login", Kind: Text, Type: "string", Meaning: "more options of ssh and sshfs"},
	{Name: "PWMERGE_SUR", Group: "login", Kind: Text, Type: "expression", Meaning: "users of the server that clients know"},
	{Name: "PWMERGE_SGR", Group: "login", Kind: Text, Type: "expression", Meaning: "groups of the server that clients know"},
	{Name: "PWMERGE_DUR", Group: "login", Kind: Text, Type: "expression", Meaning: "users of the image that stay"},
	{Name: "PWMERGE_DGR", Group: "login", Kind: Text, Type: "expression", Meaning: "groups of the image that stay"},
	{Name: "X_DRIVER", Group: "screen", Kind: Text, Type: "string", Meaning: "driver of Xorg"},
	{Name: "X_HORIZSYNC", Group: "screen", Kind: Text, Type: "range kHz", Meaning: "horizontal frequencies of the monitor"},
	{Name: "X_VERTREFRESH", Group: "screen", Kind: Text, Type: "range Hz", Meaning: "vertical frequencies of the monitor"},
	{Name: "X_MODELINE", Group: "screen", Kind: Text, Type: "modeline", Meaning: "a mode of Xorg's own"},
	{Name: "X_MODES", Group: "screen", Kind: Text, Type: "quoted modes", Meaning: "resolutions to try, in order"},
	{Name: "X_PREFERREDMODE", Group: "screen", Kind: Text, Type: "mode", Meaning: "resolution that the monitor prefers"},
	{Name: "X_VIRTUAL", Group: "screen", Kind: Text, Type: "width height", Meaning: "size of the whole screen"},
}

// ltspApplets are those that PRE_ and POST_ can name.
var ltspApplets = [...]string{"INIT", "INITRD_BOTTOM", "LOGIN", "SESSION", "REMOTEAPPS", "DNSMASQ", "IMAGE", "INFO", "INITRD", "IPXE", "KERNEL", "NFS", "SERVICE"}

// LTSPVariables returns the settings that LTSP 19 and later knows.
func LTSPVariables() []Variable { return slices.Clone(ltspVariables[:]) }

// LookupLTSPVariable returns what LTSP 19 and later knows about a name. Unlike
// those of LTSP 5, its names have their case: hostname is not HOSTNAME.
func LookupLTSPVariable(name string) (Variable, bool) {
	for _, v := range ltspVariables {
		if v.Name == name {
			return v, true
		}
	}
	for _, v := range ltspVariables {
		before, after, applet := strings.Cut(v.Name, "<APPLET>_*")
		switch {
		case applet && after == "":
			rest, ok := strings.CutPrefix(name, before)
			if ok && slices.ContainsFunc(ltspApplets[:], func(a string) bool { return strings.HasPrefix(rest, a+"_") && len(rest) > len(a)+1 }) {
				return v, true
			}
		case strings.ContainsAny(v.Name, "*<") && matchFamily(v.Name, name):
			return v, true
		}
	}
	return Variable{}, false
}

// suggestLTSP offers the known name that was probably meant.
func suggestLTSP(name string) string {
	for _, prefix := range []string{"PRE_", "POST_"} {
		rest, ok := strings.CutPrefix(name, prefix)
		for _, a := range ltspApplets {
			n := len(a)
			if ok && len(rest) > n+1 && rest[n] == '_' && distance(rest[:n], a, 3) < 3 {
				return "; is it " + prefix + a + clip(rest[n:]) + "?"
			}
		}
	}
	return suggestFrom(ltspVariables[:], name)
}

// ltspSettings finds settings that LTSP does not know, or of the wrong type.
// Names in lower case are taken for variables of the file's own, as are those
// that the file itself reads.
func (f *LTSPFile) ltspSettings(add func(rule string, line, col int, format string, args ...any)) {
	own := f.readNames()
	for i := range f.sections {
		s := &f.sections[i]
		last := make(map[string]int)
		for _, n := range topLevel(s.body) {
			for _, a := range n.assigns {
				_, line, col := f.at(a.off)
				if was, ok := last[a.name]; ok && !own[a.name] {
					_, l, c := f.at(was)
					add("duplicate-setting", l, c, "%s is set again in line %d, which counts", clip(a.name), line)
				}
				last[a.name] = a.off
				v, known := LookupLTSPVariable(a.name)
				if !known {
					if a.name == upper(a.name) && !own[a.name] && a.name != "INCLUDE" {
						add("unknown", line, col, "LTSP does not know %s%s", clip(a.name), suggestLTSP(a.name))
					} else if w, ok := LookupLTSPVariable(upper(a.name)); ok && !own[a.name] {
						add("unknown", line, col, "LTSP does not know %s; is it %s?", clip(a.name), w.Name)
					}
					continue
				}
				f.ltspSetting(s, v, a, func(rule, format string, args ...any) { add(rule, line, col, format, args...) })
			}
		}
	}
}

func (f *LTSPFile) ltspSetting(s *ltspSection, v Variable, a assign, add func(rule, format string, args ...any)) {
	text := ""
	for _, p := range a.val {
		if p.kind != textPart {
			return
		}
		text += p.text
	}
	if why := v.Check(text); why != "" {
		add("type", "%s: %q %s", clip(a.name), clip(text), why)
	}
	switch v.Name {
	case "FSTAB_*":
		if why := checkFstab(text); why != "" {
			add("fstab", "%s: %s", clip(a.name), why)
		}
	case "NAT":
		if s.label != "server" {
			add("unused", "%s counts in [server] only", v.Name)
		}
	case "DEFAULT_IMAGE", "KERNEL_PARAMETERS", "MENU_TIMEOUT":
		if s.label == "clients" {
			add("unused", "%s counts in [server], and in sections for one MAC address", v.Name)
		}
	case "PASSWORDS_*":
		if slices.Contains([]string{"clients", "common", unnamed}, s.label) || strings.ContainsAny(s.label, "*?") {
			add("secret", "%s looks like a secret, and each client that [%s] applies to can read it", clip(a.name), clip(s.label))
		}
	}
}

// topLevel returns the commands of a section that always run.
func topLevel(n *node) []*node {
	if n == nil {
		return nil
	}
	var out []*node
	for _, c := range n.list {
		if c.kind == simpleNode && len(c.words) == 0 {
			out = append(out, c)
		}
	}
	return out
}

// readNames returns the names that the file's own code reads.
func (f *LTSPFile) readNames() map[string]bool {
	names := make(map[string]bool)
	var word func(w []part)
	var command func(n *node)
	word = func(w []part) {
		for _, p := range w {
			switch p.kind {
			case paramPart:
				names[p.text] = true
			case arithPart:
				for _, t := range p.arg {
					for _, name := range strings.FieldsFunc(t.text, func(r rune) bool { return nameLen("a"+string(r)) < 2 }) {
						names[name] = true
					}
				}
			case commandPart:
				walk(p.body, command)
			}
			word(p.arg)
		}
	}
	command = func(n *node) {
		for _, a := range n.assigns {
			word(a.val)
		}
		for _, w := range n.words {
			word(w)
		}
		for _, a := range n.arms {
			for _, p := range a.patterns {
				word(p)
			}
		}
		for _, r := range n.redirs {
			word(r.word)
			word(r.here)
		}
	}
	for i := range f.sections {
		walk(f.sections[i].body, command)
	}
	return names
}

// includeCircles tells of sections whose INCLUDEs lead back to them: the
// second one does nothing there.
func (f *LTSPFile) includeCircles(add func(rule string, line, col int, format string, args ...any)) {
	const (
		unseen = iota
		onPath
		finished
	)
	type call struct {
		to  int32
		off int
	}
	calls := make([][]call, len(f.sections))
	for i := range f.sections {
		walk(f.sections[i].body, func(n *node) {
			if len(n.words) < 2 || plainText(n.words[0]) != includeCommand {
				return
			}
			if to, ok := f.find(plainText(n.words[1])); ok {
				calls[i] = append(calls[i], call{f.byID[f.sections[to].id], n.off})
			}
		})
	}
	type step struct{ section, next int32 }
	state := make([]byte, len(f.sections))
	var path []step
	for i := range f.sections {
		if state[i] != unseen {
			continue
		}
		state[i] = onPath
		path = append(path[:0], step{section: int32(i)})
		for len(path) > 0 {
			top := &path[len(path)-1]
			if int(top.next) == len(calls[top.section]) {
				state[top.section] = finished
				path = path[:len(path)-1]
				continue
			}
			c := calls[top.section][top.next]
			top.next++
			switch state[c.to] {
			case unseen:
				state[c.to] = onPath
				path = append(path, step{section: c.to})
			case onPath:
				_, line, col := f.at(c.off)
				add("include", line, col, "INCLUDE in a circle: [%s] runs already, and this does nothing", clip(f.sections[c.to].label))
			}
		}
	}
}
