package initrd

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// systemd reads units in /etc before those in /run/systemd/system: those are
// masked where it looks still earlier. A name that is no unit's ends nothing.
func TestServicesOfEtc(t *testing.T) {
	each(t, func(t *testing.T, r *root) {
		r.write("lib/systemd/systemd", "", 0o755)
		for _, unit := range []string{"etc/systemd/system/mine.service", "etc/systemd/system/both.service", "lib/systemd/system/both.service", "lib/systemd/system/kept.service"} {
			r.write(unit, "[Service]\n", 0o644)
		}
		r.machine("memory", []Setting{
			{Name: "MASK_SYSTEM_SERVICES", Value: ". .. mine both kept"}, {Name: "KEEP_SYSTEM_SERVICES", Value: "kept.service"},
			{Name: "PREINIT_1", Value: "touch /reached"},
		}, nil)
		r.requireFiles(map[string]string{
			"run/systemd/system.control/mine.service": "", "run/systemd/system.control/both.service": "",
			"run/systemd/system/kept.service": "none", "run/systemd/system.control/kept.service": "none",
			"reached": "", "dev/kmsg": "none",
		})
	})
}

// The kernel's log takes no message of more than some 900 bytes at all.
func TestLongMessages(t *testing.T) {
	each(t, func(t *testing.T, r *root) {
		long := strings.Repeat("ä", 2000)
		r.machine("memory", []Setting{
			{Name: "PREINIT_1", Value: "printf %s '\\c\\n" + long + "'; exit 3"}, {Name: strings.Repeat("no name ", 500)},
		}, nil)
		told := strings.Split(r.told(), "\n")
		require.Len(t, told, 3)
		require.True(t, strings.HasPrefix(told[0], "<3>diskless: no name no name "))
		require.True(t, strings.HasPrefix(told[1], `<3>diskless: PREINIT_1 failed with status 3: \c\nää`), told[1])
		for _, line := range told {
			require.Less(t, len(line), 900)
		}
	})
}

// Whoever may write in the root must not stop its boot: a pipe has no end.
func TestKeysInPipes(t *testing.T) {
	each(t, func(t *testing.T, r *root) {
		require.NoError(t, os.MkdirAll(r.path("root/.ssh"), 0o700))
		require.NoError(t, syscall.Mkfifo(r.path("root/.ssh/authorized_keys"), 0o600))
		r.machine("own", []Setting{{Name: "PREINIT_1", Value: "touch /reached"}}, &Options{AuthorizedKeys: map[string][]string{"root": {"key"}}})
		require.Equal(t, "", r.read("reached"))
		require.Contains(t, r.told(), "root has no keys: /root/.ssh/authorized_keys is no file")
	})
}

// A disk that the image's machine had must not keep others from booting.
func TestImagesDisks(t *testing.T) {
	each(t, func(t *testing.T, r *root) {
		const before = "UUID=1 / ext4 defaults 0 1\nUUID=2\t/boot/efi vfat umask=0077 0 1\nPARTLABEL=x /home ext4\n/dev/sdb1 /a ext4 ro,noauto 0 2\n" +
			"LABEL=b /b ext4 nofail 0 2\ntmpfs /tmp tmpfs size=1G 0 0\nserver:/x /x nfs _netdev 0 0\n# UUID=3 /c ext4 defaults\n"
		r.write("etc/fstab", before, 0o644)
		r.machine("own", nil, nil)
		require.Equal(t, before, r.read("etc/fstab"))
		r.machine("memory", nil, nil)
		require.Equal(t, "# diskless: UUID=1 / ext4 defaults 0 1\nUUID=2 /boot/efi vfat umask=0077,nofail 0 1\nPARTLABEL=x /home ext4 defaults,nofail\n/dev/sdb1 /a ext4 ro,noauto 0 2\n"+
			"LABEL=b /b ext4 nofail 0 2\ntmpfs /tmp tmpfs size=1G 0 0\nserver:/x /x nfs _netdev 0 0\n# UUID=3 /c ext4 defaults\n", r.read("etc/fstab"))
	})
}

func TestOddHostnames(t *testing.T) {
	each(t, func(t *testing.T, r *root) {
		r.write("etc/hostname", "image\n", 0o644)
		for _, test := range []struct{ value, want, told string }{
			{" \tpc1\nmore", "pc1\n", "none"},
			{"", "image\n", "none"}, // as if it were not set
			{`a\tb`, "a\\tb\n", "none"},
		} {
			for _, expand := range []bool{false, true} {
				r.write("etc/hostname", "image\n", 0o644)
				r.write("proc/sys/kernel/hostname", "image\n", 0o644)
				_ = os.Remove(r.path("dev/kmsg"))
				_ = os.RemoveAll(r.path("run/diskless"))
				value := test.value
				if expand {
					value = strings.ReplaceAll(value, `\`, `\\`)
				}
				r.machine("memory", []Setting{{Name: "HOSTNAME", Value: value, Expand: expand}}, nil)
				if test.value == "" && expand {
					continue
				}
				r.requireFiles(map[string]string{"etc/hostname": test.want, "proc/sys/kernel/hostname": test.want, "dev/kmsg": test.told})
			}
		}
		r.machine("memory", []Setting{{Name: "HOSTNAME", Value: " "}, {Name: "PREINIT_1", Value: "printf %s $HOSTNAME >/name"}}, &Options{Hostname: "pc2"})
		r.requireFiles(map[string]string{"etc/hostname": "pc2\n", "name": "pc2", "dev/kmsg": "none"})
		r.machine("memory", []Setting{{Name: "HOSTNAME", Value: "$NONE", Expand: true}}, nil)
		require.Equal(t, "<3>diskless: HOSTNAME is empty\n", r.told())
	})
}

// A key that is taken away lets nobody in any more, also where the root is kept.
func TestKeysAreTakenAway(t *testing.T) {
	each(t, func(t *testing.T, r *root) {
		r.write("etc/passwd", "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\nbob:x:1001:1001::/home/bob:/bin/sh\n", 0o644)
		r.write("root/.ssh/authorized_keys", "mine\n", 0o600)
		r.machine("own", nil, &Options{AuthorizedKeys: map[string][]string{"root": {"a", "b"}, "ann": {"c"}}})
		require.Equal(t, "mine\n# diskless begin\na\nb\n# diskless end\n", r.read("root/.ssh/authorized_keys"))
		require.Equal(t, "# diskless begin\nc\n# diskless end\n", r.read("home/ann/.ssh/authorized_keys"))
		r.machine("own", nil, &Options{AuthorizedKeys: map[string][]string{"ann": nil, "bob": nil}})
		r.requireFiles(map[string]string{
			"root/.ssh/authorized_keys": "mine\n", "home/ann/.ssh/authorized_keys": "", "home/bob/.ssh/authorized_keys": "none", "dev/kmsg": "none",
		})
		require.NoDirExists(t, r.path("home/bob"))
	})
}

// A server may have an address of IPv6, and a machine much to tell.
func TestReportOverIPv6(t *testing.T) {
	each(t, func(t *testing.T, r *root) {
		var settings []Setting
		for i := range 40 {
			settings = append(settings, Setting{Name: fmt.Sprintf("PREINIT_%d", 10+i), Value: "false"})
		}
		r.machine("memory", settings, &Options{Report: "http://[fd00::1]:8080/up"})
		r.run("/bin/sh", "/run/diskless/machine", "after")
		want := "curl -fsS -m 30 -o /dev/null http://[fd00::1]:8080/up?began=5.00&ended=5.50&up=12.34"
		for i := range 32 { // as many as the server takes
			want += fmt.Sprintf("&failed=PREINIT_%d", 10+i)
		}
		require.Equal(t, want+"\n", r.read("calls"))
	})
}

// What DHCP said is not all of it where only the domains are set.
func TestSearchDomainOfOwnRoot(t *testing.T) {
	each(t, func(t *testing.T, r *root) {
		r.write("run/net-ens3.conf", "IPV4DNS0='10.0.0.53'\nDNSDOMAIN='lab'\n", 0o644)
		r.write("etc/resolv.conf", "nameserver 10.9.9.9\n", 0o644)
		r.machine("own", []Setting{{Name: "SEARCH_DOMAIN", Value: "set.example"}}, nil)
		require.Equal(t, "# diskless\nnameserver 10.0.0.53\nsearch set.example\n", r.read("etc/resolv.conf"))
	})
}

// A root that machines share keeps its /etc also where that is a link, which
// leads elsewhere outside of that root. Places of mounts that it lacks are made.
func TestSharedRootWithLinks(t *testing.T) {
	each(t, func(t *testing.T, r *root) {
		r.write("proc/mounts", "10.0.0.1:/srv /root nfs rw 0 0\n", 0o644)
		r.write("proc/cmdline", "quiet\n", 0o644)
		for _, dir := range []string{"root/usr/etc", "root/bin"} {
			require.NoError(t, os.MkdirAll(r.path(dir), 0o755))
		}
		require.NoError(t, os.Symlink("/usr/etc", r.path("root/etc")))
		r.copy(r.path("bin/busybox"), "root/bin/sh")
		data, err := Build(nil, nil, nil)
		require.NoError(t, err)
		r.unpack(data)
		stubs := "chroot() { case \"$*\" in *pwd*) /bin/busybox chroot \"$@\" ;; esac; }\n"
		for _, name := range []string{"mount", "umount"} {
			stubs += name + "() { echo " + name + " \"$@\" >>/calls; }\n"
		}
		r.run("/bin/sh", "-c", stubs+"set -- root /root; . /diskless/hook")
		require.Contains(t, r.read("calls"), "mount -t overlay -o lowerdir=/root/usr/etc,upperdir=/run/diskless/rw/upper,workdir=/run/diskless/rw/work diskless /root/usr/etc\n")
		require.NotContains(t, r.read("calls"), "/root/etc")
		require.Equal(t, "none", r.told())
		for _, dir := range []string{"dev", "proc", "sys", "run"} {
			require.DirExists(t, r.path("root/"+dir))
		}
	})
}

// What DHCP said before is not what it says now; what somebody else wrote stays.
func TestResolverOfOwnRoot(t *testing.T) {
	each(t, func(t *testing.T, r *root) {
		for _, server := range []string{"10.0.0.53", "10.0.0.54"} {
			r.write("run/net-ens3.conf", "IPV4DNS0='"+server+"'\nDNSDOMAIN='lab'\n", 0o644)
			r.machine("own", nil, nil)
			require.Equal(t, "# diskless\nnameserver "+server+"\nsearch lab\n", r.read("etc/resolv.conf"))
		}
		// Nor is what a setting said, once it is gone.
		r.machine("own", []Setting{{Name: "DNS_SERVER", Value: "10.0.0.2"}}, nil)
		require.Equal(t, "# diskless\nnameserver 10.0.0.2\n", r.read("etc/resolv.conf"))
		r.machine("own", nil, nil)
		require.Equal(t, "# diskless\nnameserver 10.0.0.54\nsearch lab\n", r.read("etc/resolv.conf"))
		r.write("etc/resolv.conf", "nameserver 10.9.9.9\n", 0o644)
		r.machine("own", nil, nil)
		require.Equal(t, "nameserver 10.9.9.9\n", r.read("etc/resolv.conf"))
	})
}

// The label of a file system is not always the name of its link.
func TestOddLabels(t *testing.T) {
	data, err := Build(nil, nil, &Options{OverlayLabel: "My disk_1.a\\[ü$"})
	require.NoError(t, err)
	_, files := unpack(t, data)
	require.Equal(t, `overlay_label='My\x20disk_1.a\x5c\x5bü\x24'`+"\n", files["diskless/options"])
}

// A line of fstab must not take away the root that the machine is about to
// switch to, nor what is being read of the settings.
func TestMountsOverTheRoot(t *testing.T) {
	each(t, func(t *testing.T, r *root) {
		r.machine("memory", []Setting{
			{Name: "FSTAB_1", Value: "tmpfs / tmpfs"}, {Name: "FSTAB_2", Value: "tmpfs // tmpfs size=1G 0 0"},
			{Name: "FSTAB_3", Value: "tmpfs relative tmpfs"}, {Name: "FSTAB_4", Value: "tmpfs /run tmpfs size=1G"},
			{Name: "FSTAB_5", Value: "/dev/sda2 none swap"}, {Name: "FSTAB_6", Value: "tmpfs /srv/ tmpfs"}, {Name: "FSTAB_7", Value: "tmpfs /a/../run tmpfs"},
			{Name: "PREINIT_1", Value: "touch /reached"},
		}, nil)
		r.requireFiles(map[string]string{
			"reached": "", "calls": "mount /srv/\n",
			"etc/fstab": "# diskless begin\ntmpfs /run tmpfs size=1G,nofail 0 0\n/dev/sda2 none swap defaults,nofail 0 0\ntmpfs /srv/ tmpfs defaults,nofail 0 0\n# diskless end\n",
			"dev/kmsg": "<3>diskless: FSTAB_1 is left out: it would take the root's place\n<3>diskless: FSTAB_2 is left out: it would take the root's place\n" +
				"<3>diskless: FSTAB_3 is no line of fstab\n<3>diskless: FSTAB_7 is no line of fstab\n",
		})
	})
}

// A command that runs must be given all of the environment, which Linux limits:
// what is too large is left out, and the rest works.
func TestLargeSettings(t *testing.T) {
	each(t, func(t *testing.T, r *root) {
		settings := []Setting{
			{Name: "LARGE", Value: strings.Repeat("x", 200_000)},
			{Name: "PREINIT_LARGE", Value: ": " + strings.Repeat("x", 200_000)},
			{Name: "LATE", Value: "$(i=0; while [ $i -lt 20000 ]; do printf 1234567890; i=$((i+1)); done)", Expand: true},
		}
		for i := range 10_000 {
			settings = append(settings, Setting{Name: fmt.Sprintf("MANY_%d", i), Value: strings.Repeat("y", 300)})
		}
		settings = append(settings, Setting{Name: "SMALL", Value: "1"},
			Setting{Name: "HOSTS_1", Value: "10.0.0.1 one"},
			Setting{Name: "PREINIT_1", Value: "touch /reached; printf %s \"$SMALL$MANY_9999\" >/value"},
			Setting{Name: "RCFILE_1", Value: "touch /after"})
		r.machine("memory", settings, nil)
		r.run("/bin/sh", "/run/diskless/machine", "after")
		r.requireFiles(map[string]string{"reached": "", "after": "", "value": "1" + strings.Repeat("y", 300), "etc/hosts": "# diskless begin\n10.0.0.1 one\n# diskless end\n"})
		for _, name := range []string{"LARGE", "PREINIT_LARGE", "LATE", "MANY_1"} {
			require.Contains(t, r.told(), "<3>diskless: "+name+" ")
		}
		require.NotContains(t, r.told(), "MANY_9999 ")
	})
}

// Files with very many lines stay what they are, but for ours.
func TestLongFiles(t *testing.T) {
	const odd = " \\t back\\slash \\\n\n\t%s 'it''s' \"$HOME\" *\n" // as it stands
	each(t, func(t *testing.T, r *root) {
		var hosts, fstab strings.Builder
		for i := range 20_000 {
			fmt.Fprintf(&hosts, "10.0.0.1 n%d\n", i)
			fmt.Fprintf(&fstab, "#%d\n", i)
		}
		for file, text := range map[string]string{
			"etc/hosts":                  hosts.String() + odd + "the last",
			"etc/fstab":                  "/dev/sda1 / ext4\n" + fstab.String() + odd + "/dev/sda2 /srv ext4",
			"etc/network/interfaces":     "iface ens3 inet dhcp\n" + strings.Repeat("\tup true\n", 20_000) + "#\n" + odd + "the last",
			"etc/network/interfaces.d/x": odd + "iface ens3 inet manual",
			"sys/class/net/ens3/flags":   "0x1003\n", "sys/class/net/ens3/type": "1\n", "sys/class/net/ens3/address": "52:54:00:00:00:01\n",
		} {
			r.write(file, text, 0o644)
		}
		// Nobody writes what stays the same.
		before := time.Unix(1e9, 0)
		same := func(files ...string) {
			t.Helper()
			for _, file := range files {
				info, err := os.Stat(r.path(file))
				require.NoError(t, err)
				require.Equal(t, before, info.ModTime(), file)
			}
		}
		old := func(files ...string) {
			for _, file := range files {
				require.NoError(t, os.Chtimes(r.path(file), before, before))
			}
		}
		old("etc/network/interfaces.d/x")
		set := []Setting{{Name: "HOSTS_1", Value: "10.0.0.2 two"}}
		r.machine("memory", set, nil)
		want := map[string]string{
			"etc/hosts":                  hosts.String() + odd + "the last\n# diskless begin\n10.0.0.2 two\n# diskless end\n",
			"etc/fstab":                  "# diskless: /dev/sda1 / ext4\n" + fstab.String() + odd + "/dev/sda2 /srv ext4 defaults,nofail\n",
			"etc/network/interfaces":     "iface ens3 inet manual\n#\n" + odd + "the last\n",
			"etc/network/interfaces.d/x": odd + "iface ens3 inet manual",
		}
		r.requireFiles(want)
		same("etc/network/interfaces.d/x")
		files := []string{"etc/hosts", "etc/network/interfaces"}
		old(files...)
		r.machine("own", set, nil)
		r.requireFiles(want)
		same(files...)
		// What somebody adds comes before ours, and without ours nothing is left of it.
		r.write("etc/hosts", want["etc/hosts"]+"10.0.0.3 three\n", 0o644)
		r.machine("own", set, nil)
		require.Equal(t, strings.Replace(want["etc/hosts"], "# diskless begin", "10.0.0.3 three\n# diskless begin", 1), r.read("etc/hosts"))
		r.machine("own", nil, nil)
		require.Equal(t, hosts.String()+odd+"the last\n10.0.0.3 three\n", r.read("etc/hosts"))
		require.Equal(t, "none", r.told())
	})
}
