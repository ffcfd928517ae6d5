package initrd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func each(t *testing.T, test func(t *testing.T, r *root)) {
	for _, shell := range shells {
		t.Run(shell, func(t *testing.T) { test(t, newRoot(t, shell)) })
	}
}

func (r *root) requireFiles(want map[string]string) {
	r.t.Helper()
	for name, text := range want {
		require.Equal(r.t, text, r.read(name), name)
	}
}

func TestSettingsInTheNewRoot(t *testing.T) {
	each(t, func(t *testing.T, r *root) {
		defer func() { require.Empty(t, r.output, "the console gets what is in the kernel's log, and no more") }()
		r.write("etc/hosts", "127.0.0.1 localhost", 0o644) // no line end
		r.write("etc/fstab", "UUID=1-2 / ext4 defaults 0 1\n# a comment\nUUID=3 none swap sw 0 0\n/dev/sdb1 /srv ext4 nofail 0 2\n", 0o644)
		r.write("etc/ssh/ssh_host_rsa_key", "the image's", 0o600)
		for _, program := range []string{"systemd", "systemd-networkd", "systemd-resolved"} {
			r.write("lib/systemd/"+program, "", 0o755)
		}
		require.NoError(t, os.MkdirAll(r.path("etc/NetworkManager"), 0o755))
		for _, unit := range []string{"rsyslog.service", "cups.service", "ssh.service", "nbd-client.service", "logrotate.timer"} {
			r.write("lib/systemd/system/"+unit, "", 0o644)
		}
		r.write("sys/class/net/ens3/flags", "0x1003\n", 0o644)
		r.write("sys/class/net/ens3/type", "1\n", 0o644)
		r.write("sys/class/net/ens3/address", "52:54:00:00:00:01\n", 0o644)
		r.write("sys/class/net/lo/flags", "0x9\n", 0o644)
		r.write("sys/class/net/lo/type", "772\n", 0o644)
		r.write("sys/class/net/lo/address", "00:00:00:00:00:00\n", 0o644)
		r.write("etc/network/interfaces", "auto lo ens3\niface lo inet loopback\niface ens3 inet static\n\taddress 10.0.0.9\n\nauto ens4\niface ens4 inet dhcp\n", 0o644)

		r.machine("memory", node, &nodeOptions)
		r.requireFiles(map[string]string{
			"etc/hostname":   "node-01\n",
			"etc/machine-id": nodeOptions.MachineID + "\n",
			"etc/hosts":      "127.0.0.1 localhost\n# diskless begin\n127.0.1.1 node-01\n10.0.0.1 api.cluster\n# diskless end\n",
			"etc/fstab": "# diskless: UUID=1-2 / ext4 defaults 0 1\n# a comment\n# diskless: UUID=3 none swap sw 0 0\n/dev/sdb1 /srv ext4 nofail 0 2\n" +
				"# diskless begin\n10.0.0.1:/srv/data /data nfs vers=4.2,nofail 0 0\ntmpfs /var/log/it\\040all tmpfs defaults,nofail 0 0\n# diskless end\n",
			"etc/resolv.conf":                              "nameserver 10.0.0.2\nnameserver 10.0.0.3\nsearch cluster.example\n",
			"etc/timezone":                                 "Europe/Berlin\n",
			"etc/default/locale":                           "LANG=\"de_DE.UTF-8\"\n",
			"etc/default/keyboard":                         "XKBLAYOUT=\"de\"\n",
			"etc/vconsole.conf":                            "KEYMAP=\"de\"\n",
			"etc/cron.d/diskless":                          "* * * * * root true\n",
			"etc/ssh/ssh_host_ed25519_key":                 "SECRET\n",
			"etc/ssh/ssh_host_rsa_key":                     "none",
			"root/.ssh/authorized_keys":                    "# diskless begin\nssh-ed25519 AAAA admin\n# diskless end\n",
			"proc/sys/kernel/hostname":                     "node-01\n",
			"order":                                        "init\nit's \"$HOME\"\n\n",
			"etc/network/interfaces":                       "auto lo ens3\niface lo inet loopback\niface ens3 inet manual\n\nauto ens4\niface ens4 inet dhcp\n",
			"run/systemd/system/ssh.service":               "none", // it has keys of its own
			"run/systemd/network/00-diskless-ens3.network": "[Match]\nMACAddress=52:54:00:00:00:01\n[Link]\nUnmanaged=yes\n",
			"run/NetworkManager/conf.d/diskless-ens3.conf": "[keyfile]\nunmanaged-devices+=mac:52:54:00:00:00:01\n",
		})
		for name, masked := range map[string]bool{
			"logrotate.timer": true, "cups.service": true, "nbd-client.service": true,
			"rsyslog.service": false, "alsa-restore.service": false,
		} {
			require.Equal(t, masked, r.read("run/systemd/system/"+name) == "", name)
		}
		info, err := os.Stat(r.path("etc/ssh/ssh_host_ed25519_key"))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
		target, err := os.Readlink(r.path("etc/localtime"))
		require.NoError(t, err)
		require.Equal(t, "/usr/share/zoneinfo/Europe/Berlin", target)
		require.Equal(t, "[Unit]\nWants=diskless.service\n", r.read("run/systemd/system/multi-user.target.d/diskless.conf"))
		told, calls := "<3>diskless: no name is left out: a shell has no variables of that name\n", "mount /var/log/it all\n"
		if r.shell == "busybox" {
			told += "<3>diskless: MODULE_01 " // its own modprobe finds nothing
		} else {
			calls += "modprobe br_netfilter debug=1\n"
		}
		require.True(t, strings.HasPrefix(r.told(), told), r.told())
		require.Equal(t, calls, r.read("calls"))
	})
}

// Where nobody reads systemd's file for it the keyboard is set at once.
func TestKeymap(t *testing.T) {
	each(t, func(t *testing.T, r *root) {
		set := []Setting{{Name: "CONSOLE_KEYMAP", Value: "de-latin1"}}
		r.machine("memory", set, nil)
		require.Equal(t, "none", r.told())
		r.write("usr/bin/loadkeys", "#!/bin/sh\necho loadkeys \"$@\" >>/calls; echo not found >&2; exit 1\n", 0o755)
		r.machine("memory", set, nil)
		require.Equal(t, "loadkeys -q de-latin1\n", r.read("calls"))
		require.Equal(t, "<3>diskless: CONSOLE_KEYMAP cannot be loaded: not found\n", r.told())
		r.write("lib/systemd/systemd-vconsole-setup", "", 0o755)
		r.machine("memory", set, nil)
		require.Equal(t, "loadkeys -q de-latin1\n", r.read("calls"))
		require.Equal(t, "KEYMAP=\"de-latin1\"\n", r.read("etc/vconsole.conf"))
	})
}

// A line that nobody reads is told of, once.
func TestNoCron(t *testing.T) {
	each(t, func(t *testing.T, r *root) {
		set := []Setting{{Name: "CRONTAB_01", Value: "@daily root true"}, {Name: "CRONTAB_02", Value: "@daily root false"}}
		require.NoError(t, os.Remove(r.path("usr/sbin/cron")))
		require.NoError(t, os.Symlink("/bin/busybox", r.path("usr/sbin/crond"))) // which reads other files
		r.machine("memory", set, nil)
		const told = "<3>diskless: CRONTAB_01 does not run: install cron in the image, such as Debian's package of that name\n"
		require.Equal(t, told, r.told())
		require.Equal(t, "@daily root true\n@daily root false\n", r.read("etc/cron.d/diskless"), "for whoever else may read it")
		require.NoError(t, os.Remove(r.path("usr/sbin/crond")))
		r.write("usr/sbin/crond", "", 0o755)
		r.machine("memory", set, nil)
		require.Equal(t, told, r.told())
	})
}

// A root of the machine's own is booted again and again.
func TestOwnRootTwice(t *testing.T) {
	each(t, func(t *testing.T, r *root) {
		r.write("etc/fstab", "/dev/vda2 none swap sw 0 0\n", 0o644)
		r.write("etc/rc.local", "#!/bin/sh\necho mine\nexit 0\n", 0o755)
		r.write("etc/resolv.conf", "nameserver 10.9.9.9\n", 0o644)
		settings := []Setting{{Name: "HOSTS_1", Value: "10.0.0.1 one"}, {Name: "FSTAB_1", Value: "tmpfs /scratch tmpfs"}, {Name: "CRONTAB_1", Value: "@daily root true"}}
		want := map[string]string{
			"etc/hosts":       "# diskless begin\n127.0.1.1 mine\n10.0.0.1 one\n# diskless end\n",
			"etc/fstab":       "/dev/vda2 none swap sw 0 0\n# diskless begin\ntmpfs /scratch tmpfs defaults,nofail 0 0\n# diskless end\n",
			"etc/rc.local":    "#!/bin/sh\necho mine\n/bin/sh /run/diskless/machine after\n",
			"etc/resolv.conf": "nameserver 10.9.9.9\n",
			"etc/machine-id":  "none",
		}
		for range 2 {
			r.machine("own", settings, &Options{Hostname: "mine"})
			r.requireFiles(want)
		}
		r.machine("own", nil, nil)
		r.requireFiles(map[string]string{"etc/hosts": "", "etc/fstab": "/dev/vda2 none swap sw 0 0\n", "etc/cron.d/diskless": ""})
	})
}

// What settings had replaced on such a root comes back when they are gone.
func TestOwnRootComesBack(t *testing.T) {
	each(t, func(t *testing.T, r *root) {
		r.write("etc/locale.conf", "LANG=fr_FR\n", 0o640)
		r.write("etc/timezone", "Europe/Paris\n", 0o644)
		require.NoError(t, os.MkdirAll(r.path("etc/default"), 0o755))
		for name, target := range map[string]string{"etc/default/locale": "../locale.conf", "etc/localtime": "/usr/share/zoneinfo/Europe/Paris"} {
			require.NoError(t, os.Symlink(target, r.path(name)))
		}
		links := func() (out [2]string) {
			out[0], _ = os.Readlink(r.path("etc/default/locale"))
			out[1], _ = os.Readlink(r.path("etc/localtime"))
			return out
		}
		settings := []Setting{{Name: "LANG", Value: "de_DE"}, {Name: "TIMEZONE", Value: "Europe/Berlin"}, {Name: "XKBLAYOUT", Value: "de"}, {Name: "CONSOLE_KEYMAP", Value: "de"}}
		for _, kind := range []string{"own", "own", "memory"} {
			for range 2 {
				r.machine(kind, settings, nil)
				r.requireFiles(map[string]string{
					"etc/default/locale": "LANG=\"de_DE\"\n", "etc/locale.conf": "LANG=\"de_DE\"\n", "etc/timezone": "Europe/Berlin\n",
					"etc/default/keyboard": "XKBLAYOUT=\"de\"\n", "etc/vconsole.conf": "KEYMAP=\"de\"\n",
				})
				require.Equal(t, "/usr/share/zoneinfo/Europe/Berlin", links()[1])
			}
			if kind == "memory" {
				break // which is gone at the next boot
			}
			for range 2 {
				r.machine(kind, nil, nil)
				r.requireFiles(map[string]string{
					"etc/locale.conf": "LANG=fr_FR\n", "etc/timezone": "Europe/Paris\n", "etc/default/keyboard": "none", "etc/vconsole.conf": "none",
				})
				require.Equal(t, [2]string{"../locale.conf", "/usr/share/zoneinfo/Europe/Paris"}, links())
				left, err := filepath.Glob(r.path("etc/*.diskless"))
				require.NoError(t, err)
				require.Empty(t, left)
			}
		}
		left, err := filepath.Glob(r.path("etc/*/*.diskless"))
		require.NoError(t, err)
		require.Empty(t, left)
		info, err := os.Stat(r.path("etc/locale.conf"))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o640), info.Mode().Perm())
		require.Equal(t, "none", r.told())
	})
}

// Every value arrives byte by byte, in the environment and as a command.
func TestOddValues(t *testing.T) {
	odd := []string{
		"", " ", "  two  spaces ", "it's", `say "yes"`, "$HOME ${x} $(false) `false`", `back\slash \n \\`, "-n", "-e x", "%s%d", "line\nline\n", "tab\there",
		"Grüße 日本語", "\xff\xfe", "#comment", "a;b&c|d>e<f(g)h{i}j[k]*?~!", "'", "'''", `"`, `\`, "\r\n", strings.Repeat("long ", 4000),
	}
	each(t, func(t *testing.T, r *root) {
		var settings []Setting
		for i, v := range odd {
			settings = append(settings, Setting{Name: fmt.Sprintf("ODD_%d", i), Value: v},
				Setting{Name: fmt.Sprintf("PREINIT_%d", i), Value: fmt.Sprintf("printf %%s \"$ODD_%d\" >/odd.%[1]d; printf %%s %s >/word.%[1]d", i, quote(v))})
			if !strings.ContainsAny(v, "$`\"\\") {
				settings = append(settings, Setting{Name: fmt.Sprintf("LATE_%d", i), Value: v, Expand: true},
					Setting{Name: fmt.Sprintf("PREINIT_LATE_%d", i), Value: fmt.Sprintf("printf %%s \"$LATE_%d\" >/late.%[1]d", i)})
			}
		}
		r.machine("memory", settings, nil)
		for i, v := range odd {
			require.Equal(t, v, r.read(fmt.Sprintf("odd.%d", i)))
			require.Equal(t, v, r.read(fmt.Sprintf("word.%d", i)))
			if late := r.read(fmt.Sprintf("late.%d", i)); late != "none" {
				require.Equal(t, v, late)
			}
		}
		require.Equal(t, "none", r.told())
	})
}

// A value with a $VAR or a $(command) in it is expanded once, by the machine.
func TestExpand(t *testing.T) {
	each(t, func(t *testing.T, r *root) {
		r.machine("memory", []Setting{
			{Name: "NAME", Value: `it's $HOME`},
			{Name: "COUNT", Value: `$(echo x >>/counted; echo ab)`, Expand: true},
			{Name: "BOTH", Value: `<$NAME> $COUNT \"q\"`, Expand: true},
			{Name: "HOSTS_1", Value: `10.0.0.1 $COUNT`, Expand: true},
			{Name: "HOSTNAME", Value: "pc-$(echo 7)", Expand: true},
			{Name: "LANG", Value: "$NAME", Expand: true},
			{Name: "PREINIT_1", Value: `printf %s "$BOTH" >/both`},
			{Name: "PREINIT_2", Value: `printf %s "$COUNT" >/$HOSTNAME.name`},
		}, nil)
		r.requireFiles(map[string]string{
			"both": `<it's $HOME> ab "q"`, "counted": "x\n", "pc-7.name": "ab", "etc/hostname": "pc-7\n",
			"etc/hosts":          "# diskless begin\n127.0.1.1 pc-7\n10.0.0.1 ab\n# diskless end\n",
			"etc/default/locale": "LANG=\"it's \\$HOME\"\n",
			"dev/kmsg":           "none",
		})
	})
}

// One shell runs all commands, so that they see what those before have set, and
// no command keeps another from running.
func TestCommandsShareAShell(t *testing.T) {
	each(t, func(t *testing.T, r *root) {
		r.write("run/net-ens3.conf", "IPV4ADDR=10.0.0.7\n", 0o644)
		r.write("run/net-ens4.conf", "if (", 0o644)
		settings := []Setting{
			{Name: "LATE", Value: "$(echo x >>/counted; echo late)", Expand: true},
			{Name: "INIT_COMMAND_1", Value: "SET=one; cd /etc; greet() { echo \"hello $1 from $PWD\" >>/log; }; set -- a b; umask 077"},
			{Name: "PREINIT_01", Value: "greet $SET; echo $IPV4ADDR >>/log"},
			{Name: "PREINIT_02", Value: "echo \"$LATE\"' here' >>/log", Expand: true},
			{Name: "PREINIT_03", Value: "if"},
			{Name: "PREINIT_04", Value: "greet again; return 5; echo no >>/log"},
			{Name: "PREINIT_05", Value: "set -eu; IFS=abc; false; echo on >>/log"},
			{Name: "PREINIT_06", Value: "echo said; sed() { :; }; exec 3>/tmp/x >/tmp/y; exit 6"},
			{Name: "PREINIT_07", Value: "echo \"[${SET-gone}] $PWD\" >>/log; exit"},
			{Name: "PREINIT_08", Value: "exec true"},
			{Name: "PREINIT_09", Value: "kill -9 $$"},
			{Name: "PREINIT_10", Value: "${SET?is not set}"},
			{Name: "PREINIT_11", Value: "diskless_count=100 diskless_done=100; trap 'echo trapped >>/log; exit 9' EXIT"},
			{Name: "PREINIT_12", Value: "set -C"},
			{Name: "PREINIT_13", Value: "echo end >>/log"},
			{Name: "RCFILE_1", Value: "echo \"[${SET-gone}]\" >>/log; SET=two"},
			{Name: "RCFILE_2", Value: "echo \"[${SET-gone}]\" >>/log; exit 3"},
		}
		r.machine("memory", settings, nil)
		require.Equal(t, "hello one from /etc\n10.0.0.7\nlate here\nhello again from /etc\non\n[gone] /\nend\ntrapped\n", r.read("log"))
		require.Equal(t, "x\n", r.read("counted"))
		told := "<3>diskless: PREINIT_03 failed with status 2: SYNTAX\n<3>diskless: PREINIT_04 failed with status 5\n<3>diskless: PREINIT_06 failed with status 6: said\n" +
			"<3>diskless: PREINIT_09 failed with status 137\n<3>diskless: PREINIT_10 failed with status 2: SYNTAX\n"
		require.Equal(t, told, regexp.MustCompile(`2: .*`).ReplaceAllString(r.told(), "2: SYNTAX"))
		require.Equal(t, "said\n", r.read("run/diskless/output/PREINIT_06"))
		require.NoError(t, os.Remove(r.path("log")))
		r.run("/bin/sh", "/run/diskless/machine", "after")
		require.Equal(t, "[gone]\n[two]\n", r.read("log"))
		require.Contains(t, r.told(), "RCFILE_2 failed with status 3\n")
	})
}

// A command that does not come to an end keeps no machine from booting.
func TestCommandThatHangs(t *testing.T) {
	each(t, func(t *testing.T, r *root) {
		require.NoError(t, os.Symlink("busybox", r.path("bin/timeout")))
		require.NoError(t, os.MkdirAll(r.path("proc/self"), 0o755))
		require.NoError(t, os.Symlink("/bin/busybox", r.path("proc/self/exe"))) // by which busybox's shell runs its own programs
		data, err := Build([]Setting{{Name: "PREINIT_1", Value: "exec sleep 1000"}, {Name: "PREINIT_2", Value: "touch /reached"}}, nil, nil)
		require.NoError(t, err)
		_, files := unpack(t, data)
		require.NoError(t, os.MkdirAll(r.path("run/diskless/output"), 0o755))
		for _, name := range []string{"commands", "settings", "preinit", "env"} {
			r.write("run/diskless/"+name, files["diskless/"+name], 0o600)
		}
		r.write("run/diskless/machine", strings.Replace(files["diskless/machine"], "preinit 600\n", "preinit 1\n", 1), 0o600)
		r.run("/bin/sh", "/run/diskless/machine", "before", "memory")
		require.Equal(t, "", r.read("reached"))
		require.Equal(t, "<3>diskless: PREINIT_1 was ended; it has 1 seconds\n", r.told())
	})
}

// What each family makes of values with everything in them that shells, and
// the readers of its files, give a meaning to.
func TestOddFamilies(t *testing.T) {
	const odd = "it's \"$HOME\" `id` \\ # % * Grüße"
	each(t, func(t *testing.T, r *root) {
		r.write("lib/systemd/systemd", "", 0o755)
		for _, unit := range []string{"rsyslog", "cups", "dnsmasq", "exim4"} {
			r.write("lib/systemd/system/"+unit+".service", "", 0o644)
		}
		r.write("usr/share/zoneinfo/Etc/it's $here", "TZif", 0o644)
		r.machine("memory", []Setting{
			{Name: "HOSTNAME", Value: "pc-'\"$7ü second"},
			{Name: "HOSTS_1", Value: "10.0.0.1 one # " + odd}, {Name: "HOSTS_2", Value: "10.0.0.2 two\n10.0.0.3 three"},
			{Name: "FSTAB_1", Value: "//srv/it's\\040$HOME/*\t /mnt/it's\\040$HOME/ü  cifs  pass=\"*$x`,user=\\a\n0 0"},
			{Name: "FSTAB_2", Value: "tmpfs /srv/it's\\040\"$HOME\"/* tmpfs size=1M,mode=0700"},
			{Name: "CRONTAB_1", Value: "* * * * * root echo " + odd}, {Name: "CRONTAB_2", Value: "MAILTO=a\n@reboot root x"},
			{Name: "MODULE_1", Value: "it's  opt=\"$HOME *\""},
			{Name: "DNS_SERVER", Value: " 10.0.0.1\t10.0.0.2\n"}, {Name: "SEARCH_DOMAIN", Value: "a.example *.b"},
			{Name: "TIMEZONE", Value: "Etc/it's $here"},
			{Name: "LANG", Value: odd}, {Name: "LC_ALL", Value: "late $ODD", Expand: true}, {Name: "ODD", Value: odd},
			{Name: "XKBOPTIONS", Value: odd}, {Name: "CONSOLE_KEYMAP", Value: odd},
			{Name: "KEEP_SYSTEM_SERVICES", Value: "\n  rsyslog\tcu*\nexim4\n"}, {Name: "MASK_SYSTEM_SERVICES", Value: "cups ../x $(reboot) *"},
			{Name: "PREINIT_1", Value: "cat >/here <<'END'\n" + odd + "\nEND\nprintf '%s' '*' >/star"},
			{Name: "RCFILE_1", Value: "printf %s " + quote(odd) + " >/rc"},
		}, &Options{
			AuthorizedKeys: map[string][]string{"root": {"command=" + odd, "two"}},
			HostKeys:       map[string][]byte{"ssh_host_$x'y\"_key": []byte(odd)},
		})
		locale := func(file, name string) string {
			r.run("/bin/sh", "-c", ". /etc/"+file+" && printf %s \"$"+name+"\"")
			return r.output
		}
		require.Equal(t, []string{odd, "late " + odd, odd, odd}, []string{
			locale("default/locale", "LANG"), locale("locale.conf", "LC_ALL"), locale("default/keyboard", "XKBOPTIONS"), locale("vconsole.conf", "KEYMAP"),
		})
		r.run("/bin/sh", "/run/diskless/machine", "after")
		r.requireFiles(map[string]string{
			"etc/hostname": "pc-'\"$7ü\n",
			"etc/hosts":    "# diskless begin\n127.0.1.1 pc-'\"$7ü\n10.0.0.1 one # " + odd + "\n10.0.0.2 two\n10.0.0.3 three\n# diskless end\n",
			"etc/fstab": "# diskless begin\n//srv/it's\\040$HOME/* /mnt/it's\\040$HOME/ü cifs pass=\"*$x`,user=\\a,nofail 0 0\n" +
				"tmpfs /srv/it's\\040\"$HOME\"/* tmpfs size=1M,mode=0700,nofail 0 0\n# diskless end\n",
			"etc/cron.d/diskless":       "* * * * * root echo " + odd + "\nMAILTO=a\n@reboot root x\n",
			"etc/resolv.conf":           "nameserver 10.0.0.1\nnameserver 10.0.0.2\nsearch a.example *.b\n",
			"etc/timezone":              "Etc/it's $here\n",
			"root/.ssh/authorized_keys": "# diskless begin\ncommand=" + odd + "\ntwo\n# diskless end\n",
			"here":                      odd + "\n", "star": "*", "rc": odd,
		})
		for name, masked := range map[string]bool{"rsyslog": false, "exim4": false, "cups": true, "dnsmasq": true} {
			require.Equal(t, masked, r.read("run/systemd/system/"+name+".service") == "", name)
		}
		calls := "mount /srv/it's \"$HOME\"/*\n"
		if r.shell != "busybox" {
			calls += "modprobe it's opt=\"$HOME *\"\n"
			require.Equal(t, "none", r.told())
		}
		require.Equal(t, calls, r.read("calls"))
	})
}

// Swap over NBD: where the settings want it or memory is short, on a device that
// nobody has, and with whoever the settings name.
func TestSwap(t *testing.T) {
	ours := Swap{Server: netip.MustParseAddr("10.0.0.1"), Port: 10810, Export: "swap~1@swap-pc.t"}
	set := func(pairs ...string) (out []Setting) {
		for i := 0; i < len(pairs); i += 2 {
			out = append(out, Setting{Name: pairs[i], Value: pairs[i+1]})
		}
		return out
	}
	on := func(args string) string {
		return "nbd-client " + args + " /dev/nbd2 -swap -persist -systemd-mark\nmkswap /dev/nbd2\nswapon /dev/nbd2\n"
	}
	const mine = "10.0.0.1 10810 -N swap~1@swap-pc.t"
	for name, test := range map[string]struct {
		swap     Swap
		settings []Setting
		memory   string // KiB
		calls    string
		told     string
	}{
		"little memory":    {swap: ours, calls: on(mine)},
		"enough memory":    {swap: ours, memory: "2150400", calls: "none"},
		"more than wanted": {swap: ours, settings: set("NBD_SWAP_THRESHOLD", "100"), calls: "none"},
		"always":           {swap: ours, settings: set("NBD_SWAP", "True"), memory: "99999999", calls: on(mine)},
		"never":            {swap: ours, settings: set("NBD_SWAP", "false"), calls: "none"},
		"said later": {swap: ours, settings: []Setting{{Name: "NBD_SWAP", Value: "$(echo y)", Expand: true}}, memory: "99999999",
			calls: on(mine)},
		"another server":    {swap: ours, settings: set("NBD_SWAP", "y", "NBD_SWAP_HOST", "swapper", "NBD_SWAP_PORT", "99"), calls: on("swapper 99 -N swap")},
		"this server":       {swap: ours, settings: set("NBD_SWAP_HOST", "10.0.0.1", "NBD_SWAP_PORT", "99"), calls: on(mine)},
		"its usual port":    {settings: set("NBD_SWAP", "1", "NBD_SWAP_HOST", "swapper; reboot"), calls: on("swapper; reboot 10809 -N swap")},
		"no server":         {settings: set("NBD_SWAP", "1"), calls: "none", told: "NBD_SWAP has no server"},
		"not offered":       {calls: "none"},
		"no number":         {swap: ours, settings: set("NBD_SWAP_THRESHOLD", "1G"), calls: "none", told: "NBD_SWAP below 1G MiB"},
		"refused":           {swap: Swap{Server: ours.Server, Export: "refused"}, calls: "nbd-client 10.0.0.1 10809 -N refused /dev/nbd2 -swap -persist -systemd-mark\n", told: "NBD_SWAP cannot be used: no such export"},
		"client is missing": {swap: Swap{Server: ours.Server, Export: "none"}, calls: "none", told: "NBD_SWAP needs nbd-client"},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, r *root) {
				r.write("proc/meminfo", "MemFree: 1 kB\nMemTotal:       "+cmp.Or(test.memory, "2150399")+" kB\n", 0o644)
				r.write("sys/block/nbd0/size", "0\n", 0o644)
				r.write("sys/block/nbd1/size", "8\n", 0o644)
				r.write("sys/block/nbd2/size", "0\n", 0o644)
				if test.swap.Export != "none" {
					r.write("usr/local/sbin/nbd-client", "#!/bin/sh\necho nbd-client \"$@\" >>/calls\n[ $4 != refused ] || { echo no such export >&2; exit 1; }\n", 0o755)
				}
				for _, name := range []string{"mkswap", "swapon"} { // busybox's shell would have its own
					r.write("bin/"+name, "#!/bin/sh\necho "+name+" \"$@\" >>/calls\n", 0o755)
				}
				data, err := Build(test.settings, nil, &Options{Swap: test.swap})
				require.NoError(t, err)
				_, files := unpack(t, data)
				script := strings.TrimSuffix(files["diskless/machine"], "\n")
				at := strings.LastIndex(script, "\nhosts=''")
				r.write("run/diskless/env", files["diskless/env"], 0o600)
				var calls []string
				for line := range strings.Lines(files["diskless/settings"]) {
					if strings.HasPrefix(line, "swap ") || strings.HasPrefix(line, "expand ") {
						calls = append(calls, line)
					}
				}
				r.run("/bin/sh", "-c", script[:at]+"\nmkswap() { /bin/mkswap \"$@\"; }\nswapon() { /bin/swapon \"$@\"; }\n"+strings.Join(calls, ""))
				require.Equal(t, test.calls, r.read("calls"))
				if test.told == "" {
					require.Equal(t, "none", r.told())
				} else {
					require.Contains(t, r.told(), "<3>diskless: "+test.told)
				}
			})
		})
	}
}

// Whatever is broken is told with its name, and what comes after it happens.
func TestBrokenSettings(t *testing.T) {
	each(t, func(t *testing.T, r *root) {
		r.write("usr/local/sbin/modprobe", "#!/bin/sh\necho no such module >&2; exit 1\n", 0o755)
		r.write("usr/local/sbin/mount", "#!/bin/sh\necho wrong fs type >&2; exit 32\n", 0o755)
		r.write("etc/cron.d", "a file", 0o644)
		r.machine("memory", []Setting{
			{Name: "A B", Value: "x"}, {Name: "NUL", Value: "a\x00b"}, {Name: "OPTIND", Value: "x"},
			{Name: "SYNTAX", Value: "$(if)", Expand: true}, {Name: "OPEN", Value: "${", Expand: true},
			{Name: "QUOTE", Value: `"`, Expand: true}, {Name: "UNSET", Value: "${X?must be set}", Expand: true},
			{Name: "HOSTS_1", Value: "$(exit 3)x$SYNTAX", Expand: true},
			{Name: "FSTAB_1", Value: "nothing"}, {Name: "FSTAB_2", Value: ""}, {Name: "FSTAB_3", Value: "tmpfs /x tmpfs"},
			{Name: "CRONTAB_1", Value: "x"},
			{Name: "TIMEZONE", Value: "../../etc/shadow"},
			{Name: "MODULE_1", Value: "nope"},
			{Name: "INIT_COMMAND_1", Value: "if"}, {Name: "PREINIT_1", Value: "echo broken; exit 7"},
			{Name: "PREINIT_2", Value: "no-such-command"}, {Name: "PREINIT_3", Value: "kill -9 $$"}, {Name: "PREINIT_9", Value: "touch /reached"},
			{Name: "PATH", Value: "/bin"}, {Name: "IFS", Value: "/"}, {Name: "run", Value: "/nowhere"}, {Name: "kind", Value: "own"},
		}, &Options{AuthorizedKeys: map[string][]string{"nobody-here": {"key"}}})
		r.requireFiles(map[string]string{"reached": "", "etc/hosts": "# diskless begin\nx\n# diskless end\n"})
		told := r.told()
		for _, want := range []string{
			"A B is left out", "NUL is left out", "OPTIND is left out: shells keep", "SYNTAX cannot be expanded", "OPEN cannot be expanded", "QUOTE cannot be expanded", "UNSET cannot be expanded",
			"FSTAB_1 is no line", "FSTAB_2 is no line", "FSTAB_3 cannot be mounted: wrong fs type", "/etc/cron.d/diskless cannot be written",
			"TIMEZONE there is no", "MODULE_1 modprobe nope: ", "INIT_COMMAND_1 failed with status 2",
			"PREINIT_1 failed with status 7: broken", "PREINIT_2 failed with status 127", "PREINIT_3 failed with status 137", "nobody-here has no keys",
		} {
			require.Contains(t, told, "<3>diskless: "+want)
		}
		require.Equal(t, 18, strings.Count(told, "\n"), told)
	})
}

// A root that machines share is not written to: what differs has memory over it.
func TestSharedRootHasNoKeys(t *testing.T) {
	each(t, func(t *testing.T, r *root) {
		r.machine("shared", nil, &Options{AuthorizedKeys: map[string][]string{"root": {"key"}}})
		require.Equal(t, "none", r.read("root/.ssh/authorized_keys"))
		require.Contains(t, r.told(), "root has no keys")
		require.Equal(t, "", r.read("etc/machine-id"), "not the image's")
	})
}

// A user's link must not have root write and give away what is root's.
func TestKeysBehindLinks(t *testing.T) {
	each(t, func(t *testing.T, r *root) {
		r.write("etc/passwd", "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\nbob:x:1001:1001::/home/bob:/bin/sh\ncat:x:1002:1002::/home/cat:/bin/sh\n", 0o644)
		require.NoError(t, os.MkdirAll(r.path("home/ann"), 0o755))
		require.NoError(t, os.Symlink("/etc", r.path("home/ann/.ssh")))
		require.NoError(t, os.MkdirAll(r.path("home/bob/.ssh"), 0o755))
		require.NoError(t, os.Symlink("/etc/shadow", r.path("home/bob/.ssh/authorized_keys")))
		keys := []string{"key"}
		r.machine("own", nil, &Options{AuthorizedKeys: map[string][]string{"ann": keys, "bob": keys, "cat": keys}})
		r.requireFiles(map[string]string{
			"etc/authorized_keys": "none", "etc/shadow": "none", "home/cat/.ssh/authorized_keys": "# diskless begin\nkey\n# diskless end\n",
		})
		require.Contains(t, r.told(), "ann has no keys: /home/ann/.ssh is a link")
		require.Contains(t, r.told(), "bob has no keys")
		info, err := os.Stat(r.path("home/cat/.ssh"))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
		require.EqualValues(t, 1002, info.Sys().(*syscall.Stat_t).Uid)
		info, err = os.Stat(r.path("etc"))
		require.NoError(t, err)
		require.EqualValues(t, 0, info.Sys().(*syscall.Stat_t).Uid)
	})
}

// What DHCP said in the initramfs is what the system resolves by.
func TestResolverOfDHCP(t *testing.T) {
	each(t, func(t *testing.T, r *root) {
		r.write("run/net-ens3.conf", "DEVICE='ens3'\nIPV4DNS0='10.0.0.53'\nIPV4DNS1='0.0.0.0'\nDNSDOMAIN='lab'\n", 0o644)
		require.NoError(t, os.Symlink("/nowhere/resolv.conf", r.path("etc/resolv.conf")))
		r.write("lib/systemd/systemd", "", 0o755)
		r.write("lib/systemd/systemd-resolved", "", 0o755)
		r.machine("memory", nil, nil)
		require.Equal(t, "nameserver 10.0.0.53\nsearch lab\n", r.read("etc/resolv.conf"))
		require.Equal(t, "[Resolve]\nDNS=10.0.0.53\nDomains=lab\n", r.read("run/systemd/resolved.conf.d/diskless.conf"))
		r.write("run/net-broken.conf", "if (", 0o644)
		r.machine("memory", []Setting{{Name: "PREINIT_1", Value: "touch /reached"}}, &Options{Hostname: "x"})
		require.Equal(t, "x\n", r.read("etc/hostname"), "what is broken there breaks nothing else")
		require.NoError(t, os.Remove(r.path("run/net-broken.conf")))
		r.machine("memory", []Setting{{Name: "DNS_SERVER", Value: "10.0.0.1"}}, nil)
		require.Equal(t, "nameserver 10.0.0.1\n", r.read("etc/resolv.conf"))
	})
}

func TestReport(t *testing.T) {
	for tool, want := range map[string]string{"curl": "curl -fsS -m 30 -o /dev/null ", "wget": "wget -q -T 30 -O /dev/null ", "busybox": "busybox wget -q -T 30 -O /dev/null "} {
		each(t, func(t *testing.T, r *root) {
			if r.shell == "busybox" && tool != "curl" {
				return // it has a wget of its own
			}
			require.NoError(t, os.Remove(r.path("usr/local/sbin/curl")))
			r.write("usr/local/sbin/"+tool, "#!/bin/sh\necho "+tool+" \"$@\" >>/calls\n", 0o755)
			r.machine("memory", []Setting{
				{Name: "PREINIT_1", Value: "false"}, {Name: "RCFILE_1", Value: "false"}, {Name: "RCFILE_2", Value: "echo $RCFILE_1 >/rc"},
			}, &Options{Report: "http://10.0.0.1/up/x%20y"})
			r.run("/bin/sh", "/run/diskless/machine", "after")
			r.requireFiles(map[string]string{
				"rc":    "false\n",
				"calls": want + "http://10.0.0.1:80/up/x%20y?began=5.00&ended=5.50&up=12.34&failed=PREINIT_1&failed=RCFILE_1\n",
			})
		})
	}
}

// byBash makes a directory with the word to the server in it, and bash as the
// only program.
func byBash(t *testing.T, limit string) (dir string) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		skip(t, "install the package bash")
	}
	dir = t.TempDir()
	require.NoError(t, os.Symlink(bash, filepath.Join(dir, "bash")))
	script := strings.NewReplacer("run=/run/diskless", "run="+dir, "/dev/kmsg", dir+"/kmsg", "limit=30", "limit="+limit).Replace(string(tell))
	for name, text := range map[string]string{"times": "5.00 5.50\n", "tell": script} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	return dir
}

// An image of Debian's may have neither curl nor wget, but it has bash.
func TestReportByBash(t *testing.T) {
	dir := byBash(t, "30")
	for status, works := range map[int]bool{200: true, 204: true, 404: false, 500: false} {
		got := make(chan string, 1)
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			got <- q.Host + q.RequestURI
			w.WriteHeader(status)
		}))
		host, port, err := net.SplitHostPort(server.Listener.Addr().String())
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "report"), report(&Options{Report: server.URL + "/up"}), 0o600))
		for _, shell := range []string{"bash", "sh"} { // Debian's sh is not bash
			_ = os.Remove(filepath.Join(dir, "failed"))
			cmd := exec.Command(shell, filepath.Join(dir, "tell"))
			cmd.Env = []string{"PATH=" + dir}
			out, err := cmd.CombinedOutput()
			require.NoError(t, err)
			require.Empty(t, string(out))
			_, err = os.Stat(filepath.Join(dir, "failed"))
			require.Equal(t, works, errors.Is(err, fs.ErrNotExist), status)
			require.Regexp(t, "^"+regexp.QuoteMeta(host+":"+port+"/up?began=5.00&ended=5.50&up=")+`[\d.]+$`, <-got)
		}
		server.Close()
	}
}

// A server that says nothing, or that does not even let connections in, is
// waited for no longer than the limit, by nobody.
func TestReportUnanswered(t *testing.T) {
	for name, connect := range map[string]bool{"no answer": false, "no connection": true} {
		t.Run(name, func(t *testing.T) {
			dir := byBash(t, "0.1")
			// Nobody is to try again, for as long.
			require.NoError(t, os.WriteFile(filepath.Join(dir, "curl"), []byte("#!"+filepath.Join(dir, "bash")+"\necho >"+dir+"/again\n"), 0o755))
			server, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
			require.NoError(t, err)
			defer syscall.Close(server)
			syscall.CloseOnExec(server)
			require.NoError(t, syscall.Bind(server, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
			require.NoError(t, syscall.Listen(server, 0))
			bound, err := syscall.Getsockname(server)
			require.NoError(t, err)
			addr := fmt.Sprintf("127.0.0.1:%d", bound.(*syscall.SockaddrInet4).Port)
			if connect { // its queue is full with one, and the next is dropped
				conn, err := net.Dial("tcp", addr)
				require.NoError(t, err)
				defer conn.Close()
			}
			require.NoError(t, os.WriteFile(filepath.Join(dir, "report"), report(&Options{Report: "http://" + addr + "/up"}), 0o600))
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // without a limit it would be two
			defer cancel()
			cmd := exec.CommandContext(ctx, "bash", filepath.Join(dir, "tell"))
			cmd.Env = []string{"PATH=" + dir}
			cmd.WaitDelay = time.Minute // for the output's end, which whoever is left would hold open
			out, err := cmd.CombinedOutput()
			require.NoError(t, err)
			require.Empty(t, string(out))
			told, err := os.ReadFile(filepath.Join(dir, "failed"))
			require.NoError(t, err)
			require.Equal(t, "REPORT\n", string(told))
			require.NoFileExists(t, filepath.Join(dir, "again"))
		})
	}
}
