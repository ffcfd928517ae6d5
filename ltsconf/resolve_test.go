package ltsconf

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func parseCompatible(t testing.TB, in string) *File {
	f, err := Parser{Compatible: true}.Parse("", strings.NewReader(in))
	require.NoError(t, err)
	return f
}

func TestResolveUnknownIDsMatchNothing(t *testing.T) {
	f := parseCompatible(t, "[*]\nA=star\n[\"\"]\nB=empty\n[default]\nC=default\n")
	require.Equal(t, "C=\"default\"\nexport C\n", output(f, Client{}))
	require.Equal(t, "C=\"default\"\nexport C\n", output(f, Client{IP: netip.MustParseAddr("2001:db8::1")}))
	require.Equal(t, "C=\"default\"\nA=\"star\"\nexport C\nexport A\n", output(f, Client{IP: netip.MustParseAddr("::ffff:10.0.0.1")}))
}

func TestResolveCircles(t *testing.T) {
	f := parseCompatible(t, "[a]\nLIKE=b\nA=1\nX=a\n[b]\nLIKE=a\nLIKE=c\nB=1\nX=b\n[c]\nC=1\nLIKE=c\nX=c\n")
	require.Len(t, f.Problems(), 2)
	for host, want := range map[string]string{"a": "a", "b": "b", "c": "c"} {
		got := map[string]string{}
		for name, v := range f.Resolve(Client{Hostname: host}) {
			got[name] = v.Raw
		}
		require.Equal(t, want, got["X"], host)
		require.Equal(t, host != "c", got["A"] == "1", "%s: each section of a circle applies", host)
		require.Equal(t, "1", got["C"])
	}
}

func TestResolveStopsEarly(t *testing.T) {
	f := parseCompatible(t, "[default]\nA=1\nB=2\n")
	n := 0
	for range f.Resolve(Client{}) {
		n++
		break
	}
	require.Equal(t, 1, n)
}

// Every level has two ways to the next: 2^3000 ways in all.
func TestResolveLadder(t *testing.T) {
	const levels = 3000
	var b strings.Builder
	for i := range levels {
		fmt.Fprintf(&b, "[l%d]\nLIKE=m%d\nLIKE=l%d\nX%d=1\n[m%d]\nLIKE=l%d\nX%d=2\n", i, i, i+1, i, i, i+1, i)
	}
	fmt.Fprintf(&b, "[l%d]\nLAST=1\n", levels)
	f, err := Parse(strings.NewReader(b.String()))
	require.NoError(t, err)
	got := Collect(f.Resolve(Client{Hostname: "L0"}))
	require.Len(t, got, levels+1)
	require.Equal(t, "LAST", got[0].Name)
	for _, s := range got {
		require.Equal(t, "1", s.Value.Raw)
	}
}

// Constructs repeated for a whole file, on which a careless reader takes
// quadratic time: that would show as a test run that does not end.
func TestHostileInput(t *testing.T) {
	const size = 1 << 19
	chain := new(strings.Builder)
	for i := 0; chain.Len() < size; i++ {
		fmt.Fprintf(chain, "[s%d]\nLIKE=s%d\n", i, i+1)
	}
	fan := new(strings.Builder)
	for i := 0; fan.Len() < size; i++ {
		fmt.Fprintf(fan, "[s%d]\nLIKE=s0\nA=1\n", i)
	}
	distinct := new(strings.Builder)
	distinct.WriteString("[s0]\n")
	for i := 0; distinct.Len() < size; i++ {
		fmt.Fprintf(distinct, "K%d=1\n", i)
	}
	patterns := new(strings.Builder)
	for i := 0; patterns.Len() < size; i++ {
		fmt.Fprintf(patterns, "[*%dx]\nA=1\n", i)
	}
	for name, in := range map[string]string{
		"hashes":          strings.Repeat("#", size),
		"hashes quotes":   "[s0]\nA=1\n" + strings.Repeat("#'", size/2),
		"single quotes":   strings.Repeat("'", size),
		"quotes":          strings.Repeat("\"\n", size/2),
		"quote and words": strings.Repeat("'a\"", size/3),
		"brackets":        strings.Repeat("[", size),
		"spaces":          "[s0]\nA=" + strings.Repeat(" ", size),
		"spaces word":     "[s0]\nA=\"1\"" + strings.Repeat("\r", size) + "x",
		"substitutions":   "[s0]\nA=\"" + strings.Repeat("$(", size/2) + "\"\n",
		"backslashes":     "[s0]\nA=\"" + strings.Repeat("\\", size) + "\"\n",
		"same setting":    "[s0]\n" + strings.Repeat("A=1\n", size/4),
		"same section":    strings.Repeat("[s0]\nA=1\n", size/9),
		"same like":       "[s0]\n" + strings.Repeat("LIKE=a\n", size/7) + "[a]\nA=1\n",
		"self likes":      "[s0]\n" + strings.Repeat("LIKE=s0\n", size/8),
		"includes":        strings.Repeat("include /x\n", size/11),
		"no paths":        "[s0]\nA=1\n" + strings.Repeat("include \n", size/9),
		"stars":           "[" + strings.Repeat("*s", size/2) + "]\nA=1\n",
		"sets":            "[\"" + strings.Repeat("[", size) + "\"]\nA=1\n",
		"open set":        "[\"" + strings.Repeat("[[:x:]", size/6) + "\"]\nA=1\n",
		"chain":           chain.String(),
		"fan":             fan.String(),
		"distinct":        distinct.String(),
		"patterns":        patterns.String(),
	} {
		t.Run(name, func(t *testing.T) {
			f := parseCompatible(t, in)
			require.LessOrEqual(t, len(f.Problems()), maxProblems+1)
			require.LessOrEqual(t, len(f.Stray()), len(in))
			for range f.Resolve(Client{Hostname: "s0", IP: pc01.IP, MAC: pc01.MAC}) {
			}
		})
	}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"*", "", true},
		{"?", "", false},
		{"a*b*c", "aXbYbZc", true},
		{"a*b*c", "aXbYbZ", false},
		{"**a", "bca", true},
		{`a\*`, "a*", true},
		{`a\*`, "ab", false},
		{`a\`, "a", false},
		{`a\`, `a\`, false},
		{"[]a]", "]", true},
		{"[!]a]", "]", false},
		{"[^a]", "b", true},
		{"[a-c]", "B", true},
		{"[a-]", "-", true},
		{`[\]]`, "]", true},
		{"[a", "[a", true},
		{"[[:digit:]x]", "7", true},
		{"[[:upper:]]", "A", true},
		{"[[:upper:]]", "a", false},
		{"[[:nothing:]]", ":]", false},
		{"[a[:nothing:]]", "a", true},
		{"[[:alnum:]][[:alpha:]][[:lower:]]", "1Bc", true},
		{"[[:xdigit:]][[:punct:]][[:space:]][[:blank:]]", "F-\t ", true},
		{"[[:xdigit:]]", "G", false},
		{"[[:graph:]][[:print:]][[:cntrl:]]", "! \x7f", true},
		{"[![:nothing:]]", "b", false},
		{"[[=a=][.-.]]", "-", true},
		{"[[:alpha:]", "[[:alpha:]", false},
		{"pc[0-9][0-9]", "PC01", true},
	} {
		require.Equal(t, c.want, match(c.pattern, c.name), "%q %q", c.pattern, c.name)
	}
}

func TestPatternsBehindLongPrefix(t *testing.T) {
	long := strings.Repeat("n", 40)
	f := parseCompatible(t, "["+long+"1*]\nA=1\n["+long+"*]\nA=2\n[n*]\nA=3\n")
	for host, want := range map[string]string{long + "12": "1", long + "2": "2", "N2": "3"} {
		require.Equal(t, "A=\""+want+"\"\nexport A\n", output(f, Client{Hostname: host}))
	}
}

// Each section of a chain of LIKEs is looked at once, however long it is.
func TestLikeChainIsLinear(t *testing.T) {
	const n = 10000
	var b strings.Builder
	for i := range n {
		b.WriteString("[s" + itoa(i) + "]\nLIKE=s" + itoa(i+1) + "\nLIKE=s" + itoa(i/2) + "x\nLIKE=s" + itoa(n-1) + "\nA" + itoa(i) + "=1\n")
	}
	f := parseCompatible(t, b.String())
	ch := f.chain(Client{Hostname: "s0"})
	require.Len(t, ch.queue, n)
	require.Len(t, ch.by, n)
	require.Len(t, Collect(f.Resolve(Client{Hostname: "s0"})), n)
}
