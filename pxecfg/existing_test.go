package pxecfg

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"
)

const existingText = "# kept\r\nUI menu.c32\nTIMEOUT 200\nONTIMEOUT local\nDEFAULT local\nMENU TITLE Hello  there\n\n" +
	"LABEL local\n MENU LABEL (^local)\n LOCALBOOT 0\n" +
	"LABEL deb\n KERNEL deb/vmlinuz-6.1 quiet\n APPEND initrd=deb/initrd.img,/x/more.img ro a=\"b c\"\n IPAPPEND 2\n" +
	"LABEL hdt\n COM32 hdt.c32\n" +
	"MENU BEGIN more\nLABEL other\n LINUX ::other/linux\n INITRD http://192.0.2.1/i\nLABEL undi\n PXE undionly.kpxe\nMENU END\n"

func TestExistingTree(t *testing.T) {
	mac := net.HardwareAddr{0x52, 0x54, 0, 0x12, 0x34, 0x56}
	files := fstest.MapFS{
		"ltsp/pxelinux.cfg/01-52-54-00-12-34-56": {Data: []byte(existingText)},
		"ltsp/pxelinux.cfg/0A0000":               {Data: []byte("DEFAULT k\n")},
		"ltsp/pxelinux.cfg/0A000001":             {},
		"ltsp/pxelinux.cfg/default":              {Data: []byte("DEFAULT hdt.c32\n")},
		"ltsp/vmlinuz":                           {Data: []byte("k")},
	}
	src := &Existing{FS: files, Prefix: "/ltsp/"}
	tree := &Tree{Source: src, Files: files}
	known := tree.For(context.Background(), Client{MAC: mac})
	got, err := fs.ReadFile(known, "ltsp/pxelinux.cfg/01-52-54-00-12-34-56")
	require.NoError(t, err)
	require.Equal(t, existingText, string(got), "byte for byte")

	got, err = fs.ReadFile(known, "ltsp/grub.cfg")
	require.NoError(t, err)
	grubSeen(string(got))
	require.Contains(t, string(got), "set default='local'\nset timeout=20\n")
	require.Contains(t, string(got), `linux '/ltsp/deb/vmlinuz-6.1' 'quiet' 'ro' 'a=b c' 'BOOTIF=01-52-54-00-12-34-56'`)
	require.Contains(t, string(got), `initrd '/ltsp/deb/initrd.img' '/ltsp/x/more.img'`)
	require.Contains(t, string(got), `initrd '(http,192.0.2.1)/i'`)
	require.NotContains(t, string(got), "hdt")

	got, err = fs.ReadFile(known, "pxelinux.cfg/01-52-54-00-12-34-56")
	require.NoError(t, err, "started elsewhere, names must change")
	require.Contains(t, string(got), "LINUX ltsp/deb/vmlinuz-6.1\n")

	// Beside a foreign DHCP server: only names speak.
	peer := tree.For(context.Background(), Client{IP: netip.MustParseAddr("10.0.0.1")})
	got, err = fs.ReadFile(peer, "ltsp/pxelinux.cfg/01-52-54-00-12-34-56")
	require.NoError(t, err)
	require.Equal(t, existingText, string(got))
	_, err = fs.ReadFile(peer, "ltsp/pxelinux.cfg/01-52-54-00-00-00-00")
	require.ErrorIs(t, err, fs.ErrNotExist)
	got, err = fs.ReadFile(peer, "ltsp/pxelinux.cfg/0A0000")
	require.NoError(t, err)
	require.Equal(t, "DEFAULT k\n", string(got), "an empty file is none")
	far := tree.For(context.Background(), Client{IP: netip.MustParseAddr("10.1.0.1")})
	got, err = fs.ReadFile(far, "ltsp/pxelinux.cfg/default")
	require.NoError(t, err)
	require.Equal(t, "DEFAULT hdt.c32\n", string(got))
	cfg, err := src.Config(context.Background(), Client{IP: netip.MustParseAddr("10.1.0.1")})
	require.NoError(t, err)
	require.True(t, cfg.Fallback)
	var render *RenderError
	require.ErrorAs(t, cfg.WriteIPXE(new(bytes.Buffer), Target{}), &render, "what only PXELINUX can boot is an error for others")
	require.Equal(t, "com32", render.Value)
	require.NoError(t, cfg.WritePXELINUX(new(bytes.Buffer), Target{Prefix: "ltsp/"}))
}

func TestExistingErrors(t *testing.T) {
	_, err := (&Existing{}).Config(context.Background(), Client{})
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = (&Existing{FS: fstest.MapFS{"pxelinux.cfg/default": {Mode: fs.ModeDir}}}).Config(context.Background(), Client{})
	require.ErrorIs(t, err, fs.ErrNotExist)
	loop := fstest.MapFS{"pxelinux.cfg/default": {Data: []byte("INCLUDE pxelinux.cfg/default\n")}}
	cfg, err := (&Existing{FS: loop}).Config(context.Background(), Client{})
	require.NoError(t, err, "PXELINUX gets what there is")
	require.ErrorIs(t, cfg.WriteGRUB(new(bytes.Buffer), Target{}), fs.ErrInvalid)
}

func TestPXELINUXConfig(t *testing.T) {
	load := func(text, prefix string) (*Config, []error) {
		p, err := parseString(t, text).Load(nil, prefix)
		require.NoError(t, err)
		return p.Config(prefix)
	}
	cfg, left := load(existingText, "ltsp/")
	require.Equal(t, &Config{
		Title: "Hello there", Default: "local", Timeout: 20 * time.Second, UI: "ltsp/menu.c32",
		Entries: []Entry{
			{Label: "local", Title: "(local)", Hotkey: 'l', LocalBoot: true},
			{Label: "deb", Kernel: "ltsp/deb/vmlinuz-6.1", Initrd: []string{"ltsp/deb/initrd.img", "ltsp/x/more.img"},
				Args: []string{"quiet", "ro", "a=b c"}, SysAppend: 2},
			{Label: "more", Entries: []Entry{
				{Label: "other", Kernel: "other/linux", Initrd: []string{"http://192.0.2.1/i"}},
				{Label: "undi", Chain: "ltsp/undionly.kpxe"},
			}},
		},
	}, cfg)
	require.Len(t, left, 1)

	cfg, left = load("DEFAULT a single\nLABEL a\n KERNEL k\n APPEND x\nLABEL b\n KERNEL k2\n", "")
	require.Empty(t, left)
	require.Equal(t, &Config{Default: "a", Entries: []Entry{{Label: "a", Kernel: "k", Args: []string{"x", "single"}}}}, cfg, "without a prompt it boots at once")

	cfg, _ = load("PROMPT 1\nDEFAULT vmlinuz ro\nLABEL a\n KERNEL k\nLABEL a\n KERNEL k\nLABEL a\n KERNEL k\n", "")
	require.EqualValues(t, -1, cfg.Timeout, "without TIMEOUT a prompt waits for ever")
	require.Equal(t, "vmlinuz_ro", cfg.Default)
	require.Equal(t, []string{"ro"}, cfg.Entries[0].Args)
	require.Equal(t, "a-3", cfg.Entries[3].Label)

	for text, why := range map[string]string{
		"DEFAULT a\nLABEL a\n BSS boot.img\n":                  "bss",
		"DEFAULT a\nLABEL a\n KERNEL vmlinuz-6.0\n APPEND x\n": "only kernels have arguments",
		"DEFAULT a\nLABEL a\n LINUX k\n APPEND noinitrd=x\n":   "within a word",
		"DEFAULT a\nLABEL a\n LINUX k\n APPEND a=\"b\n":        "never closed",
		"MENU TITLE x\n":       "no entry",
		"LABEL a\n CONFIG x\n": "no entry",
	} {
		cfg, left := load(text, "")
		require.Nil(t, cfg, text)
		require.ErrorContains(t, errors.Join(left...), why, text)
	}
}

func TestKernels(t *testing.T) {
	tree := fstest.MapFS{}
	for _, name := range []string{"vmlinuz-6.1.0-9-amd64", "vmlinuz-6.1.0-18-amd64", "initrd.img-6.1.0-9-amd64", "initrd.img-6.1.0-18-amd64",
		"vmlinuz-6.9.0-new", "vmlinuz", "initrd.img", "memtest"} {
		tree["i/"+name] = &fstest.MapFile{Data: []byte("x")}
	}
	k := &Kernels{
		Methods: []KernelMethod{{Name: "NBD", Args: []string{"root=/dev/nbd0"}}, {Name: "NFS", Args: []string{"root=/dev/nfs"}}},
		Args:    []string{"quiet"}, SysAppend: 3, Timeout: time.Second,
		Change: func(e *Entry, method, version string) {
			if version == "6.1.0-9-amd64" && method == "NFS" {
				e.Args = append(e.Args, "debug")
			}
		},
	}
	cfg, err := k.Config(tree, "i")
	require.NoError(t, err)
	labels := func() (l []string) {
		for _, e := range cfg.Entries {
			l = append(l, e.Label)
		}
		return l
	}
	require.Equal(t, []string{"ltsp-NBD", "ltsp-NFS", "ltsp-NBD-6.1.0-18-amd64", "ltsp-NBD-6.1.0-9-amd64", "ltsp-NFS-6.1.0-18-amd64", "ltsp-NFS-6.1.0-9-amd64"}, labels())
	require.Equal(t, Entry{Label: "ltsp-NBD", Title: "LTSP, using NBD", Kernel: "i/vmlinuz-6.1.0-18-amd64", Initrd: []string{"i/initrd.img-6.1.0-18-amd64"},
		Args: []string{"quiet", "root=/dev/nbd0"}, SysAppend: 3}, cfg.Entries[0])
	old := cfg.Entries[5]
	require.Equal(t, []string{"quiet", "root=/dev/nfs", "debug"}, old.Args)

	// A kernel is added: its entries come, and no setting goes.
	tree["i/initrd-6.9.0-new"] = &fstest.MapFile{Data: []byte("x")}
	k.Default, k.OnTimeout, k.UI = "ltsp-NBD-6.1.0-9-amd64", "ltsp-NFS", "menu.c32"
	cfg, err = k.Config(tree, "i")
	require.NoError(t, err)
	require.Equal(t, "i/vmlinuz-6.9.0-new", cfg.Entries[0].Kernel)
	require.Equal(t, []string{"i/initrd-6.9.0-new"}, cfg.Entries[0].Initrd)
	require.Contains(t, cfg.Entries, old)
	require.Equal(t, []string{k.Default, "ltsp-NFS", "menu.c32"}, []string{cfg.Default, cfg.OnTimeout, cfg.UI})
	require.Equal(t, time.Second, cfg.Timeout)

	k.Prefer = []string{"*-amd64"}
	images, err := k.Find(tree, "i")
	require.NoError(t, err)
	require.Equal(t, "6.1.0-18-amd64", images[0].Version)
	require.Equal(t, KernelImage{Kernel: "i/vmlinuz", Initrd: "i/initrd.img"}, images[len(images)-1])

	delete(tree, "i/vmlinuz-6.1.0-9-amd64")
	_, err = k.Config(tree, "i")
	require.ErrorContains(t, err, "no entry has this label", "a default that is gone must not become another")
	_, err = (&Kernels{}).Config(tree, "i")
	require.Error(t, err)
	_, err = k.Config(tree, "none")
	require.ErrorIs(t, err, fs.ErrNotExist)
	k.Names = []string{"["}
	_, err = k.Config(tree, "i")
	require.Error(t, err)
}

func TestCompareVersions(t *testing.T) {
	for _, pair := range [][2]string{{"6.1.0-9", "6.1.0-18"}, {"6.1", "6.1.1"}, {"6.1~rc1", "6.1"}, {"5.15.0", "6.1"}, {"", "1"}} {
		require.Negative(t, compareVersions(pair[0], pair[1]), pair)
		require.Positive(t, compareVersions(pair[1], pair[0]), pair)
	}
	require.Zero(t, compareVersions("6.01", "6.1"))
}

// A DEFAULT that is no label boots as PXELINUX boots it.
func TestExistingFileCommand(t *testing.T) {
	cfg, left := loadString(t, "SYSAPPEND 2\nDEFAULT vmlinuz ro initrd=i\n").Config("")
	require.Empty(t, left)
	require.Equal(t, []Entry{{Label: cfg.Default, Kernel: "vmlinuz", Initrd: []string{"i"}, Args: []string{"ro"}, SysAppend: 2}}, cfg.Entries)
	cfg, left = loadString(t, "ALLOWOPTIONS 0\nDEFAULT vmlinuz ro\n").Config("")
	require.Empty(t, left)
	require.Empty(t, cfg.Entries[0].Args)
	cfg, left = loadString(t, "IMPLICIT 0\nDEFAULT vmlinuz ro\nLABEL a\nLINUX k\n").Config("")
	require.Nil(t, cfg)
	require.ErrorContains(t, left[0], "IMPLICIT 0")
}

func TestExistingLongError(t *testing.T) {
	text := "DEFAULT z\nLABEL z\n CONFIG z\n" + strings.Repeat("LABEL a\n CONFIG a\nPROMPT 1\n", 10)
	x := &Existing{FS: fstest.MapFS{"pxelinux.cfg/default": {Data: []byte(text)}}, Logger: quiet}
	cfg, err := x.Config(t.Context(), Client{})
	require.NoError(t, err)
	err = cfg.Validate()
	require.ErrorContains(t, err, "and 8 more")
	require.Len(t, strings.Split(err.Error(), "\n"), 5)
}

// TestPXELINUXConfigLongAppend: a long line that is in every entry is not
// copied without end.
func TestPXELINUXConfigLongAppend(t *testing.T) {
	text := "PROMPT 1\nAPPEND " + strings.Repeat("x", 1900) + "\n" + strings.Repeat("LABEL a\nLINUX k\n", 3000)
	cfg, left := loadString(t, text).Config("")
	require.NotEmpty(t, left)
	require.ErrorContains(t, left[0], "more than 4 MiB")
	require.Len(t, cfg.Entries, 3000-len(left))
	require.Less(t, len(cfg.Entries)*1900, maxConfig)
}

// TestExistingLocks: what PXELINUX asks a password for no other loader boots
// without one.
func TestExistingLocks(t *testing.T) {
	const open = "UI menu.c32\nTIMEOUT 50\nLABEL a\n LINUX k\nLABEL e\n LINUX z\n"
	for text, labels := range map[string]string{
		open: "a e",
		open + "LABEL b\n LINUX l\n MENU PASSWD x\n":                                            "a e",
		open + "MENU BEGIN m\nMENU PASSWD x\nLABEL b\n LINUX l\nMENU END\n":                     "a e",
		open + "MENU BEGIN m\nLABEL b\n LINUX l\n MENU PASSWD x\nLABEL c\n LINUX m\nMENU END\n": "a e m",
		open + "DEFAULT b\nLABEL b\n LINUX l\n MENU PASSWD x\n":                                 "",
		open + "DEFAULT b\nMENU BEGIN m\nMENU PASSWD x\nLABEL b\n LINUX l\nMENU END\n":          "",
		open + "ONTIMEOUT b\nMENU BEGIN m\nMENU PASSWD x\nLABEL b\n LINUX l\nMENU END\n":        "",
		open + "MENU BEGIN m\nMENU MASTER PASSWD x\nLABEL b\n LINUX l\nMENU END\n":              "",
		"MENU MASTER PASSWD x\n" + open:                                                         "",
	} {
		x := &Existing{FS: fstest.MapFS{"pxelinux.cfg/default": {Data: []byte(text)}}, Logger: quiet}
		cfg, err := x.Config(t.Context(), Client{Loader: LoaderGRUB})
		require.NoError(t, err)
		var b, own strings.Builder
		require.NoError(t, cfg.WritePXELINUX(&own, Target{}))
		require.Equal(t, text, own.String())
		var got []string
		for _, e := range cfg.Entries {
			got = append(got, e.Label)
		}
		require.Equal(t, labels, strings.Join(got, " "), text)
		if err := cfg.WriteGRUB(&b, Target{}); labels == "" {
			require.ErrorIs(t, err, fs.ErrInvalid, text)
			require.ErrorContains(t, err, "password", text)
			require.ErrorContains(t, cfg.WritePXELINUX(&b, Target{Prefix: "elsewhere/"}), "password", text)
		} else {
			require.NoError(t, err)
		}
		require.NotContains(t, b.String(), "/l'", text)
	}
}

// TestExistingTotalTimeout: it is not forgotten without a word.
func TestExistingTotalTimeout(t *testing.T) {
	x := &Existing{FS: fstest.MapFS{"ltsp/pxelinux.cfg/default": {Data: []byte("PROMPT 1\nTIMEOUT 50\nTOTALTIMEOUT 900\nDEFAULT a\nLABEL a\n LINUX k\nLABEL b\n LOCALBOOT 0\n")}}, Prefix: "ltsp/"}
	for loader, told := range map[Loader]bool{LoaderGRUB: true, LoaderIPXE: true, LoaderPXELINUX: false} {
		var log bytes.Buffer
		x.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		cfg, err := x.Config(t.Context(), Client{Loader: loader})
		require.NoError(t, err)
		require.Equal(t, told, strings.Contains(log.String(), "total timeout"), loader)
		var b strings.Builder
		switch loader {
		case LoaderGRUB:
			require.NoError(t, cfg.WriteGRUB(&b, Target{}))
		case LoaderIPXE:
			require.NoError(t, cfg.WriteIPXE(&b, Target{}))
		default:
			require.NoError(t, cfg.WritePXELINUX(&b, Target{}))
			require.Contains(t, b.String(), "TOTALTIMEOUT 900\n", "started elsewhere, it still has it")
		}
	}
	cfg, left := loadString(t, "UI menu.c32\nTOTALTIMEOUT 900\nLABEL a\n LINUX k\n").Config("")
	require.Empty(t, left)
	require.Equal(t, 90*time.Second, cfg.TotalTimeout, "a Config has it, and GRUB refuses it")
}

// TestExistingMenuProgram: a DEFAULT that shows the menu is what UI is now.
func TestExistingMenuProgram(t *testing.T) {
	tree := fstest.MapFS{"di/menu.cfg": {Data: []byte("menu hshift 7\nmenu title Installer\ninclude di/adm.cfg\n" +
		"label install\n\tmenu label ^Install\n\tmenu default\n\tkernel di/linux\n\tappend vga=788 initrd=di/initrd.gz --- quiet\n" +
		"menu begin advanced\n\tmenu label ^Advanced options\n\tlabel mainmenu\n\t\tmenu label ^Back..\n\t\tmenu exit\n" +
		"label rescue\n\tkernel di/linux\n\tappend rescue/enable=true\nmenu end\n")}}
	want := &Config{Title: "Installer", Default: "install", Timeout: -1, UI: "di/vesamenu.c32", Entries: []Entry{
		{Label: "install", Title: "Install", Hotkey: 'i', Kernel: "di/linux", Initrd: []string{"di/initrd.gz"}, Args: []string{"vga=788", "---", "quiet"}},
		{Label: "advanced", Title: "Advanced options", Hotkey: 'a', Entries: []Entry{{Label: "rescue", Kernel: "di/linux", Args: []string{"rescue/enable=true"}}}},
	}}
	for text, ok := range map[string]bool{
		"path di/\ninclude di/menu.cfg\ndefault di/vesamenu.c32\nprompt 0\ntimeout 0\n":      true,
		"include di/menu.cfg\ndefault menu\nlabel menu\nmenu hide\nkernel di/vesamenu.c32\n": true,
		"include di/menu.cfg\ndefault di/vesamenu.c32 other.cfg\n":                           false,
		"implicit 0\ninclude di/menu.cfg\ndefault di/vesamenu.c32\n":                         false,
		"prompt 1\ninclude di/menu.cfg\ndefault di/vesamenu.c32\n":                           false,
		"include di/menu.cfg\ndefault menu\nlabel menu\nkernel di/vesamenu.c32\n":            false,
		"include di/menu.cfg\ndefault di/hdt.c32\n":                                          false,
	} {
		f := parseString(t, text)
		p, err := f.Load(tree, "")
		require.NoError(t, err)
		cfg, left := p.Config("")
		if !ok {
			require.Nil(t, cfg, text)
			require.NotEmpty(t, left)
			continue
		}
		require.Empty(t, left, text)
		require.Equal(t, want, cfg, text)
		for format, write := range renderAll(cfg, Target{}) {
			_, err := write()
			require.NoError(t, err, format)
		}
	}
}
