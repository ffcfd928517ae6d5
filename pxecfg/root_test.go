package pxecfg

import (
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// nbdClient is what an initramfs calls nbd-client with.
type nbdClient struct{ server, export, port, device string }

// readInitramfsTools reads nbdroot= with the meaning that the recorded cases
// have, without the short cuts of the shell.
func readInitramfsTools(cmdline, rootserver, rootpath string) (c nbdClient, ok bool) {
	var nbdroot string
	for _, x := range strings.Fields(cmdline) {
		switch {
		case strings.HasPrefix(x, "nbddev="):
			c.device = x[len("nbddev="):]
		case strings.HasPrefix(x, "nbdroot="):
			nbdroot = x[len("nbdroot="):]
		case strings.HasPrefix(x, "root=/dev/nbd"):
			c.device = x[len("root="):]
		}
	}
	if nbdroot == "" || nbdroot == "dhcp" {
		nbdroot = rootpath
	}
	parts := strings.Split(nbdroot, ",")
	switch {
	case len(parts) == 3:
		c.server, c.export = parts[0], parts[1]
		if c.device == "" {
			c.device = "/dev/" + parts[2]
		}
	case len(parts) == 2:
		c.server, c.port = parts[0], parts[1]
	default:
		rest := nbdroot
		if strings.HasPrefix(rest, "[") {
			c.server, rest, _ = strings.Cut(rest[1:], "]")
		} else if i := strings.IndexAny(rest, ":/"); i >= 0 {
			c.server, rest = rest[:i], rest[i:]
		} else {
			c.server, rest = rest, ""
		}
		switch {
		case strings.HasPrefix(rest, ":/"):
			c.export = rest[1:]
		case strings.HasPrefix(rest, "/") && c.server == "":
			c.export = rest
		case rest != "":
			rest = strings.TrimPrefix(rest, ":")
			c.port, _, _ = strings.Cut(rest, "/")
			c.export = strings.TrimPrefix(rest, c.port+"/")
		}
	}
	if i := strings.LastIndex(c.device, "p"); i >= 0 {
		c.device = c.device[:i]
	}
	if c.server == "" || c.server == "dhcp" {
		c.server = rootserver
	}
	return c, c.server != "" && c.device != "" && c.export != ""
}

func TestInitramfsToolsReader(t *testing.T) {
	var v struct {
		Cases []struct {
			Cmdline string
			DHCP    struct{ ROOTSERVER, ROOTPATH string }
			Result  string
			Server  string
			Export  string
			Port    *string
			Device  string
		}
	}
	loadJSON(t, "nbdroot_initramfs_tools.json", &v)
	require.NotEmpty(t, v.Cases)
	for _, r := range v.Cases {
		got, ok := readInitramfsTools(r.Cmdline, r.DHCP.ROOTSERVER, r.DHCP.ROOTPATH)
		if strings.HasPrefix(r.Result, "(") { // not an NBD root at all
			require.NotContains(t, r.Cmdline, "nbd", r.Cmdline)
			continue
		}
		require.Equal(t, strings.HasPrefix(r.Result, "nbd-client"), ok, r.Cmdline)
		if ok {
			want := nbdClient{server: r.Server, export: r.Export, device: r.Device}
			if r.Port != nil {
				want.port = *r.Port
			}
			require.Equal(t, want, got, r.Cmdline)
		}
	}
}

func TestNBDInitramfsTools(t *testing.T) {
	for _, r := range []NBDInitramfsTools{
		{Server: netip.MustParseAddr("192.0.2.1"), Export: "debian12", ReadOnly: true},
		{Server: netip.MustParseAddr("192.0.2.1"), Port: 2000, Export: "debian12"},
		{Server: netip.MustParseAddr("2001:db8::1"), Export: "debian12"},
		{Server: netip.MustParseAddr("192.0.2.1"), Export: "/opt/ltsp/amd64"},
		{Server: netip.MustParseAddr("192.0.2.1"), Export: "images/amd64"},
		{Server: netip.MustParseAddr("192.0.2.1"), Export: "2000"},
		{Server: netip.MustParseAddr("192.0.2.1"), Export: "debian12~0a1b2c3d4e5f@node-01.6f3k9a-x7Qm2p"},
	} {
		args, err := r.Args()
		require.NoError(t, err)
		got, ok := readInitramfsTools(strings.Join(args, " "), "198.51.100.9", "/wrong")
		require.True(t, ok)
		port := r.Port
		if port == 0 {
			port = NBDPort
		}
		require.Equal(t, nbdClient{r.Server.String(), r.Export, nbdPort(port), "/dev/nbd0"}, got)
		require.Contains(t, args, map[bool]string{true: "ro", false: "rw"}[r.ReadOnly])
		require.Contains(t, args, "ip=dhcp")
	}
	args, err := NBDInitramfsTools{Server: netip.MustParseAddr("192.0.2.1"), Export: "x", ReadOnly: true, Overlay: "tmpfs"}.Args()
	require.NoError(t, err)
	require.Equal(t, []string{"root=/dev/nbd0", "nbdroot=192.0.2.1:10809/x", "ip=dhcp", "ro", "overlayroot=tmpfs"}, args)
}

// TestNBDInitramfsToolsScript runs the script itself, if the nbd-client package
// is installed, with everything it calls replaced.
func TestNBDInitramfsToolsScript(t *testing.T) {
	const script = "/usr/share/initramfs-tools/scripts/local-top/nbd"
	text, err := os.ReadFile(script)
	if err != nil {
		if os.Getenv("DISKLESS_REQUIRE") == "all" {
			t.Fatal("install nbd-client:", err)
		}
		t.Skip("nbd-client's initramfs script is missing")
	}
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(dir+"/functions", []byte(
		"log_begin_msg() { :; }\nlog_end_msg() { :; }\nwait_for_udev() { :; }\nmodprobe() { :; }\nconfigure_networking() { :; }\nlog_failure_msg() { echo \"$@\"; }\n"), 0o600))
	require.NoError(t, os.WriteFile(dir+"/client", []byte("#!/bin/sh\necho nbd-client \"$@\"\n"), 0o700))
	s := strings.NewReplacer("/proc/cmdline", dir+"/cmdline", "/scripts/functions", dir+"/functions").Replace(string(text))
	exports := []string{"debian12~0a1b2c3d4e5f@node-01.6f3k9a-x7Qm2p", "10809", "10809/x", "/", "//", "/opt/ltsp/amd64", "a/10809/b",
		"~root", "nbd0p1", "dhcp", "=", "a=b", "nbdroot=x", "+", "@", ".", "..", "_", "eth0", "0", "p"}
	random := rand.New(rand.NewPCG(1, 2)) // the same words each time
	for range 40 {
		word := make([]byte, 1+random.IntN(20))
		for i := range word {
			word[i] = wordBytes[random.IntN(len(wordBytes))]
		}
		exports = append(exports, string(word))
	}
	for i, export := range exports {
		r := NBDInitramfsTools{Server: rootServer4, Export: export, ReadOnly: true, Overlay: "tmpfs:swap=1"}
		if i%2 == 1 {
			r.Server, r.Port = rootServer6, uint16(1+random.IntN(1<<16-1))
		}
		if i%3 == 1 {
			r.IP = static4
		}
		args, err := r.Args()
		if export[0] == '-' {
			require.Error(t, err)
			continue
		}
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(dir+"/cmdline", []byte("BOOT_IMAGE=k "+strings.Join(args, " ")+"\n"), 0o600))
		cmd := exec.Command("/bin/sh", "-c", s)
		cmd.Env = append(os.Environ(), "NBDCLIENT="+dir+"/client", "ROOTSERVER=198.51.100.9", "ROOTPATH=/wrong")
		out, _ := cmd.CombinedOutput() // its last command looks into /sys
		require.Contains(t, string(out), "nbd-client "+r.Server.String()+" -N "+export+" "+nbdPort(r.Port)+" /dev/nbd0 ", "%v", args)
	}
}

// readDracut reads root=nbd: with the meaning of the recorded cases: what
// equals its neighbour is dropped, as in the script.
func readDracut(root string) (server, port, fstype, flags, opts string) {
	rest := strings.TrimPrefix(root, "nbd:")
	if strings.HasPrefix(rest, "[") {
		server, rest, _ = strings.Cut(rest[1:], "]:")
	} else {
		server, rest, _ = strings.Cut(rest, ":")
	}
	next := func() (field string) {
		field, tail, found := strings.Cut(rest, ":")
		if found {
			rest = tail
		}
		return field
	}
	port, fstype, flags = next(), next(), next()
	opts = rest
	if opts == flags {
		opts = ""
	}
	if flags == fstype {
		flags = ""
	}
	if fstype == port || fstype == "" {
		fstype = "auto"
	}
	return
}

func TestDracutReader(t *testing.T) {
	var v struct {
		Cases []struct{ Root, Command, FSType, FSOpts string }
	}
	loadJSON(t, "nbd_dracut.json", &v)
	require.NotEmpty(t, v.Cases)
	for _, r := range v.Cases {
		server, port, fstype, flags, _ := readDracut(r.Root)
		if strings.Trim(port, "0123456789") != "" {
			port = "-name " + port
		}
		require.Contains(t, r.Command, " "+server+" "+port+" /dev/nbd0", r.Root)
		require.Equal(t, r.FSType, fstype, r.Root)
		require.ElementsMatch(t, strings.FieldsFunc(r.FSOpts, comma), strings.FieldsFunc(flags, comma), r.Root)
	}
}

func comma(r rune) bool { return r == ',' }

func TestNBDDracut(t *testing.T) {
	for _, r := range []NBDDracut{
		{Server: netip.MustParseAddr("192.0.2.1"), Export: "debian12", FSType: "squashfs", ReadOnly: true},
		{Server: netip.MustParseAddr("192.0.2.1"), Port: NBDPort, Export: "/opt/ltsp/amd64"},
		{Server: netip.MustParseAddr("2001:db8::1"), Export: "2000a", FSType: "ext4", MountOptions: []string{"noatime", "x=1"}},
		{Server: netip.MustParseAddr("192.0.2.1"), Export: "debian12~0a1b2c3d4e5f@node-01.6f3k9a-x7Qm2p", FSType: "squashfs"},
	} {
		args, err := r.Args()
		require.NoError(t, err)
		require.Equal(t, []string{"ip=dhcp", "rd.neednet=1"}, args[1:])
		server, port, fstype, flags, opts := readDracut(strings.TrimPrefix(args[0], "root="))
		require.Equal(t, r.Server.String(), server)
		require.Equal(t, r.Export, port)
		if r.FSType == "" {
			r.FSType = "auto"
		}
		require.Equal(t, r.FSType, fstype)
		require.Equal(t, append([]string{readOnly(r.ReadOnly)}, r.MountOptions...), strings.FieldsFunc(flags, comma))
		require.Empty(t, opts)
	}
}

func TestRootRefuses(t *testing.T) {
	server := netip.MustParseAddr("192.0.2.1")
	for reason, r := range map[string]Root{
		"set the address":    NBDInitramfsTools{Export: "x"},
		"set the address ":   NBDDracut{Server: netip.IPv4Unspecified(), Export: "x"},
		"a zone":             NBDInitramfsTools{Server: netip.MustParseAddr("fe80::1%eth0"), Export: "x"},
		"is empty":           NBDInitramfsTools{Server: server},
		"is empty:":          NBDDracut{Server: server},
		"at : and ,":         NBDInitramfsTools{Server: server, Export: "a,b"},
		" at : and ,":        NBDDracut{Server: server, Export: "a:b"},
		"only letters":       NBDInitramfsTools{Server: server, Export: "a b"},
		" only letters":      NBDInitramfsTools{Server: server, Export: "a*"},
		"survive loaders":    NBDDracut{Server: server, Export: "a#b"},
		"for an option":      NBDInitramfsTools{Server: server, Export: "-x"},
		"on a port other":    NBDDracut{Server: server, Port: 10810, Export: "x"},
		"for a port":         NBDDracut{Server: server, Export: "10810"},
		"equals the name":    NBDDracut{Server: server, Export: "ext4", FSType: "ext4"},
		"not a word":         NBDDracut{Server: server, Export: "x", FSType: "a:b"},
		"must be one word":   NBDDracut{Server: server, Export: "x", MountOptions: []string{"a,b"}},
		"there is ReadOnly":  NBDDracut{Server: server, Export: "x", MountOptions: []string{"ro"}},
		"it is not one word": NBDInitramfsTools{Server: server, Export: "x", Overlay: "a b"},
	} {
		_, err := r.Args()
		require.ErrorIs(t, err, fs.ErrInvalid)
		require.ErrorContains(t, err, reason)
	}
}
