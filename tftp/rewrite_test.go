package tftp

import (
	"context"
	"io/fs"
	"net/netip"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

// echo answers with the name that it sees.
var echo = HandlerFunc(func(_ context.Context, r *Request) (File, error) {
	return NewFile(strings.NewReader(r.Name), int64(len(r.Name)), ""), nil
})

func opened(t *testing.T, h Handler, name, peer string) (string, error) {
	t.Helper()
	f, err := h.OpenTFTP(t.Context(), &Request{Name: name, Peer: netip.AddrPortFrom(netip.MustParseAddr(peer), 1024)})
	if err != nil {
		return "", err
	}
	defer f.Close()
	b := make([]byte, f.Size())
	_, err = f.ReadAt(b, 0)
	require.NoError(t, err)
	return string(b), nil
}

func TestParseMap(t *testing.T) {
	rules, err := ParseMap(strings.NewReader(`
# comment
ri   ^c:/          /
rg   %             _         # all of them
re   ^fixed$       done
r    ^(ltsp)/(.*)$ \2/\U\1\E/x
r4   ^me$          by-\i-\x
r6   ^me$          six
a    ^secret       ask\#me
~aP  \.log$
rs   ^loop(x+)x$   loop\1
`))
	require.NoError(t, err)
	w := &Rewrite{Rules: rules, Next: echo}
	for name, want := range map[string]string{
		"C:/boot/bcd":  "boot/bcd",
		"a%b%c":        "a_b_c",
		"fixed":        "done",
		"ltsp/vmlinuz": "vmlinuz/LTSP/x",
		"me":           "by-192.0.2.10-C000020A",
		"loopxxxx":     "loopx",
		"other":        "other",
	} {
		got, err := opened(t, w, name, "192.0.2.10")
		require.NoError(t, err, name)
		require.Equal(t, want, got, name)
	}
	got, err := opened(t, w, "me", "fe80::1")
	require.NoError(t, err)
	require.Equal(t, "six", got)
	_, err = opened(t, w, "secret/key", "192.0.2.10")
	require.ErrorIs(t, err, fs.ErrPermission)
	_, err = w.CreateTFTP(t.Context(), &Request{Name: "dump.bin", Peer: netip.MustParseAddrPort("192.0.2.1:1")})
	require.ErrorIs(t, err, fs.ErrPermission)

	for line, msg := range map[string]string{
		"r":       "line 1: want an operation",
		"\nr ( x": "line 2: error parsing regexp",
		"rz a b":  "unknown letter 'z'",
		`r a b\`:  "ends with a backslash",
		`r a \q`:  `contains \q`,
		"r a b c": "want an operation",
	} {
		_, err := ParseMap(strings.NewReader(line))
		var e *SyntaxError
		require.ErrorAs(t, err, &e, line)
		require.ErrorContains(t, err, msg)
	}
}

// What the rules make of a name is as hostile as the name.
func TestRewriteStaysInside(t *testing.T) {
	for _, text := range []string{"r ^(.*)$ ../\\1", "rs ^ x", "rs x x", "rg ^|x xxxxxxxx\nrs x xx"} {
		rules, err := ParseMap(strings.NewReader(text))
		require.NoError(t, err)
		_, err = opened(t, &Rewrite{Rules: rules, Next: echo}, "x", "192.0.2.1")
		require.Error(t, err, text)
	}
}

func FuzzRewrite(f *testing.F) {
	f.Add("rg [a-z](.) \\U\\1", "a/b/c")
	f.Add("rs ^x(.*)$ \\1\\i\\x", "xxxx")
	f.Fuzz(func(t *testing.T, text, raw string) {
		rules, err := ParseMap(strings.NewReader(text))
		name, nerr := cleanName(raw)
		if err != nil || nerr != nil {
			return
		}
		q, err := (&Rewrite{Rules: rules, Next: echo}).rewrite(&Request{Name: name, Peer: netip.MustParseAddrPort("192.0.2.1:1")}, false)
		if err == nil {
			require.True(t, fs.ValidPath(q.Name), "%q", q.Name)
		}
	})
}

func TestMux(t *testing.T) {
	m := new(Mux)
	_, err := opened(t, m, "x", "192.0.2.1")
	require.ErrorIs(t, err, fs.ErrNotExist)
	tag := func(tag string) Handler {
		return HandlerFunc(func(_ context.Context, r *Request) (File, error) {
			s := tag + ":" + r.Name
			return NewFile(strings.NewReader(s), int64(len(s)), ""), nil
		})
	}
	m.Handle("/a/", tag("a"))
	m.Handle("a/b", tag("ab"))
	for name, want := range map[string]string{"a": "a:.", "a/x": "a:x", "a/b/c/d": "ab:c/d", "a/bc": "a:bc"} {
		got, err := opened(t, m, name, "192.0.2.1")
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	_, err = opened(t, m, "ab", "192.0.2.1")
	require.ErrorIs(t, err, fs.ErrNotExist)
	m.Handle("", tag("root"))
	m.Handle("a", nil)
	for name, want := range map[string]string{"a/x": "root:a/x", "x": "root:x", ".": "root:.", "a/b/c": "ab:c"} {
		got, err := opened(t, m, name, "192.0.2.1")
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	_, err = m.CreateTFTP(t.Context(), &Request{Name: "x"})
	require.Equal(t, errNoUploads, err)
}

func TestFoldCase(t *testing.T) {
	fsys := FoldCase(fstest.MapFS{"Boot/BCD": {Data: []byte("1")}, "boot2/x": {Data: []byte("2")}, "boot2/X": {Data: []byte("3")}})
	for name, want := range map[string]string{"boot/bcd": "1", "BOOT/BCD": "1", "boot2/x": "2", "boot2/X": "3"} {
		got, err := opened(t, FileServerFS(fsys), name, "192.0.2.1")
		require.NoError(t, err, name)
		require.Equal(t, want, got, name)
	}
	for _, name := range []string{"boot/none", "none/bcd", "../boot"} {
		_, err := fsys.Open(name)
		require.Error(t, err)
	}
}
