package pxecfg

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func renderAll(c *Config, t Target) map[string]func() (string, error) {
	run := func(write func(*bytes.Buffer) error) func() (string, error) {
		return func() (string, error) {
			var b bytes.Buffer
			err := write(&b)
			return b.String(), err
		}
	}
	grub := func() (string, error) {
		text, err := run(func(b *bytes.Buffer) error { return c.WriteGRUB(b, t) })()
		if err == nil {
			grubSeen(text)
		}
		return text, err
	}
	return map[string]func() (string, error){
		"PXELINUX": run(func(b *bytes.Buffer) error { return c.WritePXELINUX(b, t) }),
		"iPXE":     run(func(b *bytes.Buffer) error { return c.WriteIPXE(b, t) }),
		"GRUB":     grub,
	}
}

func one(e Entry) *Config {
	e.Label = "x"
	return &Config{Entries: []Entry{e}}
}

// TestCannotBeWritten: what a loader would change is an error there, and only
// there, and it names the entry and the argument.
func TestCannotBeWritten(t *testing.T) {
	long := strings.Repeat("a", 2048)
	everywhere := "PXELINUX iPXE GRUB"
	for _, tt := range []struct {
		entry   Entry
		refused string
		names   string
	}{
		{Entry{Kernel: "k", Args: []string{"a;b", "$x", "{y}", "a|b", "<>", "&", "(z)", "%41", "é"}}, "iPXE", "é"},
		{Entry{Kernel: "k", Args: []string{"${mac}"}}, "iPXE", "${mac}"},
		{Entry{Kernel: "k", Args: []string{"||"}}, "iPXE", "||"},
		{Entry{Kernel: "k", Args: []string{"a=b && c"}}, "iPXE", "a=b && c"},
		{Entry{Kernel: "k", Args: []string{";"}}, "iPXE", ";"},
		{Entry{Kernel: "k", Args: []string{"#x"}}, "iPXE", "#x"},
		{Entry{Kernel: "k", Args: []string{"a=b  c"}}, "iPXE", "a=b  c"},
		{Entry{Kernel: "k", Args: []string{"-"}}, "PXELINUX", "-"},
		{Entry{Kernel: "k", Args: []string{"it's"}}, "GRUB", "it's"},
		{Entry{Kernel: "k", Args: []string{`a\b`}}, "GRUB", `a\b`},
		{Entry{Kernel: "k", Args: []string{`a={"b":1}`}}, "GRUB", `a={"b":1}`},
		{Entry{Kernel: "k", Args: []string{`a="b"`}}, everywhere, `a="b"`},
		{Entry{Kernel: "k", Args: []string{`a=b"`}}, everywhere, `a=b"`},
		{Entry{Kernel: "k", Args: []string{`a b"c`}}, everywhere, `a b"c`},
		{Entry{Kernel: "k", Args: []string{""}}, everywhere, ""},
		{Entry{Kernel: "k", Args: []string{"a\nb"}}, everywhere, "a\nb"},
		{Entry{Kernel: "k", Args: []string{"a\tb"}}, everywhere, "a\tb"},
		{Entry{Kernel: "k", Args: []string{"initrd=x"}}, everywhere, "initrd=x"},
		{Entry{Kernel: "k", Args: []string{"rd.initrd=x"}}, "PXELINUX", "rd.initrd=x"},
		{Entry{Kernel: "initrd=k", Initrd: []string{"i"}}, "PXELINUX", "initrd=k"},
		{Entry{Kernel: "k", Initrd: []string{"initrd=i"}}, "", ""},
		{Entry{Kernel: "k", Args: []string{`a=b\`}}, "GRUB", `a=b\`},
		{Entry{Kernel: "k", Args: []string{long}}, everywhere, long[:20]},
		{Entry{Kernel: "k", Initrd: []string{"a,b"}}, "PXELINUX", "a,b"},
		{Entry{Kernel: "a::b"}, "PXELINUX", "a::b"},
		{Entry{Kernel: strings.Repeat("d/", 128) + "k"}, "PXELINUX", "d/d/"},
		{Entry{Kernel: "../k"}, everywhere, "../k"},
		{Entry{Kernel: "a b"}, everywhere, "a b"},
		{Entry{Kernel: "k", Initrd: []string{""}}, everywhere, ""},
		{Entry{Kernel: "https://h/k"}, "GRUB", "https://h/k"},
		{Entry{Kernel: "http://"}, everywhere, "http://"},
		{Entry{Kernel: "k", Title: "a\nb"}, everywhere, "a\nb"},
		{Entry{Kernel: "k", Title: "Büro"}, "", ""},
		{Entry{Kernel: "k", Title: "a^b"}, "PXELINUX", "a^b"},
		{Entry{Kernel: "k", Title: "--users x"}, "GRUB", "--users x"},
		{Entry{Kernel: "k", SysAppend: 1}, "GRUB", "0x1"},
		{Entry{Kernel: "k", SysAppend: 0x40}, "iPXE GRUB", "0x40"},
		{Entry{Kernel: "k", LocalBoot: true}, everywhere, ""},
		{Entry{LocalBoot: true, Args: []string{"x"}}, everywhere, ""},
		{Entry{}, everywhere, ""},
		{Entry{Kernel: "k", Root: NBDDracut{}}, everywhere, "server"},
	} {
		for format, render := range renderAll(one(tt.entry), Target{}) {
			text, err := render()
			if !strings.Contains(tt.refused, format) {
				require.NoError(t, err, "%s %+v", format, tt.entry)
				continue
			}
			require.ErrorIs(t, err, fs.ErrInvalid, "%s %+v", format, tt.entry)
			require.ErrorContains(t, err, `"x"`)
			require.ErrorContains(t, err, strings.Trim(fmt.Sprintf("%q", tt.names), `"`))
			require.Empty(t, text, "nothing is written before everything is known to fit")
		}
	}
}

func TestConfigRefuses(t *testing.T) {
	ok := Entry{Label: "x", Kernel: "k"}
	for reason, c := range map[string]*Config{
		"at least one":            {},
		"no entry has this label": {Default: "y", Entries: []Entry{ok}},
		"another entry has it":    {Entries: []Entry{ok, ok}},
		"a label is made of":      {Entries: []Entry{{Label: "a b", Kernel: "k"}}},
		"a label is made of up":   {Entries: []Entry{{Label: strings.Repeat("a", 256), Kernel: "k"}}},
		"longer than 255":         {Title: strings.Repeat("a", 256), Entries: []Entry{ok}},
		"longer than 255 bytes":   {Entries: []Entry{{Label: "a", Title: strings.Repeat("a", 4200) + " LABEL b", Kernel: "k"}}},
		"does not begin with -":   {Entries: []Entry{{Label: "-a", Kernel: "k"}}},
		"control character":       {Title: "a\x1bb", Entries: []Entry{ok}},
		"repeated spaces":         {Title: "a  b", Entries: []Entry{ok}},
		"a path in the boot tree": {UI: "/a/../b", Entries: []Entry{ok}},
	} {
		for format, render := range renderAll(c, Target{}) {
			_, err := render()
			require.ErrorIs(t, err, fs.ErrInvalid, format)
			require.ErrorContains(t, err, reason, format)
		}
	}
}

// The long limit counts what the loader adds.
func TestCommandLineLimit(t *testing.T) {
	fits := func(n int, mask uint32) error {
		c := one(Entry{Kernel: "k", Args: []string{strings.Repeat("a", n)}, SysAppend: mask})
		return c.WritePXELINUX(&bytes.Buffer{}, Target{})
	}
	room := MaxCommandLine - len("BOOT_IMAGE=k ")
	require.NoError(t, fits(room, 0))
	require.Error(t, fits(room+1, 0))
	require.Error(t, fits(room, 2))
	require.NoError(t, fits(room-sysAppendLen(3), 3))
}

// iPXE joins a line that ends in a backslash with the next one.
func TestIPXEContinuation(t *testing.T) {
	two := []Entry{{Label: "a", Kernel: "k"}, {Label: "b", Kernel: "k", Title: `b\`}}
	for _, c := range []*Config{{Entries: two}, {Title: `a\`, Entries: two[:1:1]}} {
		c.Entries = append(c.Entries, Entry{Label: "c", Kernel: "k"})
		require.ErrorContains(t, c.WriteIPXE(&bytes.Buffer{}, Target{}), "joins it with the next")
		require.NoError(t, c.WritePXELINUX(&bytes.Buffer{}, Target{}))
		require.NoError(t, c.WriteGRUB(&bytes.Buffer{}, Target{}))
	}
}

func TestTimeouts(t *testing.T) {
	c := &Config{Entries: []Entry{{Label: "a", Kernel: "k"}, {Label: "b", LocalBoot: true}}}
	for timeout, want := range map[time.Duration][3]string{
		0:                       {"TIMEOUT 50\n", "--timeout 5000 ", "timeout=5\n"},
		1:                       {"TIMEOUT 1\n", "--timeout 1 ", "timeout=1\n"},
		1500 * time.Millisecond: {"TIMEOUT 15\n", "--timeout 1500 ", "timeout=2\n"},
		-1:                      {"", "", "timeout=-1\n"},
	} {
		c.Timeout = timeout
		all := renderAll(c, Target{})
		for i, format := range []string{"PXELINUX", "iPXE", "GRUB"} {
			text, err := all[format]()
			require.NoError(t, err)
			if want[i] != "" {
				require.Contains(t, text, want[i])
			} else {
				require.NotContains(t, text, []string{"TIMEOUT", "choose --timeout"}[i])
			}
		}
	}
}

func TestPaths(t *testing.T) {
	path := func(f func(string) (string, string), p string) string {
		s, reason := f(p)
		require.Empty(t, reason)
		return s
	}
	ltsp := Target{Prefix: "ltsp/amd64/"}
	require.Equal(t, "vmlinuz", path(ltsp.pxelinux, "ltsp/amd64/vmlinuz"))
	require.Equal(t, "vmlinuz", path(ltsp.pxelinux, "/ltsp/amd64/vmlinuz"))
	require.Equal(t, "::debian/vmlinuz", path(ltsp.pxelinux, "debian/vmlinuz"))
	require.Equal(t, "debian/vmlinuz", path(Target{}.pxelinux, "/debian/vmlinuz"))
	require.Equal(t, "http://h/k", path(ltsp.pxelinux, "http://h/k"))
	ltsp.BaseURL = "http://192.0.2.1/boot/"
	require.Equal(t, "http://192.0.2.1/boot/debian/vmlinuz", path(ltsp.pxelinux, "debian/vmlinuz"))
	require.Equal(t, "http://192.0.2.1/boot/debian/vmlinuz", path(ltsp.ipxe, "debian/vmlinuz"))
	require.Equal(t, "/debian/vmlinuz", path(Target{Prefix: "x/"}.ipxe, "debian/vmlinuz"))
	require.Equal(t, "/a%3Fb%23c%25%C3%A9", path(Target{}.ipxe, "a?b#c%é"))
	require.Equal(t, "/debian/vmlinuz", path((&grubWriter{}).path, "debian/vmlinuz"))
	require.Equal(t, "/boot/debian/vmlinuz", path((&grubWriter{base: "/boot"}).path, "debian/vmlinuz"))
	require.Equal(t, "(http,192.0.2.1:8080)/k?x=1", path((&grubWriter{}).path, "http://192.0.2.1:8080/k?x=1"))
	require.Equal(t, "(tftp,192.0.2.1)/k", path((&grubWriter{}).path, "tftp://192.0.2.1/k"))
}

// menuConfig has one of everything.
func menuConfig() *Config {
	return &Config{
		Title: "It's a menu", Default: "deb",
		Entries: []Entry{
			{Label: "deb", Title: "Debian 12; it's {x} $y", Kernel: "debian/vmlinuz-6.1.0", Initrd: []string{"debian/a.img", "b.img"},
				Args: []string{"quiet", "a;b", "$x", "{y}", "p|q", "<>", "&", "(z)", "c=d e", "z#"}, SysAppend: 2},
			{Label: "bare", Kernel: "k"},
			{Label: "local", LocalBoot: true},
			{Label: "chain", Chain: "ipxe.efi"},
			{Label: "memtest", Chain: "http://192.0.2.1/memtest"},
		},
	}
}

var testMAC = net.HardwareAddr{0x52, 0x54, 0, 0x12, 0x34, 0x56}

func grubCheck(t testing.TB, tool, text string) {
	t.Helper()
	file := t.TempDir() + "/grub.cfg"
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	out, err := exec.Command(tool, file).CombinedOutput()
	require.NoError(t, err, "%s\n%s", out, text)
}

func TestGRUBScriptCheck(t *testing.T) {
	tool := need(t, "grub-script-check")[0]
	for _, c := range []*Config{menuConfig(), LocalDisk(), one(Entry{Kernel: "k", Args: []string{";{}|<>&$()*?[]!%#^`"}})} {
		text, err := renderAll(c, Target{Client: Client{MAC: testMAC}})["GRUB"]()
		require.NoError(t, err)
		grubCheck(t, tool, text)
	}
	// What the quotes are there for: the tool would see it.
	cmd := exec.Command(tool)
	cmd.Stdin = strings.NewReader("linux /k a{b} |c\n")
	require.Error(t, cmd.Run())
}

// The readers below take a rendering apart as the loader does, up to the line
// that reaches the kernel.

func readPXELINUX(t testing.TB, text string) (kernel string, initrds []string, line string) {
	require.NotContains(t, text, "\r")
	for _, l := range strings.Split(text, "\n") {
		keyword, rest, _ := strings.Cut(strings.TrimLeft(l, " "), " ")
		switch keyword {
		case "LINUX":
			kernel = rest
		case "INITRD":
			initrds = strings.Split(rest, ",")
		case "APPEND":
			if line = rest; line == "-" {
				line = ""
			}
		case "DEFAULT", "PROMPT", "TIMEOUT", "LABEL", "MENU", "IPAPPEND", "":
		default:
			t.Fatalf("unexpected line %q", l)
		}
	}
	return
}

func readIPXE(t testing.TB, text string) (kernel string, initrds []string, line string) {
	lines := strings.Split(text, "\n")
	require.Equal(t, "#!ipxe", lines[0])
	for _, l := range lines[1:] {
		require.False(t, strings.HasSuffix(l, `\`), "it would join the next line")
		tokens := strings.Fields(l)
		var argv []string
		for _, tok := range tokens {
			if strings.HasPrefix(tok, "#") || tok == "||" || tok == "&&" || tok == ";" {
				break
			}
			require.NotContains(t, strings.ReplaceAll(tok, "${platform}", ""), "${")
			argv = append(argv, tok)
		}
		if len(argv) == 0 {
			continue
		}
		switch argv[0] {
		case "kernel":
			require.Equal(t, []string{"||", "goto", "failed-x"}, tokens[len(argv):])
			kernel = argv[1]
			args := argv[2:]
			for len(args) > 0 && strings.HasPrefix(args[0], "initrd=") {
				args = args[1:]
			}
			line = strings.Join(args, " ")
		case "initrd":
			require.Equal(t, []string{"||", "goto", "failed-x"}, tokens[len(argv):])
			initrds = append(initrds, argv[3])
		}
	}
	return
}

func readGRUB(t testing.TB, text string) (kernel string, initrds []string, line string) {
	for _, l := range strings.Split(text, "\n") {
		l = strings.TrimLeft(l, "\t")
		rest, ok := strings.CutPrefix(l, "if ")
		if !ok {
			continue
		}
		command, rest, _ := strings.Cut(rest, " ")
		var words []string
		for strings.HasPrefix(rest, "'") {
			var word strings.Builder
			for {
				var part string
				part, rest, ok = strings.Cut(rest[1:], "'")
				require.True(t, ok, "open quote in %q", l)
				word.WriteString(part)
				if !strings.HasPrefix(rest, `\''`) {
					break
				}
				word.WriteByte('\'')
				rest = rest[2:]
			}
			words = append(words, word.String())
			rest = strings.TrimPrefix(rest, " ")
		}
		require.Equal(t, "; then", rest)
		if command == "initrd" {
			initrds = words
			continue
		}
		kernel = words[0]
		for i, w := range words[1:] {
			w = strings.NewReplacer(`\`, `\\`, `'`, `\'`, `"`, `\"`).Replace(w)
			if strings.Contains(w, " ") {
				w = `"` + w + `"`
			}
			if i > 0 {
				line += " "
			}
			line += w
		}
	}
	return
}

// FuzzRender: what is written is read back exactly, or is refused.
func FuzzRender(f *testing.F) {
	f.Add("root=/dev/nbd0", "quiet", "debian/vmlinuz")
	f.Add("a=b c", "x;y", "k-1.0")
	f.Add("${mac}", "||", "a?b")
	f.Add(`a="b c"`, `'\`, "x,y")
	f.Add("#", "a=  b", "é")
	f.Add("0=", ":", strings.Repeat("z", 2040))
	f.Add("=\"a b", "\"", "%41")
	f.Fuzz(func(t *testing.T, a, b, p string) {
		c := one(Entry{Kernel: p, Initrd: []string{"i/" + p, "j"}, Args: []string{a, b}})
		readers := map[string]func(testing.TB, string) (string, []string, string){"PXELINUX": readPXELINUX, "iPXE": readIPXE, "GRUB": readGRUB}
		for format, render := range renderAll(c, Target{}) {
			text, err := render()
			if err != nil {
				require.ErrorIs(t, err, fs.ErrInvalid)
				continue
			}
			kernel, initrds, line := readers[format](t, text)
			require.Equal(t, []string{a, b}, splitKernel(line), "%s:\n%s", format, text)
			require.Len(t, initrds, 2)
			if !isURL(p) && format == "iPXE" {
				kernel, err = url.PathUnescape(kernel)
				require.NoError(t, err)
			}
			if !isURL(p) {
				require.Equal(t, treePath(p), treePath(kernel), format)
			}
		}
	})
}

func BenchmarkRender(b *testing.B) {
	c := menuConfig()
	c.Title = ""
	c.Entries[0].Title = ""
	c.Entries[0].Args = []string{"root=/dev/nbd0", "nbdroot=192.0.2.1:10809/debian12", "ip=dhcp", "ro", "quiet"}
	target := Target{Client: Client{MAC: testMAC}}
	for format, write := range map[string]func(io.Writer, Target) error{"PXELINUX": c.WritePXELINUX, "iPXE": c.WriteIPXE, "GRUB": c.WriteGRUB} {
		b.Run(format, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := write(io.Discard, target); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
