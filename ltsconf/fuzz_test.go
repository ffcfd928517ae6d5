package ltsconf

import (
	"bytes"
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
