package ltsconf

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

type recordedLTSP struct {
	Name     string
	Client   struct{ Host, IP, MAC, Applet string }
	LTSPConf string `json:"ltsp_conf"`
	Env      map[string]string
	Broken   bool // the client's shell gave up
}

func (r recordedLTSP) client(t testing.TB) LTSPClient {
	c := LTSPClient{Client: Client{Hostname: r.Client.Host}, Applet: r.Client.Applet}
	var err error
	if r.Client.IP != "" {
		c.IP = netip.MustParseAddr(r.Client.IP)
	}
	if r.Client.MAC != "" {
		c.MAC, err = net.ParseMAC(r.Client.MAC)
		require.NoError(t, err)
	}
	return c
}

func recordingsLTSP(t testing.TB, name string) []recordedLTSP {
	b, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	var doc struct{ Cases []recordedLTSP }
	require.NoError(t, json.Unmarshal(b, &doc))
	require.NotEmpty(t, doc.Cases)
	return doc.Cases
}

// env is what the file sets, as the shell sees it.
func env(t testing.TB, f *LTSPFile, c LTSPClient) map[string]string {
	got := map[string]string{}
	for name, v := range f.Resolve(c) {
		lit, ok := v.Literal()
		require.True(t, ok, "%s=%s", name, v.Raw)
		if name != "HOSTNAME" || lit != c.Hostname { // the recordings tell changes only
			got[name] = lit
		}
	}
	return got
}

func TestLTSPIsIni2sh(t *testing.T) {
	for _, file := range []string{"ltspconf19_ini2sh.json", "ini2sh_random.json"} {
		for _, r := range recordingsLTSP(t, file) {
			t.Run(r.Name, func(t *testing.T) {
				f, err := LTSPParser{Compatible: true}.Parse("ltsp.conf", strings.NewReader(r.LTSPConf))
				require.NoError(t, err)
				require.Equal(t, r.Broken, f.Broken(), "%v", f.Problems())
				require.Equal(t, r.Env, env(t, f, r.client(t)))
				require.Empty(t, f.Undecided(r.client(t)))

				// The strict reader takes it only when nothing is odd about it.
				s, err := ParseLTSP(strings.NewReader(r.LTSPConf))
				if len(f.Problems()) > 0 {
					require.Equal(t, f.Problems()[0], err)
					require.ErrorIs(t, err, fs.ErrInvalid)
					return
				}
				require.NoError(t, err)
				require.Equal(t, r.Env, env(t, s, r.client(t)))
				var b bytes.Buffer
				_, err = s.WriteTo(&b)
				require.NoError(t, err)
				require.Equal(t, r.LTSPConf, b.String())
			})
		}
	}
}

func TestLTSPProblems(t *testing.T) {
	for _, c := range []struct {
		in, want string
		broken   bool
	}{
		{"[clients]\nA=x y\n", "x:2:1: this runs the command y; put the value in quotes", false},
		{"[clients]\nMY-KEY=1\n", "x:2:1: this runs the command MY-KEY=1 on the client", false},
		{"[clients]\n  INCLUDE=a\n", "x:2:3: INCLUDE counts in the first column only", false},
		{"[clients]\nA=1\r\n", "x:2:4: carriage return: save the file with Unix line ends, or values end in one", false},
		{"[clients]\nA=\"1\n", "x:2:3: a double quote without a second one; clients do not boot with it", true},
		{"[clients]\nif true; then\nA=1\n", "x:3:4: expected fi, not end of the section; clients do not boot with it", true},
		{"[clients]\nA=$(date\n", "x:2:3: a $( that is not closed; clients do not boot with it", true},
		{"[pc0[1-3]]\nA=1\n", `x:1:1: the section is called "pc01-3"; letters, digits and -*./:?@_| only, and nothing behind the ]`, false},
		{"[]\nA=1\n", "x:1:1: a section without a name, or with an empty alternative; clients do not boot with it", true},
		{"[esac]\n", "x:1:1: a section cannot be called esac; clients do not boot with it", true},
		{"[a]\n[b]\n[a]\n", "x:3:1: section [a] is there already, in line 1, and this one replaces it", false},
		{"[a.b]\n[a-b]\n", "x:2:1: section [a-b] replaces [a.b] of line 1: punctuation does not tell them apart", false},
		{"A=1\n[unnamed]\n", "x:2:1: [unnamed] replaces the lines above the first section", false},
		{"[call]\n", "x:1:1: a section cannot be called call: LTSP has a function of that name", false},
		{"[a]\n(A=1)\n", "x:2:1: what a subshell sets is lost; use { } in place of ( )", false},
		{"[a]\nA=x&B=y\n", "x:2:1: this sets nothing: & runs it in the background; put the value in quotes", false},
		{"[a]\nA=x|y\n", "x:2:1: what is set in a pipeline is lost; put the value in quotes", false},
		{"A=1\n", "x:1:1: a file without sections; put [clients] above the settings; clients do not boot with it", true},
		{"", "x:1:1: a file without sections; put [clients] above the settings; clients do not boot with it", true},
		{"[a]\nA=\"x\n[b]\nB=\"y\n", "x:2:3: a double quote without a second one; it takes in what follows", false},
		{"[a]\nif modprobe x; then A=1; fi\n", "x:2:4: this runs the command modprobe on the client", false},
		{"[a]\n" + strings.Repeat("{ ", 100), "x:2:64: nested too deeply; clients do not boot with it", true},
	} {
		f, err := LTSPParser{}.Parse("x", strings.NewReader(c.in))
		require.Nil(t, f)
		require.EqualError(t, err, c.want, "%q", c.in)
		f, err = LTSPParser{Compatible: true}.Parse("x", strings.NewReader(c.in))
		require.NoError(t, err)
		require.Equal(t, c.broken, f.Broken())
		require.Equal(t, c.want, f.Problems()[0].Error())
	}
	_, err := LTSPParser{MaxSize: 3}.Parse("x", strings.NewReader("[a]\n"))
	require.ErrorIs(t, err, fs.ErrInvalid)
	_, err = ParseLTSPFile(filepath.Join(t.TempDir(), "none"))
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestLTSPProvenance(t *testing.T) {
	_, err := LTSPParser{}.Parse("etc/ltsp.conf", strings.NewReader("TOP=0\n[clients]\nINCLUDE=grp\n  A = 1\nexport E=\"$TOP,$SERVER\"\n[grp]\nA=\"x\ny\"; B=$(date)\n\n[pc01]\nif [ \"$A\" = q ]; then\n  C=no\nelse\n  C=\"yes $B\"\nfi\n"))
	require.Error(t, err) // "  A = 1" runs A
	f, err := LTSPParser{}.Parse("etc/ltsp.conf", strings.NewReader("TOP=0\n[clients]\nINCLUDE=grp\nexport E=\"$TOP,$SERVER\"\n[grp]\nA=\"x\ny\"; B=$(date)\n\n[pc01]\nif [ \"$A\" = q ]; then\n  C=no\nelse\n  C=\"yes $B\"\nfi\n[init/]\n TOP=1\n"))
	require.NoError(t, err)
	c := LTSPClient{Client: pc01, Applet: "init", Env: map[string]string{"SERVER": "10.0.0.1"}}
	v := func(raw, section string, line, col int) Value {
		return Value{Raw: raw, Section: section, File: "etc/ltsp.conf", Line: line, Col: col}
	}
	require.Equal(t, Settings{
		{"TOP", v("1", "init/", 16, 2)},
		{"A", v("x\ny", "grp", 6, 1)},
		{"B", v("$(date)", "grp", 7, 5)},
		{"E", v("0,10.0.0.1", "clients", 4, 1)},
		{"C", v("yes $(date)", "pc01", 13, 3)},
	}, Collect(f.Resolve(c)))
	require.Empty(t, f.Undecided(c))
	var got []string
	for _, s := range f.Explain(c) {
		line := s.Why
		for _, set := range s.Settings {
			line += " " + set.Name + map[bool]string{false: "(" + set.Why + ")"}[set.Used]
		}
		got = append(got, line)
	}
	require.Equal(t, []string{
		`"unnamed" TOP(overridden by [init/], line 16)`, `"clients" E`, "INCLUDE in [clients] A B", `"common": no section`,
		`"00:11:25:84:ce:ba": no section`, `"192.168.67.21": no section`, `"pc01" C`,
		`"init/" TOP`, `"init/00:11:25:84:ce:ba": no section`, `"init/192.168.67.21": no section`, `"init/pc01": no section`,
	}, got)
}

func TestLTSPServer(t *testing.T) {
	f, err := ParseLTSP(strings.NewReader("[server]\nA=server\n[clients]\nA=clients\n[common]\nB=common\n"))
	require.NoError(t, err)
	require.Equal(t, map[string]string{"A": "server", "B": "common"}, env(t, f, LTSPClient{Server: true}))
	require.Equal(t, map[string]string{"A": "clients", "B": "common"}, env(t, f, LTSPClient{}))
}

func TestLTSPUndecided(t *testing.T) {
	f, err := LTSPParser{Compatible: true}.Parse("x", strings.NewReader("[clients]\nif [ -f /etc/x ]; then A=1; fi\nmodprobe y && B=1\nmodprobe y\ncase $(id) in *) C=1;; esac\n(D=1)\nE=1\n"))
	require.NoError(t, err)
	var got []string
	for _, p := range f.Undecided(LTSPClient{}) {
		got = append(got, p.Error())
	}
	require.Equal(t, []string{
		"x:2:4: only the client can tell this condition",
		"x:3:15: only the client can tell whether this is done",
		"x:5:1: only the client can tell which of these cases applies",
	}, got)
	require.Equal(t, map[string]string{"E": "1"}, env(t, f, LTSPClient{}))
}

func TestWriteLTSP(t *testing.T) {
	s := Settings{{"A", Literal("a \"b\" $c\n`d`\\")}, {"low", Literal("NONE")}, {"D", Value{Raw: "$(date)"}}, {"E", Literal("")}, {"LIKE", Literal("\tx\r=")}}
	var b bytes.Buffer
	_, err := s.WriteLTSP(&b)
	require.NoError(t, err)
	f, err := LTSPParser{Compatible: true}.Parse("", &b)
	require.NoError(t, err)
	require.Equal(t, s, plain(Collect(f.Resolve(LTSPClient{}))))
	for _, c := range []struct {
		s    Setting
		want string
	}{
		{Setting{"A", Literal("x\n[y]")}, `setting A: LTSP would change the line "[y]\"" of the value: invalid argument`},
		{Setting{"A", Literal("x\nb = c\nd")}, `setting A: LTSP would change the line "b = c" of the value: invalid argument`},
		{Setting{"A", Literal("x\ninclude=c\nd")}, `setting A: LTSP would change the line "include=c" of the value: invalid argument`},
		{Setting{"Include", Literal("x")}, "setting Include: it means nothing in a resolved file: invalid argument"},
		{Setting{"A B", Literal("x")}, "setting A B: letters, digits and _ only: invalid argument"},
		{Setting{"OK", Literal("x")}, "setting OK: set twice: invalid argument"},
		{Setting{"A", Literal("\x00")}, "setting A: the value has a NUL in it: invalid argument"},
		{Setting{"A", Value{Raw: `"`}}, `setting A: a double quote inside the value; write \" for the character, and no quotes in a comment behind a value: invalid argument`},
	} {
		var b bytes.Buffer
		_, err := Settings{{"OK", Literal("1")}, c.s}.WriteLTSP(&b)
		require.ErrorIs(t, err, fs.ErrInvalid)
		require.EqualError(t, err, c.want)
		require.Empty(t, b.String())
	}
}

// Constructs on which a careless reader takes quadratic time, or too much
// memory: that would show as a test run that does not end.
func TestLTSPHostileInput(t *testing.T) {
	const size = 1 << 19
	rep := func(s string) string { return strings.Repeat(s, size/len(s)) }
	for name, in := range map[string]string{
		"doubling":    "[clients]\nA=xxxxxxxxxx\n" + rep("A=$A$A\n"),
		"chain":       "[clients]\ntrue" + rep(" && true") + "\n",
		"backslashes": "[clients]\nA=" + rep(`\a`),
		"quotes":      "[clients]\nA=" + rep(`""`),
		"lines":       "[clients]\nA=\"" + rep("\n") + "\"\n",
		"names":       "[clients]\n" + rep("AAAAAAAAAA"),
		"unset":       "[clients]\n" + rep("A=1\nunset A\n"),
		"dollars":     "[clients]\nA=" + rep("$A"),
		"braces":      "[clients]\nA=" + rep("${A:-"),
		"parens":      "[clients]\nA=" + rep("$("),
		"loops":       "[clients]\n" + strings.Repeat("for i in 1 2 3 4 5 6 7 8 9 10; do\n", 20) + "A=1\n" + strings.Repeat("done\n", 20),
		"strip":       "[clients]\nA=" + strings.Repeat("a", 4000) + "\n" + strings.Repeat("B=${A%%*b*c}\n", 2000),
		"heredocs":    "[clients]\n" + rep("cat <<A\n"),
		"headers":     rep("[a"),
		"sections":    rep("[*a]\n"),
		"words":       "[clients]\nwhile :; do : " + rep("'' ") + "; done\n",
		"patterns":    "[clients]\nwhile :; do case x in " + rep("''|") + "y) ;; esac; done\n",
		"unknowns":    "[clients]\nwhile :; do [ -f x ] && { " + rep(": ; ") + "}; done\n",
		"empty":       "[clients]\nwhile :; do " + rep("A= ") + "; done\n",
		"includes":    rep("[*a]\n") + "[clients]\nwhile :; do section_call a; done\n",
		"greedy":      "[clients]\nA=" + strings.Repeat("a", 4000) + "\nB=${A%%*" + strings.Repeat("a", 2000) + "b}\n",
		"evals":       "[clients]\nA='" + rep(": ; ") + "'\nwhile :; do eval \"$A\"; done\n",
		"recursion":   "[clients]\nf() { A=$(f); }\nf\n",
		"forks":       "[clients]\nf() { f | f; }\nf\n",
		"arguments":   "[clients]\nset -- " + rep("a ") + "\n" + strings.Repeat("A=${*:-x}\n", 100),
		"tests":       "[clients]\n[ " + rep("1 -o ") + "1 ]\n",
	} {
		t.Run(name, func(t *testing.T) {
			f, err := LTSPParser{Compatible: true}.Parse("", strings.NewReader(in))
			require.NoError(t, err)
			n := 0
			for _, v := range f.Resolve(LTSPClient{Client: pc01, Applet: "init"}) {
				n += len(v.Raw)
			}
			require.LessOrEqual(t, n, 2*maxExpand)
			f.Explain(LTSPClient{Client: pc01})
		})
	}
	chain := new(strings.Builder)
	chain.WriteString("[clients]\nINCLUDE=s0\n")
	for i := range 20000 {
		chain.WriteString(strings.ReplaceAll("[s#]\nA#=1\nINCLUDE=s", "#", itoa(i)) + itoa(i+1) + "\n")
	}
	f, err := ParseLTSP(strings.NewReader(chain.String()))
	require.NoError(t, err)
	require.Empty(t, Collect(f.Resolve(LTSPClient{})))
	require.ErrorContains(t, f.Stops(LTSPClient{}), "nested too deeply")
}

func itoa(i int) string { return strconv.Itoa(i) }

func TestLTSPLint(t *testing.T) {
	f, err := LTSPParser{Compatible: true}.Parse("x", strings.NewReader(`[clients]
INCLUDE=kiok
[pc*]
INCLUDE=kiosk
[pc01]
low=1
[kiosk]
low=1
[00-11-25-84-ce-ba|host2]
low=1
[00-11-25-84-ce-bb]
low=1
[pc1*|pc2?]
low=x y
[init/pc01]
low=1
`))
	require.NoError(t, err)
	var got []string
	for _, x := range f.Lint() {
		got = append(got, x.String())
	}
	require.Equal(t, []string{
		"x:2:1: INCLUDE of kiok: no section matches, and clients ignore it; is it kiosk? (include)",
		"x:5:1: nothing gets to [pc01]: [pc*] in line 3 comes first (dead-section)",
		"x:11:1: no client matches [00-11-25-84-ce-bb]: MAC addresses have colons; write [00:11:25:84:ce:bb] (dead-section)",
		"x:13:1: nothing gets to [pc1*|pc2?]: [pc*] in line 3 comes first (dead-section)",
		"x:14:1: this runs the command y; put the value in quotes (syntax)",
	}, got)
}

func TestLTSPLintSettings(t *testing.T) {
	f, err := LTSPParser{Compatible: true}.Parse("x", strings.NewReader(`[server]
NAT=1
MENU_TIMEOUT=soon
[clients]
NAT=1
DEBUG_SHELL=yes
HOSTNMAE=pc
hostname=pc
AUTOLOGIN=a
AUTOLOGIN=b
OWN=x
POST_INIT_X="echo $OWN"
POST_INTI_X="true"
FSTAB_1="s:/d /d nfs defaults 0 0"
PASSWORDS_1="a/YQo="
DNS_SERVER=dns
INCLUDE=one
[one]
INCLUDE=two
[two]
INCLUDE=one
[00:11:25:84:ce:ba]
KERNEL_PARAMETERS=quiet
PASSWORDS_PC01="a/YQo="
UDEV_SEAT_1_SOUND="*/sound/card1*"
`))
	require.NoError(t, err)
	var got []string
	for _, x := range f.Lint() {
		got = append(got, x.String())
	}
	require.Equal(t, []string{
		`x:3:1: MENU_TIMEOUT: "soon" is no number (type)`,
		"x:5:1: NAT counts in [server] only (unused)",
		`x:6:1: DEBUG_SHELL: "yes" must be 0 or 1 (type)`,
		"x:7:1: LTSP does not know HOSTNMAE; is it HOSTNAME? (unknown)",
		"x:8:1: LTSP does not know hostname; is it HOSTNAME? (unknown)",
		"x:9:1: AUTOLOGIN is set again in line 10, which counts (duplicate-setting)",
		"x:13:1: LTSP does not know POST_INTI_X; is it POST_INIT_X? (unknown)",
		"x:14:1: FSTAB_1: without nofail among its options the boot stops when this cannot be mounted (fstab)",
		"x:15:1: PASSWORDS_1 looks like a secret, and each client that [clients] applies to can read it (secret)",
		`x:16:1: DNS_SERVER: "dns" is no IP address (type)`,
		"x:21:1: INCLUDE in a circle: [one] runs already, and this does nothing (include)",
	}, got)
	seen := map[string]bool{}
	for _, v := range LTSPVariables() {
		require.False(t, seen[v.Name], v.Name)
		seen[v.Name] = true
		require.NotEmpty(t, v.Meaning, v.Name)
		require.NotEmpty(t, v.Type, v.Name)
		if !strings.ContainsAny(v.Name, "*<") && !strings.ContainsAny(v.Default, "$%") {
			require.Empty(t, v.Check(v.Default), v.Name)
		}
	}
}
