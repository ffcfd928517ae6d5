package ltsconf

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func render(t testing.TB, s Settings) string {
	var b bytes.Buffer
	n, err := s.WriteTo(&b)
	require.NoError(t, err)
	require.EqualValues(t, b.Len(), n)
	return b.String()
}

func TestRenderRecorded(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("testdata", "render.json"))
	require.NoError(t, err)
	var doc struct {
		Pairs []struct{ Value, Line string }
	}
	require.NoError(t, json.Unmarshal(b, &doc))
	require.NotEmpty(t, doc.Pairs)
	for _, p := range doc.Pairs {
		require.Equal(t, "[Default]\n"+p.Line+"\n", render(t, Settings{{"KEY", Literal(p.Value)}}))
		got, ok := Literal(p.Value).Literal()
		require.True(t, ok)
		require.Equal(t, p.Value, got)
	}
}

func TestRenderRefuses(t *testing.T) {
	from := Value{Raw: "a\nb", Section: "pc", File: "lts.conf", Line: 7, Col: 1}
	for _, c := range []struct {
		s    Setting
		want string
	}{
		{Setting{"A", from}, `setting A (lts.conf line 7): the value has '\n' in it, which lts.conf cannot hold`},
		{Setting{"A", Literal("a\rb")}, `setting A: the value has '\r' in it, which lts.conf cannot hold`},
		{Setting{"A", Literal("a\x00b")}, `setting A: the value has '\x00' in it, which lts.conf cannot hold`},
		{Setting{"a", Literal("nOne")}, "setting A: the value nOne means not set; leave the setting out"},
		{Setting{"A", Value{Raw: `a" ; reboot ; "`}}, `setting A: a double quote inside the value; write \" for the character, and no quotes in a comment behind a value`},
		{Setting{"A", Value{Raw: `a\`}}, `setting A: a backslash at the end escapes the closing quote; write \\`},
		{Setting{"A", Value{Raw: "$(a"}}, `setting A: a "$(" or "${" that is not closed; write \$ for the character`},
		{Setting{"", Literal("1")}, `setting "": letters, digits and _ only`},
		{Setting{"1A", Literal("1")}, `setting "1A": letters, digits and _ only`},
		{Setting{"A;reboot", Literal("1")}, `setting "A;REBOOT": letters, digits and _ only`},
		{Setting{"É", Literal("1")}, `setting "É": letters, digits and _ only`},
		{Setting{"optind", Literal("1")}, "setting OPTIND: clients' shells keep this name for themselves, and the boot would end"},
		{Setting{"UID", Literal("1")}, "setting UID: clients' shells keep this name for themselves, and the boot would end"},
		{Setting{"like", Literal("1")}, "setting LIKE: it means nothing in a resolved file"},
		{Setting{"ok", Literal("2")}, "setting OK: set twice"},
	} {
		var b bytes.Buffer
		n, err := Settings{{"OK", Literal("1")}, c.s}.WriteTo(&b)
		require.ErrorIs(t, err, fs.ErrInvalid)
		require.EqualError(t, err, c.want+": invalid argument")
		require.Zero(t, n)
		require.Empty(t, b.String(), "nothing is written")
	}
}

func TestRenderNothing(t *testing.T) {
	out := render(t, nil)
	require.NotEmpty(t, out, "a client ignores an empty file")
	f, err := Parse(strings.NewReader(out))
	require.NoError(t, err)
	require.Empty(t, Collect(f.Resolve(pc01)))
}

func randomValue(r *rand.Rand) string {
	const odd = "\\\"$`'#=[]{}()!~*?;&|<> \t"
	var b strings.Builder
	for range r.IntN(24) {
		switch r.IntN(3) {
		case 0:
			b.WriteByte(odd[r.IntN(len(odd))])
		case 1:
			b.WriteByte(byte(' ' + r.IntN('~'-' '+1)))
		default:
			b.WriteString([]string{"é", "ж", "\u00a0", "\xff", "$(", "${", "\\\"", "a", "0"}[r.IntN(9)])
		}
	}
	return b.String()
}

// A shell evaluates what a client prints from the file, both ways in which
// clients do it: as it is, and as unquoted words.
func TestRenderedValuesThroughShell(t *testing.T) {
	need(t, "dash", "bash", "busybox")
	r := rand.New(rand.NewPCG(1, 2))
	var s Settings
	var values, print strings.Builder
	squeeze := regexp.MustCompile(`[ \t]+`)
	hostile := []string{"$(touch x)", "`touch x`", "\"; touch x; \"", "'; touch x; '", "\\\"; touch x; \\\"", "${A:=$(touch x)}", "$((1))", "a & touch x", "a|touch x", "a>x", "!!", "~", "*", "\\", "\\\\", "#", "a #b", "{a,b}", "$'x'"}
	for i := range 400 + len(hostile) {
		v := ""
		if i < len(hostile) {
			v = hostile[i]
		} else {
			v = randomValue(r)
		}
		name := fmt.Sprintf("V%d", i)
		s = append(s, Setting{name, Literal(v)})
		fmt.Fprintf(&values, "%s\x00", v)
		fmt.Fprintf(&print, "printf '%%s\\000' \"$%s\"\n", name)
	}
	f, err := Parse(strings.NewReader(render(t, s)))
	require.NoError(t, err)
	dir := t.TempDir()
	env := filepath.Join(dir, "env")
	require.NoError(t, os.WriteFile(env, []byte(output(f, pc01)), 0o600))

	for _, shell := range [][]string{{"dash"}, {"bash", "--posix"}, {"busybox", "sh"}} {
		run := func(first string) string {
			cmd := exec.Command(shell[0], append(shell[1:], "-c", first+"\n"+print.String(), "sh", env)...)
			cmd.Dir, cmd.Env = dir, append(os.Environ(), "LC_ALL=C")
			out, err := cmd.Output()
			require.NoError(t, err, shell)
			return string(out)
		}
		require.Equal(t, values.String(), run(`. "$1"`), shell)
		require.Equal(t, squeeze.ReplaceAllString(values.String(), " "), run(`set -f; eval $(cat "$1")`), shell)
	}
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 1, "a value ran as a command")
}

// What the check lets through a shell can parse, and what it calls literal
// the shell leaves alone. Nothing that would run a command is run.
func TestCheckAgainstShell(t *testing.T) {
	need(t, "sh")
	r := rand.New(rand.NewPCG(3, 4))
	accepted := 0
	for range 1500 {
		raw := strings.ReplaceAll(randomValue(r), "${", "$")
		expands, err := checkQuoted(raw)
		if err != nil {
			continue
		}
		accepted++
		if expands {
			if !strings.ContainsAny(raw, "`(") { // the inside of a command is its own business
				out, err := exec.Command("sh", "-n", "-c", `A="`+raw+`"`).CombinedOutput()
				require.NoError(t, err, "%q: %s", raw, out)
			}
			continue
		}
		want, ok := Value{Raw: raw}.Literal()
		require.True(t, ok)
		if accepted%4 == 0 { // a process each
			out, err := exec.Command("sh", "-c", `A="`+raw+`"; printf %s "$A"`).CombinedOutput()
			require.NoError(t, err, "%q", raw)
			require.Equal(t, want, string(out), "%q", raw)
		}
	}
	require.Greater(t, accepted, 500)
}

func TestNotLiteral(t *testing.T) {
	for _, raw := range []string{"$A", "a$1", "${A}", "$(id)", "`id`", "$$", "$?", `a"b`, `a\`, "`"} {
		_, ok := Value{Raw: raw}.Literal()
		require.False(t, ok, raw)
	}
	for raw, want := range map[string]string{"$": "$", "a $ b": "a $ b", "$.": "$.", `\a\\`: `\a\`, `\$A`: "$A", "it's": "it's"} {
		got, ok := Value{Raw: raw}.Literal()
		require.True(t, ok, raw)
		require.Equal(t, want, got)
	}
}

func TestNames(t *testing.T) {
	// Recorded from the script that fetches the file: the boot file's
	// directory, and what the client asks for.
	for _, c := range []struct{ arch, bootDir, asked string }{
		{"i386", "", "/ltsp/i386/lts.conf"}, // vmlinuz
		{"i386", "/ltsp/i386/", "/ltsp/i386/lts.conf"},
		{"amd64", "ltsp/amd64/", "ltsp/amd64/lts.conf"},
		{"amd64", "/", "/lts.conf"},
		{"amd64", "(tftp)/ltsp/amd64/", "(tftp)/ltsp/amd64/lts.conf"},
		{"amd64", "http://192.168.67.1/ltsp/amd64/", "http://192.168.67.1/ltsp/amd64/lts.conf"},
	} {
		require.Contains(t, Names(c.arch, c.bootDir), c.asked)
	}
	require.Equal(t, []string{"/img/lts.conf", "img/lts.conf", "/ltsp/amd64/lts.conf", "ltsp/amd64/lts.conf"}, Names("amd64", "/img"))
	require.Equal(t, []string{"/ltsp/amd64/lts.conf", "ltsp/amd64/lts.conf"}, Names("amd64", "ltsp/amd64"))
	require.Equal(t, []string{"http://h/x/lts.conf", "/ltsp/amd64/lts.conf", "ltsp/amd64/lts.conf"}, Names("amd64", "http://h/x"))
	require.Empty(t, Names("", ""))
}

// The names that are refused do end a shell, with a value that others take.
func TestShellsOwnNames(t *testing.T) {
	need(t, "dash", "bash")
	for _, name := range append([]string{"A", "PATH", "UID", "EUID", "PPID", "SHELLOPTS", "BASHOPTS", "BASH_VERSINFO"}, shellsOwn[:]...) {
		ends := false
		for _, shell := range [][]string{{"dash", "-c"}, {"bash", "--posix", "-c"}} {
			ends = ends || exec.Command(shell[0], append(shell[1:], name+`="x"; exit 0`)...).Run() != nil
		}
		require.Equal(t, isShellsOwn(name), ends, name)
		_, err := Parse(strings.NewReader("[default]\n" + name + "=x\n"))
		require.Equal(t, ends, err != nil, name)
	}
}
