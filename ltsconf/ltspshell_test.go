package ltsconf

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// shellCases are bodies of a section, and what they set. Each is run by a
// real shell too.
var shellCases = []struct {
	code string
	want map[string]string
}{
	{"i=0\nwhile [ $i -lt 3 ]; do i=$((i+1)); A=$A$i; [ $i = 2 ] && break; done", map[string]string{"i": "2", "A": "12"}},
	{"until [ \"$A\" = xxx ]; do A=${A}x; done", map[string]string{"A": "xxx"}},
	{"for i in 1 2 3; do for x in a b; do [ $x = a ] && continue 2; A=$A$i$x; done; done", map[string]string{"i": "3", "x": "a"}},
	{"for i in 1 2 3; do case $i in 2) continue;; esac; A=$A$i; done", map[string]string{"i": "3", "A": "13"}},
	{"f() { local B=in; A=$1-$#-$B; return 3; }\nB=out; f q r || C=$?", map[string]string{"A": "q-2-in", "B": "out", "C": "3"}},
	{"A=1; (A=2; B=3); { C=4; }; D=5 | true", map[string]string{"A": "1", "C": "4"}},
	{"A=$(B=1; echo \"x  y\"; printf '%s-%03d\\n\\n' z 7)", map[string]string{"A": "x  y\nz-007"}},
	{"A=\"$(echo \"a $(echo b)\")\"; B=`echo \\`echo c\\``", map[string]string{"A": "a b", "B": "c"}},
	{"A=$((2+3*4)); B=$((A<<1 | 1)); C=$((A>9 ? 0x1f : 010)); D=$(( (A+=1) == 15 && !0 ))", map[string]string{"A": "15", "B": "29", "C": "31", "D": "1"}},
	{"while read -r x y; do A=$A$x; B=$y; done <<E\none 1 2\n  two 3\nE", map[string]string{"A": "onetwo", "B": "3", "x": "", "y": ""}},
	{"B=q\nread A <<'E'\n$B `x`\nE\nread C <<-E\n\t$B $((1+1))\n\tE", map[string]string{"B": "q", "A": "$B `x`", "C": "q 2"}},
	{"A='x y'; set -- $A \"$A\"; B=$#; shift; C=$*; D=$1", map[string]string{"A": "x y", "B": "3", "C": "y x y", "D": "y"}},
	{"IFS=:; A=a:b::c; set -- $A; B=$#; C=$4; unset IFS", map[string]string{"A": "a:b::c", "B": "4", "C": "c"}},
	{"A=${B:-\"x y\"}; C=\"${B-'q'}\"; D=${A#*' '}; E=${#A}", map[string]string{"A": "x y", "C": "'q'", "D": "y", "E": "3"}},
	{"A=aXbXc; B=${A%X*} C=${A%%X*} D=${A#*X} E=${A##*X}; F=\"${A%\"X\"*}\"", map[string]string{"A": "aXbXc", "B": "aXb", "C": "a", "D": "bXc", "E": "c", "F": "aXb"}},
	{"case x in [!x]) A=1;; [^y]) A=2;; [[:alpha:]]) A=3;; esac", map[string]string{"A": "3"}},
	{"A='*'; case '*' in \"$A\") B=1;; esac; case z in $A) C=1;; esac", map[string]string{"A": "*", "B": "1", "C": "1"}},
	{"eval 'A=1; B=$A'; eval \"C=\\$B\"", map[string]string{"A": "1", "B": "1", "C": "1"}},
	{"A=1; export A B=\"x y\"; export C=$B; unset A", map[string]string{"B": "x y", "C": "x y"}},
	{"if [ 1 -eq 1 -a ! x = y ] && ! test -z x; then A=1; elif false; then A=2; else A=3; fi", map[string]string{"A": "1"}},
	{":; [ -n = ] && A=1; [ '(' = '(' ] && B=1; [ ! ] && C=1; [ x -eq 1 ]; D=$?", map[string]string{"A": "1", "B": "1", "C": "1", "D": "2"}},
	{"! true || A=1; true && false || B=$?; : ${C:=dflt} ${C:+x}", map[string]string{"A": "1", "B": "1", "C": "dflt"}},
	{"f() for x; do A=$A[$x]; done\nf 'a b' c", map[string]string{"A": "[a b][c]", "x": "c"}},
	{"A=1 B=$A true; A=2 eval 'C=$A'; A=3 :", map[string]string{"A": "3", "C": "2"}},
	{"A=x\\\ny; B='x\ny'; C=\"x\\\ny\"; D=a\\ b#c # d", map[string]string{"A": "xy", "B": "x\ny", "C": "xy", "D": "a b#c"}},
	{"A=1 > /dev/null 2>&1; { B=2; } 2>/dev/null; echo hidden >&2; C=$(echo no >/dev/null)", map[string]string{"A": "1", "B": "2", "C": ""}},
	{"f() { A=$A.; [ ${#A} -ge 4 ] || f; }\nf", map[string]string{"A": "...."}},
	{"A=$(exit 3); B=$?; C=$(true) || D=1", map[string]string{"A": "", "B": "3", "C": ""}},
	{"A=1\nreturn\nA=2", map[string]string{"A": "1"}},
	{"false; A=$(exit 3)$?; B=$?", map[string]string{"A": "1", "B": "3"}},
	{"false; A=$(exit 3) B=$?", map[string]string{"A": "", "B": "1"}},
	// LTSP runs under set -e, which counts in substitutions only: elsewhere
	// its own functions look at the status.
	{"A=$(false; echo no); B=$?; false; C=1", map[string]string{"A": "", "B": "1", "C": "1"}},
	{"A=$(echo 1; if false; then :; fi; false && true; ! true; false || echo 2; (exit 3); echo 3)", map[string]string{"A": "1\n2"}},
	{"A=$(f() { false; echo 1; }; f || :; eval f || :; if f; then :; fi; f; echo 2)", map[string]string{"A": "1\n1\n1"}},
	{"A=$( (false; echo 1) || :; { false; echo 2; } 2>/dev/null || :; true && false; echo 3); B=$(true | false; echo 1)", map[string]string{"A": "1\n2", "B": ""}},
	{"A=$(for i in 1; do false; done; echo 1); B=$(while read -r x; do :; done </dev/null; echo 2)", map[string]string{"A": "", "B": "2"}},
	{"A=$(set +e; false; echo 1; B=$(false; echo 2); echo $B); C=$(false; echo 3); set +e; D=$(false; echo 4)", map[string]string{"A": "1\n2", "C": "", "D": "4"}},
	{"A=$(echo $(false; echo 1); B=$(false); echo 2)", map[string]string{"A": ""}},
	{"A=\"${B-\"}\"}\"; C=\"${B-\"x}y\"}z\"", map[string]string{"A": "}", "C": "x}yz"}},
	{"read -r A <<E\nq\\\nE\nE\nread -r B <<-E\n\tx\\\\\n\tE", map[string]string{"A": "qE", "B": "x\\"}},
	{"{ { A=1; } }; if (B=2) then C=3; fi; if :; then if :; then D=4; fi fi", map[string]string{"A": "1", "C": "3", "D": "4"}},
	{"case x in x) { A=1; } esac", map[string]string{"A": "1"}},
	{"IFS=:; set -- a b '' c; A=$*; B=$@; C=\"$*\"; D=\"$@\"; E=x${*}y; F=${*:-x}; unset IFS", map[string]string{"A": "a:b::c", "B": "a:b::c", "C": "a:b::c", "D": "a:b::c", "E": "xa:b::cy", "F": "a:b::c"}},
	{"IFS=; set -- a b; A=$*; B=$@; C=\"$*\"; D=\"$@\"; E=${*#a}; F=${Q:-$*}; unset IFS", map[string]string{"A": "ab", "B": "ab", "C": "ab", "D": "ab", "E": "b", "F": "ab"}},
	{"IFS=x; set -- a b; case $* in axb) A=1;; esac; case axb in $@) B=1;; esac; read C <<E\n$@\nE\nfor i in $*; do D=$D.$i; done; for i in \"$@\"; do E=$E.$i; done; unset IFS", map[string]string{"A": "1", "B": "1", "C": "axb", "D": ".a.b", "E": ".a.b", "i": "b"}},
	{"IFS=:; set -- a 'b c'; for i in ${*:-x}; do A=$A.$i; done; for i in ${Q:-$@}; do B=$B.$i; done; unset IFS", map[string]string{"A": ".a.b c", "B": ".a.b c", "i": "b c"}},
	{"\"\"; A=$?", map[string]string{"A": "127"}},
}

func TestLTSPShell(t *testing.T) {
	need(t, "dash")
	for _, c := range shellCases {
		t.Run(c.code, func(t *testing.T) {
			f, err := LTSPParser{Compatible: true}.Parse("x", strings.NewReader("[clients]\n"+c.code+"\n"))
			require.NoError(t, err)
			require.False(t, f.Broken(), "%v", f.Problems())
			require.Empty(t, f.Undecided(LTSPClient{}))
			require.Equal(t, c.want, env(t, f, LTSPClient{}))

			out, err := exec.Command("dash", "-c", "set -e\nf0() {\n"+c.code+"\n}\nf0 >/dev/null 2>&1 || :\nset +e\n"+`for v in A B C D E F i x y; do eval "[ -n \"\${$v+x}\" ] && printf '%s=%s\\0' $v \"\$$v\""; done; exit 0`).Output()
			require.NoError(t, err)
			got := map[string]string{}
			for _, kv := range strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00") {
				k, v, _ := strings.Cut(kv, "=")
				got[k] = v
			}
			require.Equal(t, c.want, got)
		})
	}
}

// What needs the client is told with its place, and does not count.
func TestLTSPNeedsTheClient(t *testing.T) {
	for _, c := range []struct{ code, want string }{
		{"for i in $(ls); do A=1; done", "x:2:1: only the client can tell what this loops over"},
		{"for i in /etc/*; do A=1; done", "x:2:1: only the client can tell what this loops over"},
		{"while pidof x; do A=1; done", "x:2:7: only the client can tell this condition"},
		{"B=$(id); case ${B%x} in y) A=1;; esac", "x:2:10: only the client can tell what ${B%x} is"},
		{"B=$(id)\nC=$((B+1))", "x:3:1: only the client can tell what $((B+1)) is"},
		{"read A < /etc/hostname", "x:2:1: only the client can tell what is read here"},
		{". /etc/default/x", "x:2:1: only the client can tell what . does"},
		{"eval \"$(id)\"", "x:2:1: only the client can tell what this command is given"},
		{"while :; do A=1; done", "x:2:7: this takes too long to evaluate"},
		{"f() { [ -e /x ] && return; A=1; }\nf", "x:2:20: only the client can tell whether this is done"},
		{"A=$(id >/dev/null; echo 1)\ncase $A in 1) ;; esac", "x:3:1: only the client can tell which of these cases applies"},
	} {
		f, err := LTSPParser{Compatible: true}.Parse("x", strings.NewReader("[clients]\n"+c.code+"\n"))
		require.NoError(t, err)
		got := f.Undecided(LTSPClient{})
		require.NotEmpty(t, got, c.code)
		require.Equal(t, c.want, got[0].Error())
		require.Nil(t, f.Stops(LTSPClient{}), c.code)
	}
}

func TestLTSPStops(t *testing.T) {
	for _, c := range []struct{ code, want string }{
		{"A=1", ""},
		{"A=1\ntest x = y && B=1\n:", ""},
		{"A=1\ntest x = y && B=1", "x:3:1: the section ends in a command that fails, and the client stops its boot; use an if, or put true behind it"},
		{"A=1\n: ${B:?}", "x:3:1: B is not set; the client stops its boot here"},
		{"A=1\nreadonly A; A=2", "x:3:13: A is readonly; the client stops its boot here"},
		{"A=1\nB=$((1/0))", "x:3:1: $((1/0)): division by zero; the client stops its boot here"},
		{"A=1\nexit", "x:3:1: exit ends LTSP itself; the client stops its boot here"},
		{"f() { f; }\nf", "x:2:7: functions are nested too deeply; the client stops its boot here"},
		{"(exit 1); A=$(exit 2); (: ${B:?}); A=1", ""},
	} {
		f, err := LTSPParser{Compatible: true}.Parse("x", strings.NewReader("[pc01]\n"+c.code+"\n"))
		require.NoError(t, err)
		require.Nil(t, f.Stops(LTSPClient{}), "another client")
		stop := f.Stops(LTSPClient{Client: pc01})
		if c.want == "" {
			require.Nil(t, stop, c.code)
			require.Contains(t, env(t, f, LTSPClient{Client: pc01}), "A")
			continue
		}
		require.NotNil(t, stop, c.code)
		require.Equal(t, c.want, stop.Error())
		require.Equal(t, !strings.HasSuffix(c.want, "boot here"), len(env(t, f, LTSPClient{Client: pc01})) > 0)
	}
}

// A quote or a brace does not care for headers.
func TestLTSPOverBorders(t *testing.T) {
	f, err := LTSPParser{Compatible: true}.Parse("x", strings.NewReader("[clients]\nA=1\n}\nB=2\nlater() {\nD=4\n[pc01]\nC=3\n"))
	require.NoError(t, err)
	require.False(t, f.Broken())
	require.Equal(t, "x:3:1: unexpected }; it takes in what follows", f.Problems()[0].Error())
	require.Equal(t, map[string]string{"A": "1", "B": "2", "C": "3"}, env(t, f, LTSPClient{Client: pc01}))
	steps := f.Explain(LTSPClient{Client: pc01})
	require.Equal(t, "outside of the sections", steps[0].Why)
	require.Equal(t, "B", steps[0].Settings[0].Name)

	f, err = LTSPParser{Compatible: true}.Parse("x", strings.NewReader("[a]\ncat <<E\n[clients]\nA=1\n"))
	require.NoError(t, err)
	require.True(t, f.Broken())
}
