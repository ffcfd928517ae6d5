package app

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"testing/iotest"

	"github.com/cavaliergopher/cpio"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/internal/config"
	"github.com/seed-3ec230fa/diskless/internal/timeline"
	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/pxecfg"
	"github.com/seed-3ec230fa/diskless/squash"
)

// files unpacks an add-on.
func files(t *testing.T, archive string) map[string]string {
	t.Helper()
	out := map[string]string{}
	r := cpio.NewReader(strings.NewReader(archive))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		require.NoError(t, err)
		data, err := io.ReadAll(r)
		require.NoError(t, err)
		out[h.Name] = string(data)
	}
}

var addonName = regexp.MustCompile(`diskless/(machine-[a-z]+|any|modules)-[0-9a-z]+\.img`)

// Each loader is told of the add-on behind the entry's own initramfs, over TFTP
// and HTTP it is the same, and nobody else can have it.
func TestAddonBelongsToItsMachine(t *testing.T) {
	w := newWorld(t, func(c *config.Config) {
		c.Addon = &config.Addon{OverlaySize: "50%", AuthorizedKeys: []string{"ssh-ed25519 AAAA admin"}}
	})
	booted := make(chan timeline.Event, 8)
	w.Timeline.OnEvent = func(e timeline.Event) {
		if e.Stage == "booted" {
			booted <- e
		}
	}
	w.run()
	one, two := w.lease(macs[0], dhcp.BIOSFirmware()).Addr.Addr(), w.lease(macs[1], dhcp.BIOSFirmware()).Addr.Addr()
	stranger := netip.MustParseAddr("127.9.9.9")

	_, script := w.http("/boot.ipxe", one)
	name := addonName.FindString(script)
	require.NotEmpty(t, name, script)
	require.Less(t, strings.Index(script, "initrd.img"), strings.Index(script, name), "the kernel lays later ones over earlier ones")
	text, err := w.tftp("pxelinux.cfg/01-52-54-00-00-00-01", one)
	require.NoError(t, err)
	require.Contains(t, text, "INITRD initrd.img,"+name)
	text, err = w.tftp("grub.cfg-01-52-54-00-00-00-01", one)
	require.NoError(t, err)
	require.Contains(t, text, "'/initrd.img' '/"+name+"'")

	over, err := w.tftp(name, one)
	require.NoError(t, err)
	code, body := w.http("/"+name, one)
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, over, body, "byte by byte")
	got := files(t, body)
	require.Contains(t, got["diskless/env"], "TOKEN='for-one-only'\n")
	require.Contains(t, got["diskless/env"], "SERVER='127.0.0.1'\n")
	require.Contains(t, got["diskless/settings"], "hostname 'HOSTNAME' 'one'\n")
	require.Contains(t, got["diskless/settings"], "authorize 'root' 'ssh-ed25519 AAAA admin\n'")
	require.Equal(t, "overlay_size='50%'\n", got["diskless/options"])

	for _, from := range []netip.Addr{two, stranger} {
		_, err := w.tftp(name, from)
		require.Error(t, err)
		code, body := w.http("/"+name, from)
		require.Equal(t, http.StatusForbidden, code)
		require.NotContains(t, body, "TOKEN")
	}
	for _, wrong := range []string{"diskless/machine-one.img", "diskless/machine-one-.img", strings.Replace(name, "one", "two", 1), strings.TrimSuffix(name, ".img"), "diskless/", "diskless/up/one-x", "diskless/modules-0.img"} {
		code, _ := w.http("/"+wrong, one)
		require.Equal(t, http.StatusNotFound, code, wrong)
	}

	_, otherScript := w.http("/boot.ipxe", two)
	_, body = w.http("/"+addonName.FindString(otherScript), two)
	other := files(t, body)
	require.NotContains(t, body, "for-one-only")
	id := regexp.MustCompile(`machine_id 'MACHINE_ID' '([0-9a-f]{32})'`)
	require.Len(t, id.FindStringSubmatch(got["diskless/settings"]), 2)
	require.NotEqual(t, id.FindString(got["diskless/settings"]), id.FindString(other["diskless/settings"]))

	// What it says when it is up.
	report := regexp.MustCompile(`report '127.0.0.1' '\d+' '(/diskless/up/one-[0-9a-z]+)'`).FindStringSubmatch(got["diskless/report"])
	require.Len(t, report, 2, got["diskless/report"])
	const query = "?began=10.50&ended=11.00&up=20.25&failed=PREINIT_1&failed=RCFILE_2"
	code, _ = w.http(report[1]+query, two)
	require.Equal(t, http.StatusForbidden, code)
	require.Empty(t, booted)
	code, _ = w.http(report[1]+query, one)
	require.Equal(t, http.StatusNoContent, code)
	require.Len(t, booted, 1, "before the answer")
	e := <-booted
	require.Equal(t, []string{"one", "up 20.2s after its kernel, root ready in 0.5s, 2 settings failed"}, []string{e.Name, e.What})
	require.Contains(t, w.log.String(), "PREINIT_1 RCFILE_2")
	for query, want := range map[string]string{
		"":                                 "up",
		"?began=1&ended=2&up=NaN":          "up",
		"?began=1&ended=2&up=1e300":        "up",
		"?began=3&ended=2&up=9":            "up",
		"?began=-1&ended=2&up=9":           "up",
		"?failed=%0aforged&failed=FSTAB_1": "up, 2 settings failed",
		"?began=1&ended=1.5&up=2" + strings.Repeat("&failed=X", 99): "up 2.0s after its kernel, root ready in 0.5s, 32 settings failed",
	} {
		code, _ = w.http(report[1]+query, one)
		require.Equal(t, http.StatusNoContent, code)
		require.Equal(t, want, (<-booted).What, query)
	}
	require.Contains(t, w.log.String(), "OTHER FSTAB_1")
	require.NotContains(t, w.log.String(), "forged")
}

// A machine that nobody configured says that it is up, too, and no other's name.
func TestAddonOfUnknown(t *testing.T) {
	w := newWorld(t, func(c *config.Config) { c.Unknown = "live" })
	booted := make(chan timeline.Event, 8)
	w.Timeline.OnEvent = func(e timeline.Event) {
		if e.Stage == "booted" {
			booted <- e
		}
	}
	w.run()
	other := w.lease(macs[2], dhcp.BIOSFirmware()).Addr.Addr()
	_, script := w.http("/boot.ipxe", other)
	code, body := w.http("/"+addonName.FindString(script), other)
	require.Equal(t, http.StatusOK, code, script)
	report := regexp.MustCompile(`report '127.0.0.1' '\d+' '(/diskless/up/-[0-9a-z]+)'`).FindStringSubmatch(files(t, body)["diskless/report"])
	require.Len(t, report, 2)
	code, _ = w.http(report[1]+"?began=1&ended=1.5&up=2&failed=FSTAB_1", netip.MustParseAddr("127.9.9.9"))
	require.Equal(t, http.StatusForbidden, code, "it has no lease")
	require.Empty(t, booted)
	code, _ = w.http(report[1]+"?began=1&ended=1.5&up=2&failed=FSTAB_1", other)
	require.Equal(t, http.StatusNoContent, code)
	e := <-booted
	require.Equal(t, timeline.Who{MAC: macs[2].String(), Addr: other}, e.Who)
	require.Equal(t, "up 2.0s after its kernel, root ready in 0.5s, 1 settings failed", e.What)
	code, _ = w.http(report[1]+"x", other)
	require.Equal(t, http.StatusNotFound, code)
}

// Each machine has a swap area of its own: the same name for all of a boot, a new
// and empty one for the next, and nobody else's.
func TestAddonSwap(t *testing.T) {
	w := newWorld(t, func(c *config.Config) { c.NBD.Swap.Bytes = 1 << 20 }).run()
	one, two := w.lease(macs[0], dhcp.BIOSFirmware()).Addr.Addr(), w.lease(macs[1], dhcp.BIOSFirmware()).Addr.Addr()
	swap := regexp.MustCompile(`(?m)^swap NBD_SWAP '' '2100' '127.0.0.1' '(\d+)' '(swap~[0-9a-f]+@swap-one\.[0-9a-z-]+)'$`)
	area := func() string {
		data, err := w.addons.build(t.Context(), pxecfgClient(0), &w.cfg.Machines[0])
		require.NoError(t, err)
		m := swap.FindStringSubmatch(files(t, string(data))["diskless/settings"])
		require.Len(t, m, 3)
		require.Equal(t, strconv.Itoa(w.cfg.NBD.Port), m[1])
		return m[2]
	}
	open := func(name string, peer netip.Addr) (nbd.Device, error) {
		r := &nbd.Request{Export: name, Client: netip.AddrPortFrom(peer, 1), Purpose: nbd.PurposeGo}
		return w.nbdServer().Handler.OpenNBD(t.Context(), r)
	}
	name := area()
	require.Equal(t, name, area(), "until it is opened")
	_, err := open(name, two)
	require.ErrorIs(t, err, fs.ErrPermission)
	d, err := open(name, one)
	require.NoError(t, err)
	require.EqualValues(t, 1<<20, d.Size())
	defer func() { _ = d.(io.Closer).Close() }()
	_, err = d.(io.WriterAt).WriteAt([]byte("memory"), 4096)
	require.NoError(t, err)

	next := area()
	require.NotEqual(t, name, next)
	d, err = open(next, one)
	require.NoError(t, err)
	got := make([]byte, 6)
	_, err = d.ReadAt(got, 4096)
	require.NoError(t, err)
	require.Equal(t, make([]byte, 6), got)
	_, err = open(name, one)
	require.ErrorIs(t, err, fs.ErrPermission, "what was in it is gone, and nothing takes its place")

	require.NoError(t, os.WriteFile(w.cfg.LTSConf, []byte("[default]\nNBD_SWAP=false\n"), 0o644))
	data, err := w.addons.build(t.Context(), pxecfgClient(0), &w.cfg.Machines[0])
	require.NoError(t, err)
	require.NotContains(t, files(t, string(data))["diskless/settings"], "swap NBD_SWAP")
}

// A machine may be called as others' archives begin.
func TestAddonNames(t *testing.T) {
	names := []string{"any", "any-1", "machine-1", "up", "a-b-c"}
	w := newWorld(t, func(c *config.Config) {
		for i, name := range names {
			c.Machines = append(c.Machines, config.Machine{Name: name, MAC: config.HardwareAddr{HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 1, byte(i)}}, Entry: "live"})
		}
	})
	defer w.close()
	tags := map[string]bool{}
	for i, name := range names {
		m := &w.cfg.Machines[2+i]
		e, err := w.entry(t.Context(), "live", m, pxecfg.LoaderIPXE)
		require.NoError(t, err)
		owner, ok := w.addons.owner(strings.TrimSuffix(e.Initrd[len(e.Initrd)-1], ".img"))
		require.True(t, ok, name)
		require.Same(t, m, owner)
		require.Same(t, m, w.addons.named(name+"-"+w.addons.tag(name)))
		tags[w.addons.tag(name)] = true
	}
	e, err := w.entry(t.Context(), "live", nil, pxecfg.LoaderIPXE)
	require.NoError(t, err)
	owner, ok := w.addons.owner(strings.TrimSuffix(e.Initrd[1], ".img"))
	require.True(t, ok)
	require.Nil(t, owner)
	tags[w.addons.tag(anybody)] = true
	require.Len(t, tags, len(names)+1)
	require.Nil(t, w.addons.named("-"+w.addons.tag(anybody)))
}

// A machine keeps its identity, and its names, over restarts of the server.
func TestAddonIsKept(t *testing.T) {
	w := newWorld(t, nil)
	first, err := w.addons.identity("one")
	require.NoError(t, err)
	tag := w.addons.tag("one")
	key, err := ssh.ParsePrivateKey([]byte(first.HostKey))
	require.NoError(t, err)
	require.Equal(t, ssh.KeyAlgoED25519, key.PublicKey().Type())
	again, err := newAddons(w.App)
	require.NoError(t, err)
	require.Equal(t, tag, again.tag("one"))
	kept, err := again.identity("one")
	require.NoError(t, err)
	require.Equal(t, first, kept)
	for _, name := range []string{"addon.secret", "identities/one.json"} {
		info, err := os.Stat(filepath.Join(w.cfg.Server.State, name))
		require.NoError(t, err)
		require.Equal(t, fs.FileMode(0o600), info.Mode().Perm())
	}
	require.NoError(t, os.WriteFile(filepath.Join(w.cfg.Server.State, "addon.secret"), nil, 0o600))
	_, err = newAddons(w.App)
	require.ErrorContains(t, err, "addon.secret")
}

// U-Boot loads one initramfs: it gets all in one file, whether its machine says
// what it is or the configuration does.
func TestAddonJoined(t *testing.T) {
	w := newWorld(t, func(c *config.Config) {
		c.Machines[0].Loader = config.LoaderUBoot
		c.Unknown = "live"
	}).run()
	board := dhcp.Firmware{VendorClass: "PXEClient:Arch:00022:UNDI:003000", Archs: []iana.Arch{iana.UBOOT_ARM64}}
	one, two, other := w.lease(macs[0], dhcp.BIOSFirmware()), w.lease(macs[1], dhcp.BIOSFirmware()), w.lease(macs[2], board)
	require.Equal(t, []string{pxelinux, pxelinux}, []string{one.File, other.File})
	initrd := strings.Repeat("initrd", 10_001)
	require.NoError(t, os.WriteFile(filepath.Join(w.dir, "boot/initrd.img"), []byte(initrd), 0o644))

	joined := regexp.MustCompile(`(?m)^ *INITRD (diskless/joined/(desk|live)/(machine-one|any)-[0-9a-z]+\.img)$`)
	for i, ack := range []dhcp.Ack{one, other} {
		peer := ack.Addr.Addr()
		text, err := w.tftp("pxelinux.cfg/01-52-54-00-00-00-0"+string("19"[i]), peer)
		require.NoError(t, err)
		m := joined.FindStringSubmatch(text)
		require.Len(t, m, 4, text)
		over, err := w.tftp(m[1], peer)
		require.NoError(t, err)
		code, body := w.http("/"+m[1], peer)
		require.Equal(t, http.StatusOK, code)
		require.Equal(t, over, body)
		require.Equal(t, initrd, body[:len(initrd)])
		at := (len(initrd) + 4 + 511) / 512 * 512
		require.Equal(t, strings.Repeat("\x00", at-len(initrd)), body[len(initrd):at])
		require.Contains(t, files(t, body[at:]), "diskless/hook")
		require.Zero(t, len(body)%512)
		if i == 0 {
			_, err := w.tftp(m[1], two.Addr.Addr())
			require.Error(t, err)
			for _, wrong := range []string{strings.Replace(m[1], "desk", "none", 1), strings.Replace(m[1], "desk/", "", 1), m[1] + "x", "diskless/joined/desk/", "diskless/joined/desk/initrd.img"} {
				code, _ := w.http("/"+wrong, peer)
				require.Equal(t, http.StatusNotFound, code, wrong)
			}
		}
	}
	text, err := w.tftp("pxelinux.cfg/01-52-54-00-00-00-02", two.Addr.Addr())
	require.NoError(t, err)
	require.Contains(t, text, "INITRD initrd.img,diskless/machine-two-")
}

// However it is read, it is the parts with zeroes between them.
func TestParts(t *testing.T) {
	var p parts
	var whole []byte
	for i, n := range []int{0, 1, 507, 508, 509, 512, 3000} {
		data := bytes.Repeat([]byte{byte(i + 1)}, n)
		p = append(p, part{bytes.NewReader(data), p.size(), int64(n)})
		whole = append(whole, data...)
		whole = append(whole, make([]byte, p.size()-int64(len(whole)))...)
		require.GreaterOrEqual(t, int(p.size()-p[i].at)-n, 4)
	}
	require.NoError(t, iotest.TestReader(io.NewSectionReader(p, 0, p.size()), whole))
	for from := 0; from <= len(whole); from += 127 {
		for _, n := range []int{0, 1, 300, 1024, 9000} {
			got := bytes.Repeat([]byte{0xff}, n)
			m, err := p.ReadAt(got, int64(from))
			require.Equal(t, whole[from:min(from+n, len(whole))], got[:m])
			require.Equal(t, m < n, err == io.EOF)
		}
	}
	p[3].ReaderAt = strings.NewReader("shorter now")
	_, err := p.ReadAt(make([]byte, len(whole)), 0)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
}

func TestAddonOptOut(t *testing.T) {
	no := false
	for what, change := range map[string]func(c *config.Config){
		"of an entry":    func(c *config.Config) { c.Entries[0].Addon = &no },
		"altogether":     func(c *config.Config) { c.Addon = &config.Addon{Enabled: &no} },
		"no initramfs":   func(c *config.Config) { c.Entries[0].Initrd = nil },
		"served nowhere": func(c *config.Config) { c.TFTP.Enabled, c.HTTP.Enabled = &no, &no },
	} {
		w := newWorld(t, change)
		e, err := w.entry(t.Context(), "desk", &w.cfg.Machines[0], pxecfg.LoaderIPXE)
		require.NoError(t, err)
		require.NotContains(t, strings.Join(e.Initrd, " "), "diskless/", what)
		w.close()
	}
}

// Modules come out of the image, for the kernel that the entry boots, and a new
// image brings new ones.
func TestAddonModules(t *testing.T) {
	w := newWorld(t, func(c *config.Config) {
		kernel := make([]byte, 4096)
		copy(kernel[0x202:], "HdrS")
		kernel[0x20f] = 0x04
		copy(kernel[0x600:], "6.1.0-x (builder)")
		require.NoError(t, os.WriteFile(filepath.Join(c.Files[0].Dir, "vmlinuz"), kernel, 0o644))
		image := filepath.Join(filepath.Dir(c.Files[0].Dir), "root.squashfs")
		require.NoError(t, squash.BuildFile(t.Context(), image, squash.FromFS(fstest.MapFS{
			"lib/modules/6.1.0-x/modules.builtin":   {Data: []byte("kernel/nbd.ko\nkernel/loop.ko\nkernel/squashfs.ko\n")},
			"lib/modules/6.1.0-x/kernel/overlay.ko": {Data: module(t)},
		}), nil))
		c.Images = append(c.Images, config.Image{Name: "root", File: image})
		c.Entries = append(c.Entries, config.Entry{Name: "root", Kernel: "/vmlinuz", Initrd: []string{"initrd.img"}, Image: "root"})
	}).run()
	m := &w.cfg.Machines[0]
	entry := func() string {
		e, err := w.entry(t.Context(), "root", m, pxecfg.LoaderIPXE)
		require.NoError(t, err)
		require.Len(t, e.Initrd, 3, w.log)
		require.Equal(t, "initrd.img", e.Initrd[0])
		return e.Initrd[1]
	}
	name := entry()
	require.Equal(t, name, entry())
	_, body := w.http("/"+name, netip.MustParseAddr("127.9.9.9"))
	require.Equal(t, "overlay.ko\n", files(t, body)["diskless-modules/order"])

	require.NoError(t, os.WriteFile(filepath.Join(w.dir, "boot/vmlinuz"), []byte("kernel of an ARM, which says no version"), 0o644))
	require.Equal(t, name, entry(), "the image has modules of one kernel")

	image := filepath.Join(w.dir, "root.squashfs")
	require.NoError(t, os.Remove(image))
	require.NoError(t, squash.BuildFile(t.Context(), image, squash.FromFS(fstest.MapFS{
		"lib/modules/6.1.0-x/modules.builtin": {}, "lib/modules/6.1.0-y/modules.builtin": {},
	}), nil))
	e, err := w.entry(t.Context(), "root", m, pxecfg.LoaderIPXE)
	require.NoError(t, err, "it boots, if its initramfs has the modules")
	require.Len(t, e.Initrd, 2)
	require.Contains(t, w.log.String(), "kernel modules are not added")
	code, _ := w.http("/"+name, netip.MustParseAddr("127.9.9.9"))
	require.Equal(t, http.StatusOK, code, "a machine that is about to load it finds it")
}

// module is the least that has a module's information.
func module(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	b.WriteString("\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 9))
	b.Write([]byte{1, 0, 62, 0, 1, 0, 0, 0})
	b.Write(make([]byte, 16))
	b.Write([]byte{64, 0, 0, 0, 0, 0, 0, 0})
	b.Write([]byte{0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 64, 0, 3, 0, 2, 0})
	section := func(name, kind, at, size byte) {
		h := make([]byte, 64)
		h[0], h[4], h[24], h[32] = name, kind, at, size
		b.Write(h)
	}
	section(0, 0, 0, 0)
	section(1, 1, 0, 10) // .modinfo
	section(10, 3, 0, 0) // names
	names := "\x00.modinfo\x00.shstrtab\x00"
	info := "depends=\x00\x00"
	out := append(b.Bytes(), info+names...)
	out[64+64+24], out[64+128+24] = byte(b.Len()%256), byte((b.Len()+len(info))%256)
	out[64+64+25], out[64+128+25] = byte(b.Len()/256), byte((b.Len()+len(info))/256)
	out[64+128+32] = byte(len(names))
	return out
}

// The same settings, in the words of both LTSPs, give the same machine.
func TestSettingsOfBothLTSPs(t *testing.T) {
	texts := map[string]string{
		"lts.conf": `[Default]
FSTAB_2="tmpfs /b tmpfs"
FSTAB_10="tmpfs /c tmpfs"
FSTAB_1="tmpfs /a tmpfs"
PREINIT_1="echo it's \$HOME"
KEEP_SYSTEM_SERVICES="ssh rsyslog"
TIMEZONE=Europe/Berlin

[one]
RCFILE_1="join --token abc"
`,
		"ltsp.conf": `[clients]
FSTAB_2="tmpfs /b tmpfs"
FSTAB_10="tmpfs /c tmpfs"
FSTAB_1="tmpfs /a tmpfs"
PREINIT_1="echo it's \$HOME"
KEEP_SYSTEM_SERVICES="ssh rsyslog"
TIMEZONE=Europe/Berlin

[one]
RCFILE_1="join --token abc"
`,
	}
	var settings []string
	for name, text := range texts {
		w := newWorld(t, func(c *config.Config) {
			file := filepath.Join(filepath.Dir(c.LTSConf), "of-this-test")
			require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
			c.LTSConf, c.LTSPConf = "", ""
			if name == "lts.conf" {
				c.LTSConf = file
			} else {
				c.LTSPConf = file
			}
		})
		archive, err := w.addons.build(t.Context(), pxecfgClient(0), &w.cfg.Machines[0])
		require.NoError(t, err)
		got := files(t, string(archive))
		text := regexp.MustCompile(`(?m)^(machine_id|host_key)(.|\n)*?^resolver`).ReplaceAllString(got["diskless/settings"]+got["diskless/preinit"]+got["diskless/rcfiles"], "")
		settings = append(settings, text)
		require.Regexp(t, `(?s)/a tmpfs.*/b tmpfs.*/c tmpfs.*PREINIT_1' 'echo it'\\''s \$HOME'.*RCFILE_1' 'join --token abc'`, text)
		w.close()
	}
	require.Equal(t, settings[0], settings[1])
}

// A file of settings that broke while the server runs does not keep machines
// from booting.
func TestSettingsThatBroke(t *testing.T) {
	w := newWorld(t, nil)
	defer w.close()
	require.NoError(t, os.WriteFile(w.cfg.LTSConf, []byte("[one\n"), 0o644))
	archive, err := w.addons.build(t.Context(), pxecfgClient(0), &w.cfg.Machines[0])
	require.NoError(t, err)
	require.Contains(t, files(t, string(archive))["diskless/settings"], "refused 'its settings'")
	require.Contains(t, w.log.String(), "without its settings")
}

func pxecfgClient(i int) pxecfg.Client {
	return pxecfg.Client{MAC: macs[i], IP: netip.MustParseAddr("127.0.67.1")}
}
