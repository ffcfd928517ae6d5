package ltsconf

import (
	"bytes"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

func text(t testing.TB, f *File) string {
	var b bytes.Buffer
	_, err := f.WriteTo(&b)
	require.NoError(t, err)
	return b.String()
}

func mustParse(t testing.TB, in string) *File {
	f, err := Parse(strings.NewReader(in))
	require.NoError(t, err)
	return f
}

const editable = `# head
[Default]
    SOUND     = True # loud
    XKBLAYOUT = "us,ru"
    # the last word
    SOUND     = False

[pc01] A=1 # one line
[pc02]
	LIKE=pc01
	B="x y"  # why
  # end of pc02

# tail
`

func TestEdits(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*File) (*File, error)
		old  string
		new  string
	}{
		{"the last counts", func(f *File) (*File, error) { return f.Set("DEFAULT", "sound", Literal("True")) }, "= False", "= True"},
		{"quoted stays quoted", func(f *File) (*File, error) { return f.Set("default", "XKBLAYOUT", Literal("de")) }, `"us,ru"`, `"de"`},
		{"quotes where needed", func(f *File) (*File, error) { return f.Set("pc01", "A", Literal("a $b")) }, "A=1 #", `A="a \$b" #`},
		{"behind the last, aligned", func(f *File) (*File, error) { return f.Set("default", "LANG", Literal("C")) }, "= False\n", "= False\n    LANG      = C\n"},
		{"longer than the column", func(f *File) (*File, error) { return f.Set("default", "SEARCH_DOMAIN", Literal("x")) }, "= False\n", "= False\n    SEARCH_DOMAIN = x\n"},
		{"behind a header line", func(f *File) (*File, error) { return f.Set("pc01", "B", Literal("")) }, "one line\n", "one line\n    B=\"\"\n"},
		{"tabs", func(f *File) (*File, error) { return f.Set("pc02", "C", Literal("2")) }, "# why\n", "# why\n\tC=\"2\"\n"},
		{"LIKE", func(f *File) (*File, error) { return f.Set("pc02", "LIKE", Literal("Default")) }, "LIKE=pc01", "LIKE=Default"},
		{"unset, comment stays", func(f *File) (*File, error) { return f.Unset("pc02", "b") }, "\tB=\"x y\"  # why", "\t  # why"},
		{"unset LIKE", func(f *File) (*File, error) { return f.Unset("pc02", "LIKE") }, "\tLIKE=pc01\n", ""},
		{"unset nothing", func(f *File) (*File, error) { return f.Unset("pc02", "ZZ") }, "", ""},
		{"add", func(f *File) (*File, error) {
			return f.AddSection("pc 03", Settings{{"like", Literal("pc01")}, {"LIKE", Literal("pc02")}, {"c", Literal(`"`)}})
		}, "# tail\n", "# tail\n\n[pc 03]\nLIKE=\"pc01\"\nLIKE=\"pc02\"\nC=\"\\\"\"\n"},
		{"add, quoted name", func(f *File) (*File, error) { return f.AddSection("a[1]", Settings{{"C", Literal("1")}}) }, "# tail\n", "# tail\n\n[\"a[1]\"]\nC=\"1\"\n"},
		{"remove", func(f *File) (*File, error) { return f.RemoveSection("PC02") }, "[pc02]\n\tLIKE=pc01\n\tB=\"x y\"  # why\n", "\t  # why\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := mustParse(t, editable)
			g, err := c.edit(f)
			require.NoError(t, err)
			require.Equal(t, strings.Replace(editable, c.old, c.new, 1), text(t, g))
			require.Equal(t, editable, text(t, f), "the receiver stays")
		})
	}
	// Both of one name go.
	g, err := mustParse(t, editable).Unset("default", "SOUND")
	require.NoError(t, err)
	require.Equal(t, strings.NewReplacer("    SOUND     = True # loud", "     # loud", "    SOUND     = False\n", "").Replace(editable), text(t, g))
	// A file without a line end.
	g, err = mustParse(t, "[a]\nA=1").Set("a", "B", Literal("2"))
	require.NoError(t, err)
	require.Equal(t, "[a]\nA=1\nB=2", text(t, g))
	g, err = mustParse(t, "").AddSection("a", Settings{{"A", Literal("1")}})
	require.NoError(t, err)
	require.Equal(t, "[a]\nA=\"1\"\n", text(t, g))
}

func TestEditRefuses(t *testing.T) {
	f, err := Parser{Includes: fstest.MapFS{"inc": {Data: []byte("[inc]\nA=1\n")}}}.Parse("", strings.NewReader("[a]\nA=1 # not \"quoted\"\ninclude inc\n"))
	require.NoError(t, err)
	for _, c := range []struct {
		edit func() (*File, error)
		is   error
		want string
	}{
		{func() (*File, error) { return f.Set("b", "A", Literal("1")) }, fs.ErrNotExist, "section [b]: file does not exist"},
		{func() (*File, error) { return f.Set("inc", "A", Literal("1")) }, fs.ErrInvalid, "section [inc] is in inc, an included file; edit that one: invalid argument"},
		{func() (*File, error) { return f.Set("a", "A", Literal("b c")) }, fs.ErrInvalid, "A cannot be set on its line (is there a double quote in a comment behind it?): invalid argument"},
		{func() (*File, error) { return f.Set("a", "A", Literal("none")) }, fs.ErrInvalid, "setting A: the value none means not set; leave the setting out: invalid argument"},
		{func() (*File, error) { return f.Set("a", "A B", Literal("1")) }, fs.ErrInvalid, `setting "A B": letters, digits and _ only: invalid argument`},
		{func() (*File, error) { return f.Unset("a", "A") }, fs.ErrInvalid, "[a] would be empty without A, and clients stop reading at an empty section; use RemoveSection: invalid argument"},
		{func() (*File, error) { return f.AddSection("A", Settings{{"A", Literal("1")}}) }, fs.ErrExist, "section [A]: file already exists"},
		{func() (*File, error) { return f.AddSection("b", nil) }, fs.ErrInvalid, "section [b] needs a setting: clients stop reading at an empty one: invalid argument"},
		{func() (*File, error) { return f.AddSection("b\"", Settings{{"A", Literal("1")}}) }, fs.ErrInvalid, `section "b\"": no quotes, no line ends: invalid argument`},
		{func() (*File, error) { return f.AddSection("b", Settings{{"LIKE", Literal("b")}}) }, fs.ErrInvalid, "the edit would break the file: lts.conf:6:6: LIKE in a circle: [b] leads back to itself, and clients never finish reading"},
	} {
		g, err := c.edit()
		require.Nil(t, g)
		require.ErrorIs(t, err, c.is)
		require.EqualError(t, err, c.want)
	}
	_, err = parseCompatible(t, "[a]\nA=1\nB=\n").Set("a", "A", Literal("1"))
	require.ErrorIs(t, err, fs.ErrInvalid)
}

func TestExplain(t *testing.T) {
	f := mustParse(t, `[pc01]
A=1
LIKE=grp
[00:11:25:84:ce:ba]
A=mac
[grp]
A=2
B=NONE
[pc*]
B=3
C=3
[default]
C=4
D=4
`)
	steps := f.Explain(pc01)
	var got []string
	for _, s := range steps {
		line := s.Why
		if s.Section != "" {
			line += " -> " + bracket(s.Section)
		}
		for _, set := range s.Settings {
			require.True(t, s.Applies)
			line += " " + set.Name
			if !set.Used {
				line += "(" + set.Why + ")"
			}
		}
		got = append(got, line)
	}
	require.Equal(t, []string{
		`host name "pc01" -> [pc01] A`,
		`LIKE of [pc01] -> [grp] A(overridden by [pc01]) B(NONE removes it)`,
		`IP address "192.168.67.21": no section`,
		`MAC address "00:11:25:84:ce:ba": ignored, clients use one exact section only, [pc01] -> [00:11:25:84:ce:ba]`,
		`pattern for host name "pc01" -> [pc*] B(overridden by [grp]) C`,
		`pattern for IP address "192.168.67.21": none matches`,
		`pattern for MAC address "00:11:25:84:ce:ba": none matches`,
		`default -> [default] C(overridden by [pc*]) D`,
	}, got)
}

// Explain and Resolve never differ.
func TestExplainIsResolve(t *testing.T) {
	for _, r := range recordings(t) {
		f, err := Parser{Compatible: true, Includes: r.includes()}.Parse("", strings.NewReader(r.LTSConf))
		require.NoError(t, err)
		want, got := map[string]Value{}, map[string]Value{}
		for name, v := range f.Resolve(r.client(t)) {
			want[name] = v
		}
		for _, s := range f.Explain(r.client(t)) {
			for _, set := range s.Settings {
				if set.Used {
					got[set.Name] = set.Value
				}
			}
		}
		require.Equal(t, want, got, r.Name)
	}
}
