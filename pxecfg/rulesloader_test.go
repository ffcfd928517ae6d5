package pxecfg

import (
	"bytes"
	"context"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"
)

func TestRulesByLoader(t *testing.T) {
	boot := func(label string) Profile {
		return Profile{Config: Config{Entries: []Entry{{Label: label, LocalBoot: true}}}}
	}
	r := &Rules{Logger: quiet, List: []Rule{
		{Match: Match{Loader: []Loader{LoaderUBoot}}, Profile: boot("uboot")},
		{Match: Match{Loader: []Loader{LoaderHTTP}}, Profile: boot("http")},
		{Match: Match{Loader: []Loader{LoaderIPXE}, Platform: []string{"efi"}}, Profile: boot("ipxe-efi")},
		{Match: Match{Loader: []Loader{LoaderIPXE, LoaderGRUB}}, Profile: boot("ipxe-grub")},
		{Match: Match{Platform: []string{"pcbios"}, Loader: []Loader{LoaderPXELINUX}}, Profile: boot("bios")},
	}}
	require.NoError(t, r.Validate())
	for want, c := range map[string]Client{
		"uboot":     {Loader: LoaderUBoot},
		"http":      {Loader: LoaderHTTP, ArchKnown: true, Arch: iana.EFI_X86_64_HTTP},
		"ipxe-efi":  {Loader: LoaderIPXE, ArchKnown: true, Arch: iana.EFI_X86_64},
		"ipxe-grub": {Loader: LoaderIPXE, Platform: "pcbios"},
		"bios":      {Loader: LoaderPXELINUX, ArchKnown: true},
	} {
		cfg, err := r.Config(t.Context(), c)
		require.NoError(t, err)
		require.Equal(t, want, cfg.Entries[0].Label)
		require.True(t, cfg.Fallback, "it speaks of no machine")
	}
	_, err := r.Config(t.Context(), Client{Loader: LoaderPXELINUX})
	require.ErrorIs(t, err, fs.ErrNotExist, "what is not known does not fit")
	r = &Rules{MostSpecific: true, Logger: quiet, List: []Rule{
		{Match: Match{Loader: []Loader{LoaderIPXE}}, Profile: boot("one")},
		{Match: Match{Loader: []Loader{LoaderIPXE}, Platform: []string{"efi"}}, Profile: boot("two")},
	}}
	cfg, err := r.Config(t.Context(), Client{Loader: LoaderIPXE, Platform: "efi"})
	require.NoError(t, err)
	require.Equal(t, "two", cfg.Entries[0].Label)
	for _, m := range []Match{{Platform: []string{"bios"}}, {Loader: []Loader{"lilo"}}} {
		require.ErrorIs(t, (&Rules{List: []Rule{{Match: m, Source: Deny()}}}).Validate(), fs.ErrInvalid)
	}
}

// TestTreeTellsLoader: the name that is asked for says who asks.
func TestTreeTellsLoader(t *testing.T) {
	var got []Loader
	tree := &Tree{Logger: quiet, Source: SourceFunc(func(_ context.Context, c Client) (*Config, error) {
		got = append(got, c.Loader)
		return LocalDisk(), nil
	})}
	for _, c := range []Client{{MAC: testMAC}, {MAC: testMAC, Loader: LoaderUBoot}, {MAC: testMAC, Loader: LoaderHTTP}} {
		for _, name := range []string{"pxelinux.cfg/default", "grub/grub.cfg", "boot.ipxe"} {
			_, err := fs.ReadFile(tree.For(t.Context(), c), name)
			require.NoError(t, err)
		}
	}
	require.Equal(t, []Loader{LoaderPXELINUX, LoaderGRUB, LoaderIPXE, LoaderUBoot, LoaderGRUB, LoaderIPXE, LoaderPXELINUX, LoaderGRUB, LoaderIPXE}, got)
}

func TestExplainOfLoader(t *testing.T) {
	r := &Rules{Logger: quiet, List: []Rule{{Name: "ipxe", Match: Match{Loader: []Loader{LoaderIPXE}, Platform: []string{"efi"}}, Source: LocalDisk()}}}
	steps := Explain(t.Context(), r, Client{MAC: testMAC, Loader: LoaderIPXE, Platform: "efi"})
	require.Equal(t, "boot.ipxe", steps[len(steps)-1].Name)
	require.True(t, steps[len(steps)-1].Hit)
	require.Equal(t, `rule "ipxe"`, steps[len(steps)-1].Rule)
	steps = Explain(t.Context(), r, Client{MAC: testMAC, Loader: LoaderGRUB, Platform: "efi"})
	require.Equal(t, "grub.cfg", steps[len(steps)-1].Name)
	require.False(t, steps[len(steps)-1].Hit)
}

// TestProfileOverExisting: a file is sent as it is unless the profile says
// something that it does not say.
func TestProfileOverExisting(t *testing.T) {
	const text = "# mine\r\nDEFAULT a\nPROMPT 0\nLABEL a\n  KERNEL k\n  APPEND ro\n"
	files := fstest.MapFS{
		"pxelinux.cfg/01-52-54-00-12-34-56": {Data: []byte(text)},
		"pxelinux.cfg/default":              {Data: []byte("DEFAULT hdt.c32\n")},
	}
	rendered := func(p Profile) (string, error) {
		r := &Rules{List: []Rule{{Profile: p, Source: &Existing{FS: files, Logger: quiet}}}, Logger: quiet}
		cfg, err := r.Config(t.Context(), Client{MAC: testMAC})
		if err != nil {
			return "", err
		}
		var b bytes.Buffer
		require.NoError(t, cfg.WritePXELINUX(&b, Target{}))
		return b.String(), nil
	}
	for name, p := range map[string]Profile{
		"nothing":   {},
		"the same":  {Config: Config{Default: "a"}},
		"overruled": {Config: Config{Entries: []Entry{{Label: "a", Kernel: "other"}}}},
	} {
		got, err := rendered(p)
		require.NoError(t, err, name)
		require.Equal(t, text, got, name)
	}
	for name, p := range map[string]Profile{
		"argument": {Args: []string{"quiet"}},
		"title":    {Config: Config{Title: "Lab"}},
		"entry":    {Config: Config{Entries: []Entry{{Label: "b", LocalBoot: true}}}},
		"root":     {Config: Config{Entries: []Entry{{Label: "a", SysAppend: 2}}}},
	} {
		got, err := rendered(p)
		require.NoError(t, err, name)
		require.NotContains(t, got, "# mine", name)
		require.Contains(t, got, "LINUX k\n", name)
		require.Contains(t, got, "APPEND ro", name)
	}
	// A file that others cannot have cannot be put together with anything.
	delete(files, "pxelinux.cfg/01-52-54-00-12-34-56")
	_, err := rendered(Profile{Args: []string{"quiet"}})
	require.ErrorContains(t, err, "has a profile")
	got, err := rendered(Profile{})
	require.NoError(t, err)
	require.Equal(t, "DEFAULT hdt.c32\n", got)

	// Nor one of which an entry, or a password, would be lost: only the loaders
	// that never had it get the rest.
	for _, more := range []string{
		"LABEL hdt\n COM32 hdt.c32\n", "LABEL b\n LINUX k\n MENU PASSWD x\n", "LABEL b\n MENU GOTO .top\n", "LABEL b\n LINUX k\n MENU HIDE\n MENU PASSWD x\n",
		"ALLOWOPTIONS 0\n", "IMPLICIT 0\n", "NOESCAPE 1\n", "NOCOMPLETE 1\n", "MENU HIDDEN\n", "LABEL b\n LINUX k\n FDT x\n", "SERIAL 0 9600\n", "KBDMAP de.ktl\n",
	} {
		own := "UI menu.c32\nDEFAULT a\nLABEL a\n LINUX k\n" + more
		files["pxelinux.cfg/default"] = &fstest.MapFile{Data: []byte(own)}
		got, err = rendered(Profile{})
		require.NoError(t, err)
		require.Equal(t, own, got)
		_, err = rendered(Profile{Args: []string{"quiet"}})
		require.ErrorContains(t, err, "has a profile", more)
		require.ErrorIs(t, err, fs.ErrInvalid, more)
		r := &Rules{List: []Rule{{Profile: Profile{Args: []string{"quiet"}}, Source: &Existing{FS: files, Logger: quiet}}}, Logger: quiet}
		cfg, err := r.Config(t.Context(), Client{Loader: LoaderGRUB})
		require.NoError(t, err, more)
		require.Equal(t, []string{"quiet"}, cfg.Entries[0].Args)
		require.Len(t, cfg.Entries, 1+strings.Count(more, "LINUX")-strings.Count(more, "PASSWD"), "what asks for a password is for PXELINUX only")
	}
	// A master password keeps it all for PXELINUX.
	locked := "UI menu.c32\nMENU MASTER PASSWD x\nLABEL a\n LINUX k\n"
	files["pxelinux.cfg/default"] = &fstest.MapFile{Data: []byte(locked)}
	_, err = rendered(Profile{Args: []string{"quiet"}})
	require.ErrorContains(t, err, "has a profile")
	got, err = rendered(Profile{})
	require.NoError(t, err)
	require.Equal(t, locked, got)
	// TOTALTIMEOUT has a place.
	files["pxelinux.cfg/default"] = &fstest.MapFile{Data: []byte("UI menu.c32\nTIMEOUT 50\nTOTALTIMEOUT 900\nDEFAULT a\nLABEL a\n LINUX k\nLABEL b\n LOCALBOOT 0\n")}
	got, err = rendered(Profile{Args: []string{"quiet"}})
	require.NoError(t, err)
	require.Contains(t, got, "TOTALTIMEOUT 900\n")
	require.Contains(t, got, "APPEND quiet\n")
}

// TestProfileLayersMenus: submenus are laid over each other by their labels.
func TestProfileLayersMenus(t *testing.T) {
	r := &Rules{Logger: quiet, Profiles: map[string]Profile{"base": {Args: []string{"quiet"}, Config: *wholeMenu()}}, List: []Rule{{Profile: Profile{
		Inherit: []string{"base"}, Drop: []string{"quiet"},
		Args: []string{"ro"},
		Config: Config{OnError: "debian", TotalTimeout: 1, Entries: []Entry{
			{Label: "old", Title: "Old", Hotkey: 'o', Help: "x"},
			{Label: "tools", Entries: []Entry{{Label: "disk", LocalBoot: true}}},
			{Label: "new", Entries: []Entry{{Label: "n1", Kernel: "n"}, {Label: "memtest", Chain: "m.efi"}}},
		}},
	}}}}
	require.NoError(t, r.Validate())
	cfg, err := r.Config(t.Context(), Client{})
	require.NoError(t, err)
	require.Equal(t, "debian", cfg.OnError)
	more := cfg.Entries[2].Entries
	require.Equal(t, Entry{Label: "old", Title: "Old", Hotkey: 'o', Help: "x", Kernel: "o/vmlinuz", Args: []string{"ro"}}, more[0])
	require.Equal(t, []Entry{{Label: "memtest", Title: "Memory test", Hotkey: 't', Chain: "m.efi"}, {Label: "disk", LocalBoot: true}}, more[2].Entries)
	require.Equal(t, []Entry{{Label: "n1", Kernel: "n", Args: []string{"ro"}}}, cfg.Entries[5].Entries)
	require.Equal(t, []string{"ro"}, find(cfg.Entries, "debian").Args, "dropped at any depth")
	require.Equal(t, []string{"quiet"}, r.Profiles["base"].Config.Entries[1].Args, "a profile is not changed")
	require.Equal(t, "o/vmlinuz", r.Profiles["base"].Config.Entries[2].Entries[0].Kernel)
	require.Empty(t, r.Profiles["base"].Config.Entries[2].Entries[0].Title)
	loop := make([]Entry, 1)
	loop[0] = Entry{Label: "loop", Entries: loop}
	require.ErrorIs(t, (&Rules{List: []Rule{{Profile: Profile{Config: Config{Entries: loop}}}}}).Validate(), fs.ErrInvalid, "menus within themselves end")

	steps := Explain(t.Context(), r, Client{})
	var title Value
	for _, v := range steps[len(steps)-1].Values {
		if v.Entry == "old" && v.Field == "title" {
			title = v
		}
	}
	require.Equal(t, "rule 1", title.From)
}

// TestProfileTakesMenusAway: what was in a submenu that is one no longer is
// forgotten, and a menu does not take itself away.
func TestProfileTakesMenusAway(t *testing.T) {
	base := Profile{Config: Config{Entries: []Entry{{Label: "x", Entries: []Entry{
		{Label: "y", Entries: []Entry{{Label: "z", Kernel: "z", Args: []string{"old"}}}},
	}}}}}
	lay := func(over ...Entry) (*Config, error) {
		r := &Rules{Profiles: map[string]Profile{"base": base}, List: []Rule{{Profile: Profile{
			Inherit: []string{"base"}, Args: []string{"quiet"}, Config: Config{Entries: over},
		}}}}
		return r.Config(t.Context(), Client{})
	}
	cfg, err := lay(Entry{Label: "x", Kernel: "k"}, Entry{Label: "z", Kernel: "new"})
	require.NoError(t, err)
	require.Equal(t, []Entry{{Label: "x", Kernel: "k", Args: []string{"quiet"}}, {Label: "z", Kernel: "new", Args: []string{"quiet"}}}, cfg.Entries)
	cfg, err = lay(Entry{Label: "z", Initrd: []string{"i"}})
	require.NoError(t, err)
	require.Equal(t, []Entry{{Label: "z", Kernel: "z", Initrd: []string{"i"}, Args: []string{"old", "quiet"}}}, cfg.Entries[0].Entries[0].Entries)
	_, err = lay(Entry{Label: "y", Entries: []Entry{{Label: "x", Kernel: "k"}, {Label: "w", Kernel: "w"}}})
	require.ErrorIs(t, err, fs.ErrInvalid)
	require.ErrorContains(t, err, "takes the menu away")
	_, err = lay(Entry{Label: "y", Entries: []Entry{{Label: "y", Kernel: "k"}}})
	require.ErrorContains(t, err, "within itself")
}

// TestProfileArgsAreItsOwn: what is appended for one machine does not show in
// another's arguments, however much room the list has.
func TestProfileArgsAreItsOwn(t *testing.T) {
	room := append(make([]string, 0, 8), "ro")
	r := &Rules{Logger: quiet, List: []Rule{{
		Profile: Profile{Config: Config{Entries: []Entry{{Label: "a", Kernel: "k", Args: room}}}},
		Source: SourceFunc(func(_ context.Context, c Client) (*Config, error) {
			return &Config{Entries: []Entry{{Label: "a", Args: []string{c.Hostname}}}}, nil
		}),
	}}}
	one, err := r.Config(t.Context(), Client{Hostname: "one"})
	require.NoError(t, err)
	_, err = r.Config(t.Context(), Client{Hostname: "two"})
	require.NoError(t, err)
	require.Equal(t, []string{"ro", "one"}, one.Entries[0].Args)
	require.Equal(t, []string{"", ""}, room[1:3], "nor in the profile's own list")
}
