package pxecfg

import (
	"io/fs"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// wholeMenu has all that a menu can have.
func wholeMenu() *Config {
	return &Config{
		Title: "Lab", UI: "menu.c32", Default: "debian", OnTimeout: "local", OnError: "rescue", Timeout: 30 * time.Second,
		Entries: []Entry{
			{Separator: true, Title: "Systems"},
			{Label: "debian", Title: "Debian 12", Hotkey: 'd', Help: "Changes are lost.\nAsk us: 123.", Kernel: "d/vmlinuz", Initrd: []string{"d/initrd"}, Args: []string{"quiet"}},
			{Label: "more", Title: "More ...", Hotkey: 'm', Entries: []Entry{
				{Label: "old", Kernel: "o/vmlinuz"},
				{Separator: true},
				{Label: "tools", Title: "Tools", Entries: []Entry{{Label: "memtest", Title: "Memory test", Hotkey: 't', Kernel: "memtest"}}},
			}},
			{Label: "local", Title: "Local disk", LocalBoot: true},
			{Label: "rescue", Hidden: true, Kernel: "r/vmlinuz"},
		},
	}
}

func TestMenuIsReadBack(t *testing.T) {
	c := wholeMenu()
	for _, ui := range []string{"menu.c32", ""} {
		c.UI = ui
		text, err := renderAll(c, Target{})["PXELINUX"]()
		require.NoError(t, err)
		p, err := parseString(t, text).Load(nil, "")
		require.NoError(t, err)
		back, left := p.Config("")
		require.Empty(t, left)
		require.Equal(t, c, back, text)
	}
	p, err := parseString(t, "MENU TITLE x\nTOTALTIMEOUT 5\n").Load(nil, "")
	require.NoError(t, err)
	c.TotalTimeout = p.TotalTimeout
	text, err := renderAll(c, Target{})["PXELINUX"]()
	require.NoError(t, err)
	require.Contains(t, text, "\nTOTALTIMEOUT 5\n")
	for _, format := range []string{"iPXE", "GRUB"} {
		_, err := renderAll(c, Target{})[format]()
		var render *RenderError
		require.ErrorAs(t, err, &render)
		require.Equal(t, "total timeout", render.Field)
	}
}

// TestSubmenuHotkeyForUBoot: the submenu's name is not that of the entry before.
func TestSubmenuHotkeyForUBoot(t *testing.T) {
	c := &Config{Entries: []Entry{{Label: "a", Kernel: "k"}, {Label: "m", Title: "More", Hotkey: 'm', Entries: []Entry{{Label: "b", Kernel: "l"}}}}}
	text, err := renderAll(c, Target{})["PXELINUX"]()
	require.NoError(t, err)
	require.Equal(t, map[string]map[string]string{"a": {"title": "a", "linux": "k"}, "b": {"title": "b", "linux": "l"}}, ubootLabels(text), text)
	back, _ := loadString(t, text).Config("")
	require.Equal(t, byte('m'), back.Entries[1].Hotkey)
	require.Equal(t, "More", back.Entries[1].Title)
}

// TestForeignHotkeys: what GRUB has for itself does not keep a file from it.
func TestForeignHotkeys(t *testing.T) {
	back, left := loadString(t, "UI menu.c32\nLABEL a\nMENU LABEL ^Classic\nKERNEL k\nLABEL b\nMENU LABEL ^Other\nKERNEL k\n").Config("")
	require.Empty(t, left)
	require.Zero(t, back.Entries[0].Hotkey)
	require.Equal(t, byte('o'), back.Entries[1].Hotkey)
	_, err := renderAll(back, Target{})["GRUB"]()
	require.NoError(t, err)
}

func TestGRUBScriptCheckWholeMenu(t *testing.T) {
	tool := need(t, "grub-script-check")[0]
	text, err := renderAll(wholeMenu(), Target{})["GRUB"]()
	require.NoError(t, err)
	grubCheck(t, tool, text)
}

// TestMenusAreReadBack: what PXELINUX reads is what was meant, for whatever can
// be written; and U-Boot loses nothing of it.
func TestMenusAreReadBack(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	written := 0
	for range 3000 {
		c := randomMenu(rnd)
		text, err := renderAll(c, Target{})["PXELINUX"]()
		if err != nil {
			require.ErrorIs(t, err, fs.ErrInvalid)
			continue
		}
		written++
		f := parseString(t, text)
		p, err := f.Load(nil, "")
		require.NoError(t, err)
		boots := 0
		each(c.Entries, func(e *Entry) bool {
			boots++
			got := p.Lookup(e.Label)
			require.NotNil(t, got, text)
			require.Equal(t, e.title(), strings.ReplaceAll(got.Display, "^", ""), text)
			require.Equal(t, e.Help, strings.TrimSuffix(got.Help, "\n"), text)
			require.Equal(t, e.Hidden, got.Menu == p.Hidden, text)
			if e.Hotkey != 0 && !e.Hidden {
				require.Equal(t, e.Hotkey&^0x20, got.Hotkey, text)
			}
			return true
		})
		require.Equal(t, boots, len(ubootLabels(text)), "as many entries for U-Boot:\n%s", text)
		each(c.Entries, func(e *Entry) bool {
			got := ubootLabels(text)[e.Label]
			require.Equal(t, e.Kernel != "", got["linux"] != "", text)
			require.Equal(t, e.LocalBoot, got["localboot"] != "", text)
			require.Equal(t, len(e.Initrd) > 0, got["initrd"] != "", text)
			require.Equal(t, e.title(), strings.ReplaceAll(got["title"], "^", ""), text)
			return true
		})
		require.Equal(t, c.first().Label, p.Lookup(p.Default).Label)
	}
	require.Greater(t, written, 500)
}

// ubootLabels reads a file as U-Boot does: a label ends at the first word that
// it cannot have. Headings, which boot nothing, are left out.
func ubootLabels(text string) map[string]map[string]string {
	labels, in := map[string]map[string]string{}, map[string]string(nil)
	for line := range strings.SplitSeq(text, "\n") {
		word, rest := firstWord(skipSpace(line))
		rest = skipSpace(rest)
		switch w := strings.ToLower(word); {
		case w == "label":
			in = map[string]string{"title": rest}
			if !strings.HasPrefix(rest, "=") {
				labels[rest] = in
			}
		case in == nil || w == "":
		case w == "menu":
			if sub, title := firstWord(rest); strings.EqualFold(sub, "label") {
				in["title"] = skipSpace(title)
			}
		case ubootLabelWords[w]:
			in[w] = rest
		case w == "kernel" || w == "com32" || w == "pxe":
		default:
			in = nil
		}
	}
	return labels
}

func TestMenuCannotBeWritten(t *testing.T) {
	k := func(e Entry) *Config {
		e.Label, e.Kernel = "a", "k"
		return &Config{Entries: []Entry{e, {Label: "b", LocalBoot: true}}}
	}
	deep := []Entry{{Label: "x", LocalBoot: true}}
	for i := range maxMenuDepth + 1 {
		deep = []Entry{{Label: strings.Repeat("m", i+1), Entries: deep}}
	}
	loop := make([]Entry, 1)
	loop[0] = Entry{Label: "loop", Entries: loop}
	with := func(c *Config, change func(*Config)) *Config { change(c); return c }
	for name, x := range map[string]struct {
		c       *Config
		formats string
		why     string
	}{
		"hot key not in title":    {k(Entry{Hotkey: 'q'}), "PXELINUX", "only be marked"},
		"GRUB's own key":          {k(Entry{Hotkey: 'c', Title: "c"}), "GRUB", "for itself"},
		"capital":                 {k(Entry{Hotkey: 'A'}), "PXELINUX iPXE GRUB", "lower case"},
		"endtext":                 {k(Entry{Help: "EndText x"}), "PXELINUX", "ends the text"},
		"U-Boot's directive":      {k(Entry{Help: "a\nDefault is b"}), "PXELINUX", "U-Boot"},
		"iPXE's own":              {k(Entry{Help: "a ${x}"}), "iPXE", "expand"},
		"help with control":       {k(Entry{Help: "a\rb"}), "PXELINUX iPXE GRUB", "control"},
		"too deep":                {&Config{Entries: deep}, "PXELINUX iPXE GRUB", "deep"},
		"in itself":               {&Config{Entries: loop}, "PXELINUX iPXE GRUB", "too"},
		"nothing to boot":         {&Config{Entries: []Entry{{Separator: true}}}, "PXELINUX iPXE GRUB", "to boot"},
		"default is a submenu":    {with(wholeMenu(), func(c *Config) { c.Default = "more" }), "PXELINUX iPXE GRUB", "submenu"},
		"on timeout is not there": {with(wholeMenu(), func(c *Config) { c.OnTimeout = "x" }), "PXELINUX iPXE GRUB", "no entry"},
		"on error is not there":   {with(wholeMenu(), func(c *Config) { c.OnError = "x" }), "PXELINUX iPXE GRUB", "no entry"},
		"same label deeper":       {with(wholeMenu(), func(c *Config) { c.Entries[2].Entries[0].Label = "local" }), "PXELINUX iPXE GRUB", "another entry"},
		"hidden default":          {with(wholeMenu(), func(c *Config) { c.Default = "rescue" }), "GRUB", "always shown"},
		"same hot key":            {with(wholeMenu(), func(c *Config) { c.Entries[3].Hotkey = 'm' }), "PXELINUX iPXE GRUB", "another entry"},
		"quote in initrd":         {k(Entry{Initrd: []string{`i"`}}), "PXELINUX iPXE GRUB", "quote"},
		"quote in kernel":         {&Config{Entries: []Entry{{Label: "a", Kernel: `k"`}}}, "PXELINUX iPXE GRUB", "quote"},
		"quote in URL":            {&Config{Entries: []Entry{{Label: "a", Kernel: `http://h/k"`}}}, "PXELINUX iPXE GRUB", "quote"},
		"separator with a kernel": {&Config{Entries: []Entry{{Label: "a", Kernel: "k", Separator: true}}}, "PXELINUX iPXE GRUB", "exactly one"},
	} {
		for format, render := range renderAll(x.c, Target{}) {
			_, err := render()
			if !strings.Contains(x.formats, format) {
				require.NoError(t, err, "%s: %s", name, format)
				continue
			}
			require.ErrorIs(t, err, fs.ErrInvalid, "%s: %s", name, format)
			require.ErrorContains(t, err, x.why, "%s: %s", name, format)
		}
	}
	for format, render := range renderAll(&Config{Entries: []Entry{{Label: "a", Kernel: `k'`}}}, Target{}) {
		_, err := render()
		require.Equal(t, format == "GRUB", err != nil, format)
	}
}

// TestMenuPaths: the default of a submenu, by name or by number.
func TestMenuPaths(t *testing.T) {
	c := wholeMenu()
	c.OnTimeout = ""
	for label, want := range map[string]string{"debian": "debian", "old": "more>old", "memtest": "more>tools>memtest"} {
		c.Default = label
		text, err := renderAll(c, Target{})["GRUB"]()
		require.NoError(t, err)
		require.Contains(t, text, "set default='"+want+"'\n")
		text, err = renderAll(c, Target{})["iPXE"]()
		require.NoError(t, err)
		require.Equal(t, 1, strings.Count(text, " --timeout 30000 "), "only the menu that is shown first has the timeout")
	}
	c.Entries[2].Label, c.Entries[2].Entries[2].Label = "2", "3"
	text, err := renderAll(c, Target{})["GRUB"]()
	require.NoError(t, err)
	require.Contains(t, text, "set default='", text)
	c.Default = "memtest"
	text, err = renderAll(c, Target{})["GRUB"]()
	require.NoError(t, err)
	require.Contains(t, text, "set default='2>2>memtest'\n", "numbers are counted, separators too")
}
