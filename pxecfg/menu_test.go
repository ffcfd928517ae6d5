package pxecfg

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// nasty is what languages stumble over.
var nasty = []string{
	"a", "Z9", " ", "'", `"`, `\`, "$x", "${y}", "{", "}", ";", "|", "&", "<", ">", "(", ")", "#", "*", "?", "[", "]", "!", "%41",
	"=", ",", "-", "--", "^", "~", "`", "é", "\xff", "fi", "done", "if", "\u00a0", ":", "||", "then",
}

// randomMenu makes a menu of which most can be written.
func randomMenu(rnd *rand.Rand) *Config {
	text := func(n int) string {
		var b strings.Builder
		for range rnd.IntN(n) {
			b.WriteString(nasty[rnd.IntN(len(nasty))])
		}
		return strings.Join(strings.Fields(b.String()), " ")
	}
	c := &Config{Title: text(4), Timeout: time.Duration(rnd.IntN(4)-1) * time.Second}
	if rnd.IntN(2) == 0 {
		c.UI = "menu.c32"
	}
	n := 0
	var boots []string
	var entry func(depth int) Entry
	entries := func(count, depth int) (list []Entry) {
		for range count {
			list = append(list, entry(depth))
		}
		return list
	}
	entry = func(depth int) Entry {
		n++
		e := Entry{Label: fmt.Sprintf("%s%d", []string{"e", "1", "@", "0x", "_"}[rnd.IntN(5)], n), Title: text(6)}
		kind := rnd.IntN(8)
		if kind == 4 && depth < 3 {
			e.Entries = entries(1+rnd.IntN(3), depth+1)
		} else if kind == 5 {
			e.Label, e.Separator = "", true
			return e
		} else {
			boots = append(boots, e.Label)
			e.Help, e.Hidden = text(3), rnd.IntN(12) == 0
			if e.Help != "" && rnd.IntN(2) == 0 {
				e.Help += "\n\nline " + text(2)
			}
		}
		if rnd.IntN(3) == 0 {
			e.Hotkey = "abcdefghij0123"[rnd.IntN(14)]
		}
		if len(e.Entries) > 0 {
			return e
		}
		switch rnd.IntN(4) {
		case 0:
			e.LocalBoot = true
		case 1:
			e.Chain = "c/" + strings.ReplaceAll(text(3), " ", "") + "x.efi"
		default:
			e.Kernel = "k/" + strings.ReplaceAll(text(3), " ", "") + "x"
			for range rnd.IntN(3) {
				e.Initrd = append(e.Initrd, "i/"+strings.ReplaceAll(text(2), " ", "")+"x")
			}
			for range rnd.IntN(4) {
				e.Args = append(e.Args, "a"+text(4))
			}
			e.SysAppend = uint32(rnd.IntN(3))
		}
		return e
	}
	c.Entries = entries(1+rnd.IntN(4), 0)
	for _, label := range []*string{&c.Default, &c.OnTimeout, &c.OnError} {
		if len(boots) > 0 && rnd.IntN(2) == 0 {
			*label = boots[rnd.IntN(len(boots))]
		}
	}
	return c
}

// TestGRUBScriptCheckMenus gives the real parser everything that was written
// from what is hard to write.
func TestGRUBScriptCheckMenus(t *testing.T) {
	tool := need(t, "grub-script-check")[0]
	rnd := rand.New(rand.NewPCG(3, 4))
	var all bytes.Buffer
	n := 0
	for range 3000 {
		c := randomMenu(rnd)
		var b bytes.Buffer
		if err := c.WriteGRUB(&b, Target{Client: Client{MAC: testMAC}, BaseURL: []string{"", "http://h/b"}[n%2]}); err != nil {
			require.ErrorIs(t, err, fs.ErrInvalid)
			continue
		}
		n++
		all.Write(b.Bytes())
	}
	require.Greater(t, n, 300)
	grubCheck(t, tool, all.String())
	// Each of them on its own too, as far as time allows: what one leaves open
	// another may close.
	for range 40 {
		var b bytes.Buffer
		if randomMenu(rnd).WriteGRUB(&b, Target{Client: Client{MAC: testMAC}}) == nil {
			grubCheck(t, tool, b.String())
		}
	}
}

// TestGRUBScriptCheckDispatcher checks what unknown machines get.
func TestGRUBScriptCheckDispatcher(t *testing.T) {
	tool := need(t, "grub-script-check")[0]
	for _, unknown := range []Source{nil, LocalDisk(), menuConfigFor("unknown")} {
		tree := &Tree{Logger: quiet, Source: &Machines{Logger: quiet, Unknown: unknown}}
		text, err := fs.ReadFile(tree.For(t.Context(), Client{IP: ip(9)}), "grub/grub.cfg")
		require.NoError(t, err)
		require.Contains(t, string(text), "configfile")
		grubCheck(t, tool, string(text))
	}
}

func menuConfigFor(title string) *Config {
	c := menuConfig()
	c.Title, c.Entries[0].SysAppend = title, 0
	return c
}

func TestGRUBDefault(t *testing.T) {
	c := &Config{Entries: []Entry{{Label: "12.04", Kernel: "k"}, {Label: "1", LocalBoot: true}, {Label: "x1", LocalBoot: true}}}
	for label, want := range map[string]string{"": "'0'", "12.04": "'0'", "1": "'1'", "x1": "'x1'"} {
		c.Default = label
		text, err := renderAll(c, Target{})["GRUB"]()
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(text, "set default="+want+"\n"), text)
	}
}

// FuzzMenu: a menu has exactly the entries, the default and the lines that it
// should have, whatever the texts are, or it is refused.
func FuzzMenu(f *testing.F) {
	f.Add("Lab 2", "a", "Debian 12", "b", "it's", int64(5))
	f.Add("-x", "1", "--id y", "@", "#", int64(-1))
	f.Add("a\nLABEL c", "a b", "}\nboot", "", "${x}", int64(0))
	f.Add(strings.Repeat("x", 5000), "a", "^a", "a", "|| x", int64(1))
	f.Fuzz(func(t *testing.T, title, label1, title1, label2, title2 string, timeout int64) {
		c := &Config{Title: title, Default: label2, Timeout: time.Duration(timeout), Entries: []Entry{
			{Label: label1, Title: title1, Kernel: "k"}, {Label: label2, Title: title2, LocalBoot: true},
		}}
		for format, render := range renderAll(c, Target{}) {
			text, err := render()
			if err != nil {
				require.ErrorIs(t, err, fs.ErrInvalid)
				continue
			}
			require.NotContains(t, text, "\r")
			count := func(prefix string) (n int) {
				for _, l := range strings.Split(text, "\n") {
					require.Less(t, len(l), 4095)
					if strings.HasPrefix(l, prefix) {
						n++
					}
				}
				return n
			}
			switch format {
			case "PXELINUX":
				require.Equal(t, 2, count("LABEL "))
				require.Equal(t, 1, count("  LINUX k"))
				require.Equal(t, 1, count("DEFAULT "+label2))
			case "iPXE":
				require.Equal(t, 2, count("item entry-"))
				require.Equal(t, 2, count(":entry-"))
				require.Equal(t, 1, count("choose --default entry-"+label2+" "))
				require.Equal(t, 1, count("kernel "))
			case "GRUB":
				require.Equal(t, 2, count("menuentry '"))
				require.Equal(t, 2, count("}"))
				require.Equal(t, 1, count("\tif linux '/k'; then"))
			}
		}
	})
}

// BenchmarkMenu: the time of an entry does not depend on the length of the menu.
func BenchmarkMenu(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		c := &Config{Title: "Lab", Default: "e5"}
		for i := range n {
			c.Entries = append(c.Entries, Entry{Label: fmt.Sprintf("e%d", i), Title: fmt.Sprintf("Entry %d", i),
				Kernel: "debian12/vmlinuz", Initrd: []string{"debian12/initrd.img"}, SysAppend: 2,
				Root: NBDInitramfsTools{Server: rootServer4, Export: "debian12", ReadOnly: true, Overlay: "tmpfs"},
				Args: []string{"quiet", "console=ttyS0,115200n8"}})
		}
		t := Target{Client: Client{MAC: testMAC}}
		for format, write := range map[string]func(io.Writer, Target) error{"PXELINUX": c.WritePXELINUX, "iPXE": c.WriteIPXE, "GRUB": c.WriteGRUB} {
			b.Run(fmt.Sprintf("%s/%d", format, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := write(io.Discard, t); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/entry")
			})
		}
	}
}
