package pxecfg

import (
	"strings"
	"testing"
	"testing/fstest"

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
