package pxecfg

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

func TestLint(t *testing.T) {
	tree := fstest.MapFS{"vmlinuz": {}, "initrd.img": {}, "menu.c32": {}, "vmlinuz-6.0": {}}
	for _, c := range []struct {
		name, text string
		want       []string // line:col code
	}{
		{"nothing", "# comment\nUI menu.c32\nDEFAULT a\nMENU CLEAR\nLABEL a\n  LINUX vmlinuz\n  INITRD initrd.img\n  APPEND ro\n  IPAPPEND 2\n  FDT x\n", nil},
		{"empty", "", []string{"1:1 empty-file"}},
		{"unknown", "LABEL a\n KERNEL vmlinuz\n\n  KERNAL x\nMENU FOO\n", []string{"4:3 unknown-word", "5:1 unknown-word"}},
		{"label", "DEFAULT A\nONTIMEOUT vmlinuz\nLABEL a\n KERNEL vmlinuz\nLABEL a\n LINUX vmlinuz\n", []string{"1:9 no-such-label", "5:1 duplicate-label"}},
		{"menu", "LABEL a\n MENU GOTO nowhere\n", []string{"1:1 no-such-menu"}},
		{"files", "INCLUDE gone.cfg\nLABEL a\n LINUX ::vmlinuz\n INITRD initrd.img,gone\nLABEL b\n LINUX gone2\n",
			[]string{"1:9 no-such-file", "2:1 no-such-file", "4:2 uboot-one-initrd", "5:1 no-such-file"}},
		{"misplaced", "KERNEL vmlinuz\n", []string{"1:1 misplaced"}},
		{"number", "TIMEOUT 5s\nPROMPT yes\nSYSAPPEND 0x2\n", []string{"1:9 number", "2:8 number"}},
		{"comment", "LABEL a # first\n LINUX vmlinuz\n APPEND ro # no\n", []string{"1:9 trailing-comment", "3:12 trailing-comment"}},
		{"dash", "LABEL a\n LINUX vmlinuz\n APPEND - \n", []string{"3:9 trailing-comment"}},
		{"type", "LABEL a\n KERNEL vmlinuz-6.0\n", []string{"1:1 kernel-type"}},
		{"initrd", "LABEL a\n LINUX vmlinuz\n APPEND x.initrd=initrd.img ro\nLABEL b\n LINUX vmlinuz\n INITRD initrd.img\n APPEND initrd=initrd.img ro\n",
			[]string{"1:1 initrd", "4:1 initrd"}},
		{"line", "LABEL a\n LINUX vmlinuz\n APPEND " + strings.Repeat("x", 2040) + "\n", []string{"1:1 command-line"}},
		{"long", "#" + strings.Repeat("x", 4094) + "append\n", []string{"1:4096 long-line"}},
		{"long name", "LABEL a\n LINUX " + strings.Repeat("x", 300) + "\n", []string{"1:1 long-name"}},
		{"text", "LABEL a\n LINUX vmlinuz\n TEXT HELP\n more\n", []string{"3:1 open-text"}},
		{"loop", "INCLUDE self\n", []string{"1:9 syntax"}},
		{"cr", "LABEL a\r\n LINUX vmlinuz\r\n", []string{"1:8 uboot-cr"}},
		{"value", "LABEL a\n LINUX vmlinuz\n APPEND\n", []string{"3:2 uboot-no-value"}},
		{"ends", "LABEL a\n LINUX vmlinuz\n SYSAPPEND 2\n APPEND ro\n INITRD initrd.img\nLABEL b\n LINUX vmlinuz\n SYSAPPEND 2\n", []string{"3:1 uboot-ends-label"}},
		{"last", "LABEL a\n LINUX vmlinuz\n APPEND ro initrd=initrd.img\n", []string{"3:2 uboot-initrd-last"}},
		{"twice", "LABEL a\n LINUX vmlinuz\n APPEND initrd=initrd.img ro\n INITRD initrd.img\n", []string{"1:1 initrd", "4:2 uboot-initrd-twice"}},
		{"others", "TOTALTIMEOUT 9\nLABEL a\n LINUX vmlinuz\n MENU PASSWD x\nLABEL b\n MENU GOTO .top\nLABEL c\n MENU QUIT\nLABEL d\n COM32 menu.c32\n",
			[]string{"1:1 pxelinux-only", "2:1 pxelinux-only", "5:1 pxelinux-only", "7:1 pxelinux-only", "9:1 pxelinux-only"}},
		{"master", "LABEL a\n LINUX vmlinuz\nMENU BEGIN\nMENU MASTER PASSWD x\nLABEL b\n LINUX vmlinuz\nMENU END\n", []string{"1:1 pxelinux-only"}},
		{"ipappend", "LABEL a\n LINUX vmlinuz\n IPAPPEND 4\n", []string{"3:2 uboot-ipappend"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tree["self"] = &fstest.MapFile{Data: []byte("INCLUDE self\n")}
			var got []string
			for _, f := range Lint(parseString(t, c.text), tree, "") {
				s := f.String()
				require.NotEmpty(t, f.Msg)
				require.Equal(t, strings.HasPrefix(f.Code, "uboot-"), f.Loader == "U-Boot")
				require.Equal(t, f.Code == "pxelinux-only", f.Loader == "GRUB, iPXE")
				file := "pxelinux.cfg/default:"
				if f.Code == "syntax" {
					file = "self:"
				}
				require.True(t, strings.HasPrefix(s, file), s)
				got = append(got, strings.SplitN(strings.TrimPrefix(s, file), ": ", 2)[0]+" "+f.Code)
			}
			require.Equal(t, c.want, got)
		})
	}
}

// TestLintOwnRenderings: what this package writes has nothing to find.
func TestLintOwnRenderings(t *testing.T) {
	cfg := &Config{Title: "Menu", UI: "menu.c32", Default: "b", Entries: []Entry{
		{Label: "a", Title: "A", Kernel: "vmlinuz-6.0", Initrd: []string{"initrd.img"}, Args: []string{"ro", "x=1"}, SysAppend: 3},
		{Label: "b", LocalBoot: true}, {Label: "c", Chain: "undionly.kpxe"},
	}}
	var b strings.Builder
	require.NoError(t, cfg.WritePXELINUX(&b, Target{}))
	require.Empty(t, Lint(parseString(t, b.String()), nil, ""))
	for _, ui := range []string{"", "menu.c32"} {
		b.Reset()
		cfg = wholeMenu()
		cfg.UI = ui
		require.NoError(t, cfg.WritePXELINUX(&b, Target{}))
		require.Empty(t, Lint(parseString(t, b.String()), nil, ""), b.String())
	}
}

// TestLintIncluded: each file is checked once, at its own lines and in the
// place where it is pasted.
func TestLintIncluded(t *testing.T) {
	tree := fstest.MapFS{
		"cfg/vmlinuz": {},
		"cfg/a":       {Data: []byte("LABEL a\n LINUX vmlinuz\nBOGUS\nINCLUDE b\n")},
		"cfg/b":       {Data: []byte(" APPEND ro # x\nLABEL B\n LINUX gone\n SYSAPPEND 2\n INITRD i\nDEFAULT bb\n")},
	}
	var got []string
	for _, f := range Lint(parseString(t, "PROMPT yes\nINCLUDE a\nINCLUDE b\nMENU INCLUDE gone.cfg tag\nTIMEOUT x\n"), tree, "cfg/") {
		got = append(got, strings.SplitN(f.String(), ": ", 2)[0]+" "+f.Code)
	}
	require.Equal(t, []string{
		"pxelinux.cfg/default:1:8 number", "pxelinux.cfg/default:4:14 no-such-file", "pxelinux.cfg/default:5:9 number",
		"cfg/a:3:1 unknown-word",
	}, got[:4])
	all := strings.Join(got, "\n")
	for _, want := range []string{"cfg/b:1:12 trailing-comment", "cfg/b:2:1 no-such-file", "cfg/b:2:1 duplicate-label",
		"cfg/b:4:1 uboot-ends-label", "cfg/b:6:9 no-such-label"} {
		require.Contains(t, all, want)
	}
	require.Equal(t, 1, strings.Count(all, "cfg/b:2:1 duplicate-label"))
	require.Equal(t, 2, strings.Count(all, "cfg/b:2:1 no-such-file"), "the kernel and the initrd, once each")
	require.NotContains(t, all, "misplaced", "the label of the file before goes on")
	require.Equal(t, 1, strings.Count(all, "cfg/b:1:12 "), "a file that is included twice is checked once")

	// Files that include each other: the findings up to there, and the error.
	loop := fstest.MapFS{"x": {Data: []byte("BOGUS\nINCLUDE y\n")}, "y": {Data: []byte("BOGUS\nINCLUDE x\n")}}
	found := Lint(parseString(t, "INCLUDE x\n"), loop, "")
	require.Len(t, found, 3)
	require.Equal(t, "x:1:1", found[0].String()[:5])
	var codes []string
	for _, f := range found {
		codes = append(codes, f.Code)
	}
	require.ElementsMatch(t, []string{"unknown-word", "unknown-word", "syntax"}, codes)
}

// countingFS counts what is looked for.
type countingFS struct {
	fs.FS
	n *int
}

func (c countingFS) Open(name string) (fs.File, error) { *c.n++; return c.FS.Open(name) }

// TestLintLongAppend: a line that is in every entry makes neither the work nor
// the findings grow with both lengths.
func TestLintLongAppend(t *testing.T) {
	const entries = 3000
	opened := 0
	tree := countingFS{fstest.MapFS{"k": {}, "i": {}}, &opened}
	for _, initrds := range []string{
		strings.Repeat("i,", 1000) + "gone", // all are looked at
		strings.Repeat("gone,", 700) + "gone2",
	} {
		opened = 0
		var b strings.Builder
		b.WriteString("APPEND initrd=" + initrds + "\n")
		for i := range entries {
			fmt.Fprintf(&b, "LABEL l%d\nLINUX k\n", i)
		}
		found := Lint(parseString(t, b.String()), tree, "")
		require.Less(t, opened, 10, "each file is looked for once")
		perEntry := 0
		for _, f := range found {
			if f.Code == "no-such-file" {
				perEntry++
			}
		}
		require.NotZero(t, perEntry)
		require.LessOrEqual(t, perEntry, maxConfig/len(initrds), "one in each entry, and only until the lines are 4 MiB long")
		require.Contains(t, fmt.Sprint(found), "no others are checked")
	}
}
