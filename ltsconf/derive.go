package ltsconf

import (
	"fmt"
	"strings"
)

// FileName returns the name at which an LTSP 5 client asks TFTP for its
// lts.conf, exactly as it stands in the request. bootImage is BOOT_IMAGE= on
// its kernel command line, dhcpFile the boot file name from DHCP, which counts
// when the first is empty; arch is what the client calls its architecture,
// for when neither has a directory; ltsconf the setting LTSCONF, empty for
// lts.conf. [Names] is for a server, which knows less.
func FileName(bootImage, dhcpFile, arch, ltsconf string) string {
	if bootImage == "" {
		bootImage = dhcpFile
	}
	dir := bootImage[:strings.LastIndexByte(bootImage, '/')+1]
	if dir == "" {
		dir = "/ltsp/" + arch + "/"
	}
	if ltsconf == "" {
		ltsconf = "lts.conf"
	}
	return dir + ltsconf
}

// CmdlineSettings returns what an LTSP 5 client takes from its kernel command
// line before it reads lts.conf, which overrides these: the server of its
// root from nbdroot= or nfsroot=, and NAME=value for each ltsp.name=value.
// rootServer is the server that DHCP named, for roots without one.
func CmdlineSettings(cmdline, rootServer string) Settings {
	var out Settings
	set := func(name, value string) { out = append(out, Setting{name, Literal(value)}) }
	root, nbd, nfs := "", false, false
	var vars []string
	for _, word := range strings.FieldsFunc(cmdline, func(r rune) bool { return r == ' ' || r == '\t' || r == '\n' }) {
		if v, ok := strings.CutPrefix(word, "nbdroot="); ok {
			root, nbd = v, true
		} else if v, ok := strings.CutPrefix(word, "nfsroot="); ok {
			root, nfs = v, true
		} else if v, ok := strings.CutPrefix(word, "ltsp."); ok && strings.Contains(v, "=") {
			vars = append(vars, v)
		}
	}
	server, port, path := splitRoot(root)
	if server == "" {
		server = rootServer
	}
	switch {
	case nbd:
		set("NBD_ROOT_HOST", server)
		if strings.Trim(port, "0123456789") != "" { // an export's name
			port, path = "", port
		}
		if path != "" {
			set("NBD_ROOT_NAME", path)
		}
		if port != "" {
			set("NBD_ROOT_PORT", port)
		}
	case nfs:
		set("NFS_SERVER", server)
	}
	for _, v := range vars {
		name, value, _ := strings.Cut(unescapeRead(v), "=")
		if strings.Count(value, "=") == 1 {
			value = strings.TrimSuffix(value, "=") // the shell's read drops it
		}
		if name != "" {
			set(upper(name), value)
		}
	}
	return out
}

// splitRoot takes server:port/path apart as initramfs-tools' script does.
func splitRoot(root string) (server, port, path string) {
	rest := ""
	if end := strings.LastIndexByte(root, ']'); strings.HasPrefix(root, "[") && end > 0 {
		server, rest = root[1:end], root[end+1:]
	} else if i := strings.IndexAny(root, ":/"); i >= 0 {
		server, rest = root[:i], root[i:]
	} else {
		server = root
	}
	rest = strings.TrimPrefix(rest, ":")
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		return server, rest[:i], rest[i:]
	}
	return server, rest, ""
}

// unescapeRead drops backslashes as the shell's read without -r does.
func unescapeRead(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' {
			if i++; i == len(s) {
				break
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// AutoHostname returns the host name that an LTSP 5 client without a name
// gives itself: HOSTNAME_BASE (empty means ltsp), and what HOSTNAME_EXTRA
// asks for: the number of its address within its network of prefix bits for
// "ip" or nothing, the MAC address with dashes for "mac"; any other text
// stands as it is.
func (c Client) AutoHostname(base, extra string, prefix int) string {
	if base == "" {
		base = "ltsp"
	}
	switch extra {
	case "mac":
		extra = strings.ReplaceAll(c.MAC.String(), ":", "-")
	case "", "ip":
		extra = ""
		if ip := c.IP.Unmap(); ip.Is4() && prefix >= 0 && prefix <= 32 {
			var n uint64
			for _, b := range ip.As4() {
				n = n<<8 | uint64(b)
			}
			extra = fmt.Sprint(n % (1 << (32 - prefix)))
		}
	}
	return base + extra
}
