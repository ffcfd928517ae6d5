package pxecfg

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"
)

func parseString(t testing.TB, text string) *File {
	f, err := ParseFile("pxelinux.cfg/default", strings.NewReader(text))
	require.NoError(t, err)
	return f
}

// vectorStrings are those of the machine on which the vectors were recorded.
var vectorStrings = SysStrings{
	"ip=192.168.67.21:192.168.67.1:192.168.67.254:255.255.255.0", "BOOTIF=01-00-11-25-84-ce-ba",
	"SYSUUID=b8945908-d6a6-41a9-611d-74a6ab80b83d", "CPU=6PVXL", "SYSVENDOR=ACME  Corp",
}

type vectorMenu struct {
	Menu    string
	Title   string
	Default int
	Entries []vectorEntry
}

type vectorEntry struct {
	Label   *string
	Display string
	Action  Action
	Cmdline *string
	Hotkey  string
	Help    string
	Passwd  string
	Target  string
	Submenu *vectorMenu
}

func TestLoadVectors(t *testing.T) {
	var v struct {
		Cases []struct {
			Name, Config string
			Files        map[string]string
			Parsed       struct {
				DefaultCmd    *string `json:"default_cmd"`
				GlobalDefault *string `json:"global_default"`
				OnTimeout     *string
				OnError       *string
				Prompt        int
				NoEscape      int
				AllowOptions  int
				Implicit      int
				HiddenMenu    bool   `json:"hidden_menu"`
				StartMenu     string `json:"start_menu"`
				Root, Hidden  vectorMenu
				Timeout       int64 `json:"timeout_tenths"`
				TotalTimeout  int64 `json:"totaltimeout_tenths"`
			}
		}
	}
	loadJSON(t, "pxelinux_parse.json", &v)
	require.Equal(t, 48, len(v.Cases))
	for _, c := range v.Cases {
		t.Run(c.Name, func(t *testing.T) {
			f := parseString(t, c.Config)
			require.Equal(t, c.Config, f.String())
			files := fstest.MapFS{}
			for name, text := range c.Files {
				files[name] = &fstest.MapFile{Data: []byte(text)}
			}
			p, err := f.Load(files, "")
			require.NoError(t, err)
			want := c.Parsed
			text := func(s *string) string {
				if s == nil {
					return ""
				}
				return *s
			}
			flag := func(n int) bool { return n != 0 }
			require.Equal(t, text(want.DefaultCmd), p.Command)
			require.Equal(t, text(want.GlobalDefault), p.Default)
			require.Equal(t, text(want.OnTimeout), p.OnTimeout)
			require.Equal(t, text(want.OnError), p.OnError)
			require.Equal(t, want.Prompt, p.Prompt)
			require.Equal(t, flag(want.NoEscape), p.NoEscape)
			require.Equal(t, flag(want.AllowOptions), p.AllowOptions)
			require.Equal(t, flag(want.Implicit), p.Implicit)
			require.Equal(t, want.HiddenMenu, p.HiddenMenu)
			require.Equal(t, want.StartMenu, p.Start.Tag)
			require.EqualValues(t, want.Timeout, p.Timeout.Milliseconds()/100)
			require.EqualValues(t, want.TotalTimeout, p.TotalTimeout.Milliseconds()/100)
			require.Equal(t, want.Root, asVector(p.Top))
			require.Equal(t, want.Hidden, asVector(p.Hidden))
		})
	}
}

func asVector(m *Menu) vectorMenu {
	v := vectorMenu{Menu: m.Tag, Title: m.Title, Default: m.Default, Entries: []vectorEntry{}}
	for _, e := range m.Entries {
		x := vectorEntry{Display: e.Display, Action: e.Action, Help: e.Help, Passwd: e.Password}
		if e.labelled {
			x.Label = &e.Label
		}
		if e.Action == ActionCommand {
			line := e.CommandLine(vectorStrings)
			x.Cmdline = &line
		}
		if e.Hotkey != 0 {
			x.Hotkey = string(e.Hotkey)
		}
		switch e.Action {
		case ActionSubmenu:
			sub := asVector(e.Target)
			x.Submenu = &sub
		case ActionGoto, ActionExit:
			x.Target = e.Target.Tag
		}
		v.Entries = append(v.Entries, x)
	}
	return v
}

// loadString reads a configuration that includes nothing.
func loadString(t testing.TB, text string) *PXELINUX {
	p, err := parseString(t, text).Load(nil, "")
	require.NoError(t, err)
	return p
}

// TestLoadRules has what the recorded cases leave out.
func TestLoadRules(t *testing.T) {
	line := func(text string) string { return loadString(t, text).Entries()[0].CommandLine(vectorStrings) }
	require.Equal(t, "k", line("LABEL a\n KERNEL k\n APPEND -\n"))
	require.Equal(t, "k - ", line("LABEL a\n KERNEL k\n APPEND - \n"), "exactly -")
	require.Equal(t, "k initrd=", line("LABEL a\n KERNEL k\n INITRD\n"))
	require.Equal(t, "a BOOTIF=01-00-11-25-84-ce-ba", line("SYSAPPEND 2\nLABEL a\nSYSAPPEND 0x2"), "a default for later labels")
	require.Equal(t, "a", line("SYSAPPEND 2\nLABEL a\nIPAPPEND 0\n"))
	require.Equal(t, ".none k", line("LABEL a\nNONE k\n"))
	require.Equal(t, "\x02k x", line("LABEL a\n\bKERNEL\x02k\n\xa0APPEND x\x00 y\n"), "what ends a word is not always passed over, and NUL ends a line")
	require.Equal(t, "a", line("LABEL a\x7fb\n\x01KERNEL k\n"), "DEL ends a word, but no line begins with a control character")
	require.Equal(t, "a SYSVENDOR=\xc3\xa4_b", loadString(t, "LABEL a\nSYSAPPEND 0x10\n").Entries()[0].CommandLine(SysStrings{4: "SYSVENDOR=\xc3\xa4 \x7f b\x01"}))

	p := loadString(t, "DEFAULT b x\nLABEL a\nLABEL b\n KERNEL k\n APPEND ro\n")
	require.Equal(t, "k ro x", p.Resolve(p.Default, SysStrings{}))
	require.Equal(t, "k ro", p.Resolve("b \t", SysStrings{}))
	require.Equal(t, "none at all", p.Resolve("none at all", SysStrings{}))
	require.Nil(t, p.Lookup("B"), "labels are case-sensitive")

	// A command that is no label has the strings of the global SYSAPPEND, in
	// which only ASCII counts.
	p = loadString(t, "SYSAPPEND 0x12\nLABEL a\nMENU DISABLE\nLABEL q\nMENU QUIT\nLABEL e\nKERNEL\n")
	strs := SysStrings{1: "BOOTIF=01-00", 4: "SYSVENDOR=\xc3\xa4x"}
	require.Equal(t, "k x BOOTIF=01-00 SYSVENDOR=_x", p.Resolve("k x", strs))
	require.Equal(t, "menu.c32 x", p.Resolve("menu.c32 x", strs))
	require.Empty(t, p.Resolve("q x", strs))
	require.Equal(t, " BOOTIF=01-00 SYSVENDOR=\xc3\xa4x x", p.Resolve("e  x", strs))
	require.Equal(t, "k", loadString(t, "ALLOWOPTIONS 0\n").Resolve("k x", strs))
	require.Empty(t, loadString(t, "IMPLICIT 0\nSYSAPPEND 2\n").Resolve("k x", strs))

	// An empty file is a missing one: there is no menu.
	p, err := parseString(t, "MENU INCLUDE empty tag\nTIMEOUT -5\nTOTALTIMEOUT -5\n").Load(fstest.MapFS{"empty": {}}, "")
	require.NoError(t, err)
	require.Empty(t, p.Top.Entries)
	require.ErrorIs(t, p.Missing[0].Err, fs.ErrNotExist)
	require.Zero(t, p.Timeout+p.TotalTimeout)

	// A later menu hides an earlier one of the same tag.
	p = loadString(t, "MENU BEGIN m\nMENU END\nMENU BEGIN m\nMENU TITLE two\nMENU END\nLABEL g\nMENU GOTO m\nLABEL q\nMENU QUIT\n")
	require.Equal(t, "two", p.Lookup("g").Target.Title)
	require.Equal(t, ActionQuit, p.Lookup("q").Action)
	require.Empty(t, p.Lookup("q").CommandLine(SysStrings{}))

	// DEFAULT naming an entry of a submenu starts there; a hidden one does not.
	p = loadString(t, "DEFAULT x\nMENU BEGIN m\nLABEL w\nLABEL x\nMENU END\n")
	require.Equal(t, "m", p.Start.Tag)
	require.Equal(t, 1, p.Start.Default)
	require.Equal(t, ".top", loadString(t, "DEFAULT x\nLABEL x\nMENU HIDE\n").Start.Tag)

	// An included file that leaves a menu open.
	files := fstest.MapFS{"d/i": {Data: []byte("MENU BEGIN m\nLABEL i\n")}}
	p, err = parseString(t, "INCLUDE i\nLABEL z\n").Load(files, "d/")
	require.NoError(t, err)
	require.Equal(t, "m", p.Top.Entries[0].Target.Tag)
	require.Equal(t, ".top", p.Lookup("i").Menu.Tag, "the file after it goes on in its own menu, and records there")
	require.Equal(t, "m", p.Lookup("z").Menu.Tag, "the last entry goes where reading ended")
}

func TestKernelLine(t *testing.T) {
	for _, c := range []struct {
		text, want string
		initrds    []string
	}{
		{"LABEL a\n KERNEL k   x\n APPEND ro initrd=i,j y\n IPAPPEND 2\n", "BOOT_IMAGE=k x ro initrd=i,j y BOOTIF=01-00-11-25-84-ce-ba", []string{"i", "j"}},
		{"LABEL a\n LINUX k-6.0\n INITRD i\n SYSAPPEND 16\n", "BOOT_IMAGE=k-6.0 initrd=i SYSVENDOR=ACME_Corp", []string{"i"}},
		{"LABEL a\n KERNEL k\n APPEND initrd=i\n INITRD j\n", "BOOT_IMAGE=k initrd=i initrd=j", []string{"i"}},
		{"LABEL a\n KERNEL k-6.0\n", "", nil},
		{"LABEL a\n KERNEL\n APPEND x\n", "BOOT_IMAGE= x", nil},
		{"LABEL a\n LINUX\n APPEND \x01k-6.0 x\n", "BOOT_IMAGE=k-6.0 x", nil},
		{"LABEL a\n KERNEL .linux k-6.0 x\n", "BOOT_IMAGE=k-6.0 x", nil},
		{"LABEL a\n LINUX .kernel k.c32\n", "BOOT_IMAGE=k.c32 ", nil},
		{"LABEL a\n KERNEL .com32 menu x\n", "", nil},
		{"LABEL a\n COMBOOT .linux k\n", "", nil},
		// Only ISOLINUX has a loader of images: these are kernels.
		{"LABEL a\n KERNEL k.img\n APPEND ro initrd=i.img\n", "BOOT_IMAGE=k.img ro initrd=i.img", []string{"i.img"}},
		{"LABEL a\n FDIMAGE k-6.0\n APPEND ro\n", "BOOT_IMAGE=k-6.0 ro", nil},
		{"LABEL a\n BOOT k\n APPEND ro\n", "", nil},
		{"LABEL a\n PXE k\n APPEND ro\n", "", nil},
		{"LABEL a\n KERNEL k.c32\n", "", nil},
		{"LABEL a\n LOCALBOOT 0\n", "", nil},
	} {
		e := loadString(t, c.text).Entries()[0]
		line, ok := e.KernelLine(vectorStrings)
		require.Equal(t, c.want != "", ok, c.text)
		require.Equal(t, c.want, line, c.text)
		require.Equal(t, c.initrds, e.Initrds(), c.text)
	}
	for file, want := range map[string]string{"a.c32": "com32", "a.img": "linux", "a.bss": "bss", "a.bin": "boot", "a.bs": "boot", "a.0": "pxe", "a": "linux", "a.C32": "linux"} {
		require.Equal(t, want, loadString(t, "LABEL l\nKERNEL "+file+" x\n").Entries()[0].ImageType(), file)
	}
}

func TestSysStrings(t *testing.T) {
	c := Client{MAC: net.HardwareAddr{0, 0x11, 0x25, 0x84, 0xce, 0xba}, IP: netip.MustParseAddr("192.168.67.21"), UUID: "b8945908-d6a6-41a9-611d-74a6ab80b83d"}
	s := c.SysStrings(netip.MustParseAddr("192.168.67.1"), netip.MustParseAddr("192.168.67.254"), netip.MustParseAddr("255.255.255.0"))
	require.Equal(t, vectorStrings[:3], s[:3])
	require.Equal(t, SysStrings{}, Client{UUID: "00000000-0000-0000-0000-000000000000"}.SysStrings(netip.Addr{}, netip.Addr{}, netip.Addr{}))
}

func TestIncludeLimits(t *testing.T) {
	var syntax *SyntaxError
	files := fstest.MapFS{"self": {Data: []byte("\n INCLUDE self\n")}}
	_, err := parseString(t, "INCLUDE self\n").Load(files, "")
	require.ErrorAs(t, err, &syntax)
	require.ErrorIs(t, err, fs.ErrInvalid)
	require.Equal(t, "self:2:10", strings.Join(strings.SplitN(err.Error(), ":", 4)[:3], ":"))

	// Sixteen are fine, and files that multiply end.
	for i := range 20 {
		files[fmt.Sprint("n", i)] = &fstest.MapFile{Data: fmt.Appendf(nil, "INCLUDE n%d\nINCLUDE n%d\nLABEL l%d\n", i+1, i+1, i)}
	}
	files["n15"] = &fstest.MapFile{Data: []byte(strings.Repeat("APPEND x\n", 1000))}
	_, err = parseString(t, "INCLUDE n0\n").Load(files, "")
	require.ErrorAs(t, err, &syntax)
	for i := range 14 {
		files[fmt.Sprint("o", i)] = &fstest.MapFile{Data: fmt.Appendf(nil, "INCLUDE o%d\n", i+1)}
	}
	files["o14"] = &fstest.MapFile{Data: []byte("LABEL deep\n")}
	p, err := parseString(t, "INCLUDE o0\n").Load(files, "")
	require.NoError(t, err)
	require.NotNil(t, p.Lookup("deep"))
	_, err = ParseFile("big", io.LimitReader(zeros{}, maxConfig+1))
	require.ErrorAs(t, err, &syntax)
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestEdit(t *testing.T) {
	const text = "# head\r\nDEFAULT a\r\n\r\nLABEL a\r\n\tKERNEL k # x\r\n\tappend  ro\r\n\r\nLABEL b\r\n  KERNEL k"
	f := parseString(t, text)
	require.NoError(t, f.Set("a", "APPEND", "rw quiet"))
	require.NoError(t, f.Set("a", "IPAPPEND", "2"))
	require.NoError(t, f.Set("b", "APPEND", "x"))
	require.NoError(t, f.Set("", "DEFAULT", "b"))
	require.NoError(t, f.Set("", "TIMEOUT", "50"))
	require.Equal(t, "# head\r\nDEFAULT b\r\nTIMEOUT 50\r\n\r\nLABEL a\r\n\tKERNEL k # x\r\n\tappend  rw quiet\r\n\tIPAPPEND 2\r\n\r\nLABEL b\r\n  KERNEL k\n  APPEND x\n", f.String())
	require.NoError(t, f.Set("a", "sysappend", "3"))
	require.Contains(t, f.String(), "\tIPAPPEND 3\r\n")
	require.NoError(t, f.Unset("a", "sysappend"))
	require.NotContains(t, f.String(), "IPAPPEND")
	require.NoError(t, f.AddEntry("c"))
	require.NoError(t, f.Set("c", "LINUX", "k3"))
	require.True(t, strings.HasSuffix(f.String(), "LABEL c\n  LINUX k3\n"), f.String())
	require.NoError(t, f.RemoveEntry("b"))
	require.Equal(t, "# head\r\nDEFAULT b\r\nTIMEOUT 50\r\n\r\nLABEL a\r\n\tKERNEL k # x\r\n\tappend  rw quiet\r\n\r\nLABEL c\n  LINUX k3\n", f.String())

	require.ErrorIs(t, f.Set("b", "APPEND", "x"), fs.ErrNotExist)
	require.ErrorIs(t, f.Unset("b", "APPEND"), fs.ErrNotExist)
	require.ErrorIs(t, f.RemoveEntry("b"), fs.ErrNotExist)
	require.ErrorIs(t, f.RemoveEntry(""), fs.ErrInvalid)
	require.ErrorIs(t, f.AddEntry("c"), fs.ErrExist)
	require.ErrorIs(t, f.AddEntry("c d"), fs.ErrInvalid)
	for _, bad := range []string{"a\nb", " a", "a\rb", strings.Repeat("x", 5000)} {
		require.ErrorIs(t, f.Set("a", "APPEND", bad), fs.ErrInvalid, bad)
	}
	require.ErrorIs(t, f.Set("a", "NOTHING", "x"), fs.ErrInvalid)
	require.ErrorIs(t, f.Set("a", "LABEL", "x"), fs.ErrInvalid)
	require.ErrorIs(t, parseString(t, "LABEL a\nTEXT HELP\n").Set("a", "APPEND", "x"), fs.ErrInvalid)
}

func FuzzParseFile(f *testing.F) {
	for _, s := range []string{
		"DEFAULT a\nLABEL a\n KERNEL k\n APPEND initrd=i ro\n IPAPPEND 3\n", "MENU BEGIN x\nLABEL b\nMENU EXIT\nMENU END\nMENU GOTO x\n",
		"INCLUDE self\nMENU INCLUDE self t\n", "TEXT HELP\nx\nENDTEXT\nF1 a b\nf0\n", "UI menu.c32\r\nPROMPT\x00 1\nlabel\n", existingText,
		"LABEL a\nMENU LABEL ^x\nMENU INDENT 9\nMENU SEPARATOR\nMENU HIDE\nSYSAPPEND 0x\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1<<16 {
			return
		}
		file := parseString(t, text)
		require.Equal(t, text, file.String())
		tree := fstest.MapFS{"self": {Data: []byte(text)}, "pxelinux.cfg/default": {Data: []byte(text)}}
		for _, finding := range Lint(file, tree, "") {
			require.Positive(t, finding.Line)
			require.Positive(t, finding.Col)
		}
		p, err := file.Load(tree, "")
		if err != nil {
			var syntax *SyntaxError
			require.ErrorAs(t, err, &syntax)
			return
		}
		for i, e := range p.Entries() {
			if i == 100 {
				break // Lookup goes through all of them
			}
			e.KernelLine(vectorStrings)
			if e.labelled {
				require.NotNil(t, p.Lookup(e.Label))
			}
		}
		if cfg, _ := p.Config(""); cfg != nil {
			// What is said to be expressible has a rendering that PXELINUX
			// reads as the same, unless it is too long.
			var b bytes.Buffer
			if cfg.WritePXELINUX(&b, Target{}) == nil {
				again, err := parseString(t, b.String()).Load(nil, "")
				require.NoError(t, err)
				back, left := again.Config("")
				require.Empty(t, left)
				require.Equal(t, effective(cfg), effective(back))
			}
		}
		if file.Set("a", "append", "x=1") == nil {
			e := parseString(t, file.String())
			p, err := e.Load(nil, "")
			require.NoError(t, err)
			if a := p.Lookup("a"); a != nil && a.Action == ActionCommand {
				require.Equal(t, "x=1", a.Append)
			}
		}
	})
}

// effective is what remains of a Config when PXELINUX has read it.
func effective(c *Config) Config {
	first := c.first()
	e := Config{Default: first.Label, OnError: c.OnError, Entries: c.Entries}
	if c.isMenu() {
		e.Title, e.UI, e.Timeout, e.OnTimeout = c.Title, c.UI, c.Timeout, c.onTimeout(first)
		if e.Timeout == 0 {
			e.Timeout = DefaultTimeout
		}
		e.Timeout = min(e.Timeout, 24*time.Hour)
		return e
	}
	only := func(e Entry, hidden bool) Entry { e.Hotkey, e.Hidden = 0, hidden; return e }
	e.Entries = []Entry{only(*first, false)}
	if onError := find(c.Entries, c.OnError); onError != nil && onError != first {
		e.Entries = append(e.Entries, only(*onError, true))
	}
	return e
}

func TestRenderedIsReadBack(t *testing.T) {
	cfg := &Config{Title: "Menu", UI: "menu.c32", Default: "b", Timeout: 3 * time.Second, Entries: []Entry{
		{Label: "a", Title: "A a", Kernel: "x/vmlinuz-6.0", Initrd: []string{"x/i", "http://192.0.2.1/j"}, Args: []string{"ro", `a=b c`, "-"}, SysAppend: 3},
		{Label: "b", LocalBoot: true}, {Label: "c", Chain: "undionly.kpxe"}, {Label: "d", Title: "D", Chain: "x/grub.efi"},
	}}
	for _, prefix := range []string{"", "x/", "ltsp/my_"} {
		for _, n := range []int{4, 1} {
			c := *cfg
			if c.Entries = cfg.Entries[:n]; n == 1 {
				c.Default = ""
			}
			var b bytes.Buffer
			require.NoError(t, c.WritePXELINUX(&b, Target{Prefix: prefix}))
			p, err := parseString(t, b.String()).Load(nil, prefix)
			require.NoError(t, err)
			back, left := p.Config(prefix)
			require.Empty(t, left)
			require.Equal(t, effective(&c), effective(back), b.String())
		}
	}
}

// bigConfig has n entries, nested and with help.
func bigConfig(n int) string {
	var b strings.Builder
	b.WriteString("UI menu.c32\nAPPEND quiet\n")
	for i := range n {
		fmt.Fprintf(&b, "LABEL l%d\n MENU LABEL ^Entry %d\n LINUX vmlinuz-%d\n INITRD i\n APPEND ro root=/dev/nbd0\n IPAPPEND 2\nTEXT HELP\nhelp\nENDTEXT\n", i, i, i)
	}
	return b.String()
}

func BenchmarkLoad(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			text := bigConfig(n)
			b.ReportAllocs()
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				f := &File{}
				f.parse(text)
				if p, err := f.Load(nil, ""); err != nil || len(p.Entries()) != n {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkLint(b *testing.B) {
	f := &File{}
	f.parse(bigConfig(100))
	b.ReportAllocs()
	for b.Loop() {
		Lint(f, nil, "")
	}
}

func TestLoadMenuWords(t *testing.T) {
	p := loadString(t, `MENU MASTER PASSWD m
MENU HIDDEN
MENU ONERROR again
MENU BEGIN sub
MENU PASSWD p
MENU DEFAULT
MENU START
LABEL a
MENU EXIT .top
LABEL b
MENU EXIT nowhere
LABEL c
MENU DEFAULT
LABEL d
MENU DISABLED
MENU END
LABEL e
MENU EXIT
NOCOMPLETE 1
ONERROR b
TOTALTIMEOUT 99999999999999999999
F1 help.txt back.png
`)
	require.Equal(t, "m", p.Top.MasterPassword)
	require.True(t, p.HiddenMenu)
	require.True(t, p.NoComplete)
	require.Equal(t, "b", p.OnError)
	require.Positive(t, p.TotalTimeout)
	sub := p.Start
	require.Equal(t, []string{"sub", "m", "again"}, []string{sub.Tag, sub.MasterPassword, sub.OnError})
	require.Equal(t, "b", p.Top.OnError)
	require.Equal(t, "p", p.Top.Entries[0].Password)
	require.Equal(t, 0, p.Top.Default)
	require.Equal(t, 2, sub.Default)
	require.Same(t, p.Top, p.Lookup("a").Target)
	require.Equal(t, ActionDisabled, p.Lookup("b").Action)
	require.Nil(t, p.Lookup("d"), "what is disabled has no name")
	require.Equal(t, ActionCommand, p.Lookup("e").Action, "there is nothing to leave at the top")

	for text, want := range map[string]string{
		"F1 x": "f1", "f 12 x": "f12", "F0": "f11", "f": "f11", "F13": "", "F1x": "", "F x": "", "F- x": "f11", "F-1": "", "F4294967297": "f1", "\x01label": "", "\xa0label": "label", "label\x7f": "label", "FONT x": "font", "MENU": "", "menu colour x": "menu color",
		"text\thelp": "text help", "TEXT other": "text", "IPAPPEND 1": "sysappend", "# x": "", "menu disabled": "menu disable", "Disabled": "",
	} {
		l := parseString(t, text).Lines()
		require.Equal(t, want, l[0].Keyword, text)
		require.Equal(t, text, l[0].String())
	}
}
