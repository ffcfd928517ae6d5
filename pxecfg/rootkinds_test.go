package pxecfg

import (
	"bytes"
	"io/fs"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	rootServer4 = netip.MustParseAddr("192.0.2.1")
	rootServer6 = netip.MustParseAddr("2001:db8::1")
	static4     = &StaticIP{
		Addr: netip.MustParsePrefix("192.0.2.5/24"), Gateway: netip.MustParseAddr("192.0.2.254"),
		Hostname: "node05", Interface: "eth0", DNS: []netip.Addr{netip.MustParseAddr("192.0.2.53")},
	}
	static6   = &StaticIP{Addr: netip.MustParsePrefix("2001:db8::5/64"), Gateway: netip.MustParseAddr("2001:db8::fe"), Interface: "eth0"}
	staticIf  = &StaticIP{Addr: netip.MustParsePrefix("192.0.2.5/24"), Gateway: netip.MustParseAddr("192.0.2.254"), Interface: "eth0"}
	staticMin = &StaticIP{Addr: netip.MustParsePrefix("192.0.2.5/25")}
)

const url4 = "http://192.0.2.1:8080/img/x.squashfs"

// rootForms has each builder's form word by word.
var rootForms = []struct {
	root Root
	want string
}{
	{NBDInitramfsTools{Server: rootServer4, Export: "x", ReadOnly: true, IP: static4},
		"root=/dev/nbd0 nbdroot=192.0.2.1:10809/x ip=192.0.2.5:192.0.2.1:192.0.2.254:255.255.255.0:node05:eth0:off:192.0.2.53 ro"},
	{NBDInitramfsTools{Server: rootServer6, Export: "x", IP: staticMin},
		"root=/dev/nbd0 nbdroot=[2001:db8::1]:10809/x ip=192.0.2.5:::255.255.255.128:::off rw"},
	{NFSInitramfsTools{Server: rootServer4, Path: "/srv/root", ReadOnly: true, MountOptions: []string{"vers=3", "rsize=32768"}, Overlay: "tmpfs:swap=1,recurse=0"},
		"root=/dev/nfs nfsroot=192.0.2.1:/srv/root,vers=3,rsize=32768 ip=dhcp ro overlayroot=tmpfs:swap=1,recurse=0"},
	{HTTPRootURL{URL: url4, Overlay: "tmpfs"},
		"root=squash:" + url4 + " ip=dhcp ro overlayroot=tmpfs overlayroot_cfgdisk=disabled"},
	{HTTPRootURL{URL: "http://192.0.2.1/x.tar.gz", Tar: true, IP: staticMin},
		"root=tar:http://192.0.2.1/x.tar.gz ip=192.0.2.5:::255.255.255.128:::off rw"},
	{NBDDracut{Server: rootServer4, Export: "x", IP: static4, Overlay: LiveOverlay},
		"root=nbd:192.0.2.1:x::rw ip=192.0.2.5::192.0.2.254:255.255.255.0:node05:eth0:none:192.0.2.53 rd.neednet=1 rd.live.overlay.overlayfs=1"},
	{NFSDracut{Server: rootServer4, Path: "/srv/root", ReadOnly: true, MountOptions: []string{"nolock"}, Overlay: RootOverlay},
		"root=nfs:192.0.2.1:/srv/root:ro,nolock ip=dhcp rd.neednet=1 rd.overlay=1"},
	{NFSDracut{Server: rootServer6, Path: "/", Version4: true, IP: static6},
		"root=nfs4:[2001:db8::1]:/:rw ip=[2001:db8::5]::[2001:db8::fe]:64::eth0:none rd.neednet=1"},
	{NBDDracut{Server: rootServer4, Export: "x", IP: &StaticIP{Addr: static6.Addr, Gateway: netip.MustParseAddr("fe80::1"), DNS: []netip.Addr{netip.MustParseAddr("::53")}}},
		"root=nbd:192.0.2.1:x::rw ip=[2001:db8::5]::[fe80::1]:64:::none:[0::53] rd.neednet=1"},
	{NBDInitramfsTools{Server: rootServer4, Export: "x", Overlay: "/dev/vda,swap=1", IP: &StaticIP{Addr: netip.MustParsePrefix("192.0.2.5/31")}},
		"root=/dev/nbd0 nbdroot=192.0.2.1:10809/x ip=192.0.2.5:192.0.2.1::255.255.255.254:::off rw overlayroot=/dev/vda,swap=1"},
	{HTTPDracut{URL: "https://boot.example.org/x.squashfs?v=2", Overlay: LiveOverlay},
		"root=live:https://boot.example.org/x.squashfs?v=2 ip=dhcp rd.neednet=1 rd.live.overlay.overlayfs=1"},
	{HTTPLiveBoot{URL: url4, OverlaySize: "50%"},
		"boot=live fetch=" + url4 + " overlay-size=50%"},
	{HTTPLiveBoot{URL: url4, Mount: true}, "boot=live httpfs=" + url4},
	{HTTPLiveBoot{URL: "tftp://192.0.2.1/live/x.iso", IP: staticIf},
		"boot=live fetch=tftp://192.0.2.1/live/x.iso ip=eth0:192.0.2.5:255.255.255.0:192.0.2.254"},
	{NFSLiveBoot{Server: rootServer4, Path: "/srv/live", MountOptions: []string{"vers=3"}, ToRAM: true},
		"boot=live netboot=nfs nfsroot=192.0.2.1:/srv/live nfsopts=vers=3 toram"},
	{NFSCasper{Server: rootServer4, Path: "/srv/ubuntu", IgnoreUUID: true, IP: staticIf},
		"boot=casper netboot=nfs nfsroot=192.0.2.1:/srv/ubuntu ip=eth0,192.0.2.5,255.255.255.0,192.0.2.254 ignore_uuid"},
	{HTTPCasper{URL: "http://192.0.2.1/noble.iso"}, "boot=casper url=http://192.0.2.1/noble.iso ip=dhcp"},
	{NBDLTSP5{Server: rootServer4, Export: "/opt/ltsp/amd64", ToRAM: true, Settings: map[string]string{"SERVER": "192.0.2.9", "debug": "true"}},
		"root=/dev/nbd0 nbdroot=192.0.2.1:10809//opt/ltsp/amd64 ip=dhcp ro init=/sbin/init-ltsp LTSP_NBD_TO_RAM=true ltsp.server=192.0.2.9 ltsp.debug=true"},
	{NFSLTSP5{Server: rootServer4, Path: "/opt/ltsp/amd64"},
		"root=/dev/nfs nfsroot=192.0.2.1:/opt/ltsp/amd64 ip=dhcp ro boot=nfs init=/sbin/init-ltsp"},
	{NBDLTSP{Server: rootServer4, Export: "x86_64"},
		"root=/dev/nbd0 nbdroot=192.0.2.1:10809/x86_64 ip=dhcp ro"},
	{NFSLTSP{Server: rootServer4, Path: "/srv/ltsp", Image: "images/x86_64.img,partition=1", ToRAM: true},
		"root=/dev/nfs nfsroot=192.0.2.1:/srv/ltsp ip=dhcp ro ltsp.image=images/x86_64.img,partition=1 loop.max_part=9 ltsp.image_to_ram=1"},
	{NFSLTSP{Server: rootServer4, Path: "/srv/ltsp/bookworm", Settings: map[string]string{"KEEP_SYSTEM_SERVICES": "ssh"}},
		"root=/dev/nfs nfsroot=192.0.2.1:/srv/ltsp/bookworm ip=dhcp ro ltsp.keep_system_services=ssh"},
}

func TestRootForms(t *testing.T) {
	for _, tt := range rootForms {
		args, err := tt.root.Args()
		require.NoError(t, err, "%#v", tt.root)
		require.Equal(t, tt.want, strings.Join(args, " "))
		for _, a := range args {
			word, reason := kernelWord(a)
			require.Empty(t, reason)
			require.Equal(t, a, word, "no initramfs script takes off the kernel's quotes")
		}
		// And it survives every loader.
		for format, render := range renderAll(one(Entry{Kernel: "k", Root: tt.root}), Target{}) {
			_, err := render()
			require.NoError(t, err, "%s %#v", format, tt.root)
		}
	}
}

func TestRootKindsRefuse(t *testing.T) {
	nfs := func(path string, options ...string) NFSInitramfsTools {
		return NFSInitramfsTools{Server: rootServer4, Path: path, MountOptions: options}
	}
	ip := func(s StaticIP) NBDDracut { return NBDDracut{Server: rootServer4, Export: "x", IP: &s} }
	p4, p6 := static4.Addr, static6.Addr
	for _, tt := range []struct {
		root   Root
		reason string
	}{
		{nfs("srv"), "begins with /"},
		{nfs("/a:b"), "at : and ,"},
		{nfs("/a,b"), "at : and ,"},
		{nfs("/%s"), "only letters"},
		{nfs("/a b"), "only letters"},
		{nfs("/a", "vers=4.2"), "NFS 2 and 3 only"},
		{nfs("/a", "v4"), "NFS 2 and 3 only"},
		{nfs("/a", "noatime"), "does not know it"},
		{nfs("/a", "hard=1"), "does not know it"},
		{nfs("/a", "rsize=x"), "does not know it"},
		{nfs("/a", "proto=tcp"), "does not know it"},
		{nfs("/a", "a,b"), "one word"},
		{nfs("/a", "rw"), "there is ReadOnly"},
		{NFSInitramfsTools{Server: rootServer6, Path: "/a"}, "IPv4 only"},
		{NFSInitramfsTools{Path: "/a"}, "set the address"},
		{NFSInitramfsTools{Server: rootServer4, Path: "/a", Overlay: "ram"}, "overlayroot knows tmpfs"},
		{NFSInitramfsTools{Server: rootServer4, Path: "/a", Overlay: "tmpfs:swap=2"}, "no option swap=2"},
		{NFSInitramfsTools{Server: rootServer4, Path: "/a", Overlay: "tmpfs:swop=1"}, "no option swop=1"},
		{NFSInitramfsTools{Server: rootServer4, Path: "/a", Overlay: "device:timeout=3"}, "wants dev="},
		{NFSInitramfsTools{Server: rootServer4, Path: "/a", Overlay: "crypt"}, "wants dev="},
		{NFSInitramfsTools{Server: rootServer4, Path: "/a", Overlay: "/dev/vda,x=1"}, "no option x=1"},
		{NFSInitramfsTools{Server: rootServer4, Path: "/a", IP: &StaticIP{Addr: netip.MustParsePrefix("192.0.2.5/32")}}, "guesses another"},
		{NFSInitramfsTools{Server: rootServer4, Path: "/a", IP: static6}, "only dracut can set up IPv6"},
		{NFSDracut{Server: rootServer4, Path: "/%s"}, "only letters"},
		{NFSDracut{Server: rootServer4, Path: "/a", Overlay: 7}, "none of dracut's"},
		{NFSLiveBoot{Server: rootServer4, Path: "/a", OverlaySize: "a lot"}, "a number with"},
		{NFSLiveBoot{Server: rootServer4, Path: "/a", OverlaySize: "1gg"}, "a number with"},
		{NFSLiveBoot{Server: rootServer4, Path: "/a", MountOptions: []string{"nfsvers=4"}}, "NFS 2 and 3 only"},
		{HTTPRootURL{URL: "https://h/x.squashfs"}, "fetches http only"},
		{HTTPRootURL{URL: "x.squashfs"}, "not a URL"},
		{HTTPRootURL{URL: "http://h/"}, "does not name a file"},
		{HTTPRootURL{URL: "http://u:p@h/x"}, "no user or password"},
		{HTTPRootURL{URL: "http://h/x#y"}, "a fragment"},
		{HTTPRootURL{URL: "HTTP://h/x"}, "lower case"},
		{HTTPRootURL{URL: "http://h/a b"}, "survive"},
		{HTTPRootURL{URL: "http://h/$x"}, "survive"},
		{HTTPRootURL{URL: "http://h/a*"}, "survive"},
		{HTTPRootURL{URL: "http://h/[a]"}, "survive"},
		{HTTPRootURL{URL: url4, Overlay: "a b"}, "not one word"},
		{HTTPDracut{URL: "nfs://h/x"}, "http, https, ftp, tftp only"},
		{HTTPLiveBoot{URL: "http://h/x.img"}, ".squashfs, .iso, .tgz or .tar only"},
		{HTTPLiveBoot{URL: "http://h/x.squashfs?a=b"}, "with a query"},
		{HTTPLiveBoot{URL: "https://h/x.squashfs"}, "http, ftp, tftp only"},
		{HTTPLiveBoot{URL: "ftp://h/x.squashfs", Mount: true}, "http only"},
		{HTTPLiveBoot{URL: "tftp://h:1069/x.squashfs"}, "TFTP port"},
		{HTTPLiveBoot{URL: "tftp://[2001:db8::1]/x.squashfs"}, "IPv6 address"},
		{HTTPLiveBoot{URL: url4, Mount: true, IP: staticIf}, "ignores it"},
		{HTTPLiveBoot{URL: url4, IP: staticMin}, "name of the interface"},
		{HTTPLiveBoot{URL: url4, IP: static4}, "no room for a host name"},
		{HTTPCasper{URL: url4}, ".iso only"},
		{HTTPCasper{URL: "http://h/x.iso?a"}, ".iso only"},
		{HTTPCasper{URL: "http://h/x.iso", IP: staticMin}, "name of the interface"},
		{HTTPCasper{URL: "http://h/x.iso", IP: static4}, "no room for a host name"},
		{NFSCasper{Server: rootServer6, Path: "/a"}, "IPv4 only"},
		{NBDLTSP5{Server: rootServer4, Export: "x", Settings: map[string]string{"A": "b c"}}, "use the configuration file"},
		{NBDLTSP5{Server: rootServer4, Export: "x", Settings: map[string]string{"A": "~"}}, "use the configuration file"},
		{NBDLTSP5{Server: rootServer4, Export: "x", Settings: map[string]string{"1A": "b"}}, "a name is made of"},
		{NBDLTSP5{Server: rootServer4, Export: "x", Settings: map[string]string{"": "b"}}, "a name is made of"},
		{NBDLTSP5{Server: rootServer4}, "name the export"},
		{NFSLTSP{Server: rootServer4, Path: "/a", ToRAM: true}, "name an Image"},
		{NFSLTSP{Server: rootServer4, Path: "/a", Image: "a b"}, "survive"},
		{NFSLTSP{Server: rootServer4, Path: "/a", Image: ",ro"}, "survive"},
		{ip(StaticIP{}), "write address and network"},
		{ip(StaticIP{Addr: p6, Gateway: netip.MustParseAddr("fe80::1%eth0")}), "none a zone"},
		{ip(StaticIP{Addr: p4, Gateway: rootServer6}), "same IP version"},
		{ip(StaticIP{Addr: p6, Gateway: rootServer4}), "same IP version"},
		{ip(StaticIP{Addr: p4, Gateway: netip.MustParseAddr("198.51.100.1")}), "not in the network 192.0.2.0/24"},
		{ip(StaticIP{Addr: p4, Gateway: netip.IPv4Unspecified()}), "leave it out"},
		{ip(StaticIP{Addr: p4, Hostname: "a:b"}), "host name"},
		{ip(StaticIP{Addr: p4, Hostname: strings.Repeat("a", 65)}), "after 64 bytes"},
		{NBDDracut{Server: rootServer4, Export: "x", FSType: "ro", ReadOnly: true}, "not a word"},
		{ip(StaticIP{Addr: p4, Interface: "eth 0"}), "name of a network interface"},
		{ip(StaticIP{Addr: p4, Interface: "a-name-that-is-too-long"}), "name of a network interface"},
		{ip(StaticIP{Addr: p4, DNS: make([]netip.Addr, 3)}), "room for two"},
		{ip(StaticIP{Addr: p4, DNS: make([]netip.Addr, 1)}), "is missing"},
	} {
		args, err := tt.root.Args()
		require.ErrorIs(t, err, fs.ErrInvalid, "%#v gives %v", tt.root, args)
		require.ErrorContains(t, err, tt.reason, "%#v", tt.root)
		require.Nil(t, args)
	}
}

// FuzzRoots: whatever the strings are, the words are ones that a shell script
// reads as they are, or there is an error.
func FuzzRoots(f *testing.F) {
	f.Add("x", "/srv/a", url4, "tmpfs", "vers=3", "eth0")
	f.Add("a b", "/$(x)", "http://h/`x`.iso", "a;b", "%s", "-x")
	f.Add("'", "/\x00", "http://[::1]:80/x.tar?a=b&c", "~", "\"", "é")
	f.Fuzz(func(t *testing.T, name, path, url, overlay, option, iface string) {
		ip := &StaticIP{Addr: static4.Addr, Interface: iface, Hostname: name}
		for _, r := range []Root{
			NBDInitramfsTools{Server: rootServer4, Export: name, Overlay: overlay, IP: ip},
			NBDDracut{Server: rootServer4, Export: name, FSType: overlay, MountOptions: []string{option}},
			NFSInitramfsTools{Server: rootServer4, Path: path, MountOptions: []string{option}},
			NFSDracut{Server: rootServer4, Path: path, MountOptions: []string{option}, IP: ip},
			NFSLiveBoot{Server: rootServer4, Path: path, OverlaySize: overlay},
			NFSCasper{Server: rootServer4, Path: path, IP: &StaticIP{Addr: static4.Addr, Interface: iface}},
			HTTPRootURL{URL: url, Overlay: overlay}, HTTPDracut{URL: url}, HTTPLiveBoot{URL: url}, HTTPCasper{URL: url},
			NBDLTSP5{Server: rootServer4, Export: name, Settings: map[string]string{option: overlay}},
			NFSLTSP{Server: rootServer4, Path: path, Image: name},
		} {
			args, err := r.Args()
			if err != nil {
				require.ErrorIs(t, err, fs.ErrInvalid)
				continue
			}
			for _, a := range args {
				require.Empty(t, strings.Trim(a, wordBytes+":,%?[]"), "%#v", r)
				require.NotEmpty(t, a)
				require.False(t, strings.Contains(a, "=~"), a)
			}
			require.NoError(t, skipLong(one(Entry{Kernel: "k", Root: r}).WritePXELINUX(&bytes.Buffer{}, Target{})))
		}
	})
}

// skipLong forgives a command line over the limit.
func skipLong(err error) error {
	if err != nil && strings.Contains(err.Error(), "kernels cut off") {
		return nil
	}
	return err
}
