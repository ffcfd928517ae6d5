package ltsconf

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

func FuzzParse(f *testing.F) {
	for _, r := range recordings(f) {
		f.Add([]byte(r.LTSConf), "pc01")
	}
	f.Add([]byte("include a\n[\"[a-\"]\nLIKE=b\n"), "a")
	files := fstest.MapFS{
		"a": {Data: []byte("[default]\nA=1\ninclude /b\n")},
		"b": {Data: []byte("include /a\n[b]\nLIKE=a\nB=\"2\"\n")},
	}
	f.Fuzz(func(t *testing.T, in []byte, host string) {
		c := Client{Hostname: host, IP: pc01.IP, MAC: pc01.MAC}
		compatible, err := Parser{Compatible: true, Includes: files}.Parse("", bytes.NewReader(in))
		require.NoError(t, err)
		got := output(compatible, c)

		strict, err := Parser{Includes: files}.Parse("", bytes.NewReader(in))
		if err != nil {
			require.Equal(t, compatible.Problems()[0], err)
			return
		}
		require.Empty(t, compatible.Problems())
		require.Empty(t, compatible.Stray())
		require.Equal(t, got, output(strict, c))
		var b bytes.Buffer
		_, err = strict.WriteTo(&b)
		require.NoError(t, err)
		require.Equal(t, string(in), b.String())

		// Whatever the strict reader takes can be written for one client, and
		// comes back as it was.
		settings := Collect(strict.Resolve(c))
		again, err := Parse(strings.NewReader(render(t, settings)))
		require.NoError(t, err)
		require.Equal(t, plain(settings), plain(Collect(again.Resolve(c))))
	})
}

// plain is s without the values' origin.
func plain(s Settings) Settings {
	var out Settings
	for _, set := range s {
		out = append(out, Setting{set.Name, Value{Raw: set.Value.Raw}})
	}
	return out
}

func FuzzRender(f *testing.F) {
	f.Add("A", "x y", "$HOME", "lit`eral`")
	f.Add("screen_07", "NONE", `\"a\"`, "it's \\")
	f.Add("B C", "\n", `"`, "\r")
	f.Fuzz(func(t *testing.T, name, lit, raw, lit2 string) {
		s := Settings{{name, Literal(lit)}, {"RAW_1", Value{Raw: raw}}, {"LIT_2", Literal(lit2)}}
		var b bytes.Buffer
		if _, err := s.WriteTo(&b); err != nil {
			require.Zero(t, b.Len())
			return
		}
		parsed, err := Parse(&b)
		require.NoError(t, err)
		got := Collect(parsed.Resolve(pc01))
		s[0].Name = upper(name)
		require.Equal(t, s, plain(got))
		for i, want := range map[int]string{0: lit, 2: lit2} {
			v, ok := got[i].Value.Literal()
			require.True(t, ok)
			require.Equal(t, want, v)
		}
	})
}

func FuzzLTSP(f *testing.F) {
	for _, name := range []string{"ltspconf19_ini2sh.json", "ini2sh_random.json"} {
		for _, r := range recordingsLTSP(f, name) {
			f.Add([]byte(r.LTSPConf), r.Client.Host)
		}
	}
	f.Add([]byte("[a|b*]\nA=${A%%[!a-]}\ncase $A in (x) :;; esac\ncat <<-E\n\tE\nB=`id`\nA=~/x\n"), "b1")
	f.Fuzz(func(t *testing.T, in []byte, host string) {
		c := LTSPClient{Client: Client{Hostname: host, IP: pc01.IP, MAC: pc01.MAC}, Applet: "init"}
		file, err := LTSPParser{Compatible: true}.Parse("", bytes.NewReader(in))
		require.NoError(t, err)
		require.Equal(t, string(in), func() string { var b bytes.Buffer; _, _ = file.WriteTo(&b); return b.String() }())
		settings := Collect(file.Resolve(c))
		file.Explain(c)
		_, err = ParseLTSP(bytes.NewReader(in))
		require.Equal(t, len(file.Problems()) == 0, err == nil)
		if file.Broken() {
			require.Empty(t, settings)
		}
		// What can be written for one client comes back as it was.
		var b bytes.Buffer
		if _, err := settings.WriteLTSP(&b); err != nil {
			require.Zero(t, b.Len())
			return
		}
		again, err := LTSPParser{Compatible: true}.Parse("", &b)
		require.NoError(t, err)
		require.False(t, again.Broken(), "%v", again.Problems())
		for i, got := range plain(Collect(again.Resolve(LTSPClient{}))) {
			require.Equal(t, settings[i].Name, got.Name)
			if want, ok := settings[i].Value.Literal(); ok {
				have, ok := got.Value.Literal()
				require.True(t, ok)
				require.Equal(t, want, have)
			}
		}
	})
}

// An edit changes one setting, and no other byte of the rest.
func FuzzEdit(f *testing.F) {
	f.Add([]byte(editable), "default", "SOUND", "x y")
	f.Add([]byte("[a]\nA=1"), "A", "b", "")
	f.Add([]byte("[\"a b\"] A=\"1\"#\"x\n"), "a b", "A", "$")
	f.Fuzz(func(t *testing.T, in []byte, section, name, value string) {
		file, err := Parse(bytes.NewReader(in))
		if err != nil {
			return
		}
		file.Lint()
		g, err := file.Set(section, name, Literal(value))
		if err == nil {
			at := g.index[fold(section)]
			// Before and behind one place every byte is as it was, and what is
			// replaced is a value.
			out := text(t, g)
			head, tail := 0, 0
			for head < min(len(in), len(out)) && in[head] == out[head] {
				head++
			}
			for tail < min(len(in), len(out))-head && in[len(in)-1-tail] == out[len(out)-1-tail] {
				tail++
			}
			if gone := string(in[head : len(in)-tail]); slices.ContainsFunc(file.spans, func(s span) bool { return s.section == at && s.name == upper(name) }) {
				require.NotContains(t, gone, "\n")
			} else {
				require.Empty(t, gone)
			}
			var found bool
			for _, s := range g.sections[at].settings {
				if g.keys[s.key] == upper(name) {
					found = true
					require.Equal(t, Literal(value).Raw, s.raw)
				}
			}
			require.True(t, found || upper(name) == "LIKE")
			require.Len(t, g.sections, len(file.sections))
			if h, err := g.Unset(section, name); err == nil {
				rest := []byte(text(t, g))
				for _, c := range []byte(text(t, h)) { // only bytes were taken out
					i := bytes.IndexByte(rest, c)
					require.GreaterOrEqual(t, i, 0)
					rest = rest[i+1:]
				}
				for _, sp := range h.spans {
					require.False(t, sp.section == at && sp.name == upper(name))
				}
			}
		}
		if g, err := file.AddSection(section, Settings{{name, Literal(value)}}); err == nil {
			require.True(t, strings.HasPrefix(text(t, g), string(in)))
			_, err = g.RemoveSection(section)
			require.NoError(t, err)
		}
	})
}

func FuzzCmdline(f *testing.F) {
	f.Add("root=/dev/nbd0 nbdroot=[2001:db8::1]:10809/ltsp ltsp.a=b", "h")
	f.Fuzz(func(t *testing.T, cmdline, server string) {
		for _, s := range CmdlineSettings(cmdline, server) {
			_, ok := s.Value.Literal()
			require.True(t, ok)
		}
	})
}
