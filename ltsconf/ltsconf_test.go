package ltsconf

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

// need skips the test when a tool is missing, or fails it when
// DISKLESS_REQUIRE=all is set.
func need(t testing.TB, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		found := false
		for _, name := range []string{tool, "/usr/sbin/" + tool, "/sbin/" + tool} {
			if _, err := exec.LookPath(name); err == nil {
				found = true
				break
			}
		}
		if found {
			continue
		}
		if os.Getenv("DISKLESS_REQUIRE") == "all" {
			t.Fatalf("%s is not installed", tool)
		}
		t.Skipf("%s is not installed", tool)
	}
}

type recorded struct {
	Name     string
	Client   *struct{ Host, IP, MAC string }
	LTSConf  string            `json:"lts_conf"`
	Files    map[string]string // by path
	Stdout   string
	RC       int
	ShellEnv map[string]string `json:"shell_env"`
}

func recordings(t testing.TB) []recorded {
	b, err := os.ReadFile(filepath.Join("testdata", "getltscfg.json"))
	require.NoError(t, err)
	var doc struct{ Cases []recorded }
	require.NoError(t, json.Unmarshal(b, &doc))
	require.NotEmpty(t, doc.Cases)
	return doc.Cases
}

var pc01 = Client{
	Hostname: "pc01",
	IP:       netip.MustParseAddr("192.168.67.21"),
	MAC:      net.HardwareAddr{0x00, 0x11, 0x25, 0x84, 0xce, 0xba},
}

func (r recorded) client(t testing.TB) Client {
	if r.Client == nil {
		return pc01
	}
	c := Client{Hostname: r.Client.Host}
	if r.Client.IP != "" {
		c.IP = netip.MustParseAddr(r.Client.IP)
	}
	var err error
	c.MAC, err = net.ParseMAC(r.Client.MAC)
	require.NoError(t, err)
	return c
}

func (r recorded) includes() fs.FS {
	m := fstest.MapFS{}
	for name, text := range r.Files {
		m[strings.TrimPrefix(name, "/")] = &fstest.MapFile{Data: []byte(text)}
	}
	return m
}

// output is what getltscfg -a prints.
func output(f *File, c Client) string {
	var values, exports strings.Builder
	for name, v := range f.Resolve(c) {
		fmt.Fprintf(&values, "%s=\"%s\"\n", name, v.Raw)
		fmt.Fprintf(&exports, "export %s\n", name)
	}
	return f.Stray() + values.String() + exports.String()
}

func TestCompatibleIsGetltscfg(t *testing.T) {
	for _, r := range recordings(t) {
		t.Run(r.Name, func(t *testing.T) {
			o := Parser{Compatible: true, Includes: r.includes()}
			f, err := o.Parse("/etc/lts.conf", strings.NewReader(r.LTSConf))
			require.NoError(t, err)
			if r.RC != 0 { // the original crashed or hung
				require.NotEmpty(t, f.Problems())
				return
			}
			require.Equal(t, r.Stdout, output(f, r.client(t)))

			// The strict reader takes it only when both agree.
			o.Compatible = false
			s, err := o.Parse("/etc/lts.conf", strings.NewReader(r.LTSConf))
			if len(f.Problems()) > 0 {
				require.Equal(t, f.Problems()[0], err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, r.Stdout, output(s, r.client(t)))
			for name, v := range s.Resolve(r.client(t)) {
				if lit, ok := v.Literal(); ok && r.ShellEnv != nil {
					require.Equal(t, r.ShellEnv[name], regexp.MustCompile(`[ \t]+`).ReplaceAllString(lit, " "))
				}
			}
		})
	}
}

func TestStrictPositions(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"A=1\n", `x:1:1: "A" is outside a section; put a header such as [Default] above it`},
		{"\ufeff[a]\nA=1\n", "x:1:1: byte order mark: save the file as UTF-8 without it"},
		{"[a]\nA=1\n[b]\n\n[c]\nA=1\n", "x:5:1: section [b] has no settings: clients stop reading here; remove it or put it in comments"},
		{"[a]\nA=1\n[b]", "x:3:4: section [b] has no settings: clients stop reading here; remove it or put it in comments"},
		{"[a]\nA=\nB=2\n", `x:2:1: A takes its value from line 3; write A="" for an empty one`},
		{"[a]\nA=\n[b]\nB=2\n", `x:2:1: A has no value; write A="" for an empty one`},
		{"[a]\nA=b=c\n", "x:2:4: a second = on this line: put the value in double quotes, and each setting on its own line"},
		{"[a]\nA=x[0]\nB=1\n", "x:2:4: a section header needs a line of its own; a bracket in a value needs double quotes around the value"},
		{"[pc0[1-3]]\nA=1\n", `x:1:5: unexpected "[" in a section header; only * and ? work as patterns`},
		{"[\na]\nA=1\n", "x:1:1: the section header spans lines"},
		{"[]\nA=1\n", `x:1:2: unexpected "]"; a section name belongs between [ and ]`},
		{"=\n", `x:1:1: unexpected "="; a section starts with [name]`},
		{"[a]\n  FOO\nB=1\n", `x:2:3: "FOO" is not followed by =; every setting is NAME=value`},
		{"[a]\nA=1\n; B\nC=1\n", "x:3:1: comments start with #"},
		{"[a]\nA=\"1\" B=2\n", "x:2:7: a second setting on one line: put each on its own"},
		{"[a]\nA=\"x\" # say \"hi\"\n", `x:2:3: A: a double quote inside the value; write \" for the character, and no quotes in a comment behind a value`},
		{"[a]\nA=C:\\\n", `x:2:3: A: a backslash at the end escapes the closing quote; write \\`},
		{"[a]\nA=`date\n", "x:2:3: A: a ` without a second one; write \\` for the character"},
		{"[a]\nA=\"$(date\"\n", `x:2:3: A: a "$(" or "${" that is not closed; write \$ for the character`},
		{"[a]\nA=don't\n", "x:2:6: a single quote means nothing here and stops clients; put the value in double quotes"},
		{"[a]\nA=5\" disk\n", "x:2:4: this double quote has no partner on its line"},
		{"[a]\nA=1\n# end", "x:3:1: a comment at the end of the file needs a newline after it; without one clients print the # and fail"},
		{"[a]\nMY KEY=1\n", `x:2:1: "MY KEY" is no name for a setting: letters, digits and _ only`},
		{"[a]\r\nA=1\r\n", "x:1:4: carriage return: save the file with Unix line ends"},
		{"[a]\nA=1\r\n", "x:2:4: carriage return: save the file with Unix line ends"},
		{"[a]\nA=\"1\x00\"\n", "x:2:5: NUL byte: the file is not text"},
		{"[a]\nA=1\ninclude /etc/other\n", "x:3:1: include: clients crash here: open etc/other: file does not exist"},
		{"[a]\nA=1\ninclude =\n", "x:3:1: include needs a path"},
		{"[a]\nLIKE=b\n[b]\nA=1\nLIKE=\"A\"\n", "x:5:6: LIKE in a circle: [A] leads back to itself, and clients never finish reading"},
		{"[a]\nA=1\nlike=a\n", "x:3:6: LIKE in a circle: [a] leads back to itself, and clients never finish reading"},
	} {
		f, err := Parser{}.Parse("x", strings.NewReader(c.in))
		require.Nil(t, f, "%q", c.in)
		require.EqualError(t, err, c.want, "%q", c.in)
		require.ErrorIs(t, err, fs.ErrInvalid)
		require.IsType(t, &SyntaxError{}, err)
	}
}

func TestStrictTakes(t *testing.T) {
	for _, in := range []string{
		"",
		"# nothing\n",
		"[a] A=1\n",
		"[ a ] # comment's end\n\tA = b  c # d\n  # e\n",
		"[a]\nA=\"\"\nB=\"it's\"\nC=\"$(echo \"x y\")\"\nD=\"${E:-\"f\"}\"\nG=`date`\nH=\"\\\"q\\\"\"\nI=\"$((1 + (2)))\"\nJ=a$\n",
		"[a]\nLIKE=unknown\nLIKE=\"b c\"\n[b c]\nA=1",
		"[\"a[1]\"]\nA=1\n",
	} {
		f, err := Parse(strings.NewReader(in))
		require.NoError(t, err, "%q", in)
		require.Empty(t, f.Problems())
		var b bytes.Buffer
		n, err := f.WriteTo(&b)
		require.NoError(t, err)
		require.Equal(t, in, b.String())
		require.EqualValues(t, len(in), n)
	}
}

func TestIncludes(t *testing.T) {
	files := fstest.MapFS{
		"etc/lts/lab.conf":  {Data: []byte("[pc*]\nLAB=1\ninclude /etc/lts/more.conf\n")},
		"etc/lts/more.conf": {Data: []byte("[default]\nMORE=1\n")},
	}
	o := Parser{Includes: files}
	f, err := o.Parse("main", strings.NewReader("[pc01]\nA=1\ninclude \"/etc/lts/lab.conf\"\n"))
	require.NoError(t, err)
	got := Collect(f.Resolve(pc01))
	require.Equal(t, Settings{
		{"MORE", Value{Raw: "1", Section: "default", File: "/etc/lts/more.conf", Line: 2, Col: 1}},
		{"LAB", Value{Raw: "1", Section: "pc*", File: "/etc/lts/lab.conf", Line: 2, Col: 1}},
		{"A", Value{Raw: "1", Section: "pc01", File: "main", Line: 2, Col: 1}},
	}, got)

	for _, c := range []struct{ in, want string }{
		{"include /etc/lts/more.conf\ninclude /etc/lts/lab.conf\n", "main:2:1: a second include in one file: clients read only the last"},
		{"include /etc/lts/more.conf", "main:1:1: an include at the end of the file needs a newline after it, or clients ignore it"},
		{"include /etc/lts/lab.conf\n#" + strings.Repeat("x", readSize) + "\n", "main:1:1: clients lose what follows the first 8192 bytes of a file with an include; make the file smaller or do without"},
		{"include main\n", `main:1:1: "main" is included already; clients ignore this line`},
	} {
		_, err := o.Parse("main", strings.NewReader(c.in))
		require.EqualError(t, err, c.want)
	}
}

func TestIncludeOfDirectory(t *testing.T) {
	o := Parser{Includes: fstest.MapFS{"d/x": {}}}
	const in = "[default]\nA=1\ninclude /d\n[pc01]\nB=2\n=\n"
	_, err := o.Parse("main", strings.NewReader(in))
	require.EqualError(t, err, "main:3:1: include: clients crash behind this: read d: is a directory")
	o.Compatible = true
	f, err := o.Parse("main", strings.NewReader(in))
	require.NoError(t, err)
	require.Equal(t, "A=\"1\"\nB=\"2\"\nexport A\nexport B\n", output(f, pc01))
}

// What a long file loses is what getltscfg loses: the comment and NEVER lie
// behind the first 8192 bytes, of which the last are the start of a name.
func TestIncludeInLongFile(t *testing.T) {
	head := "include /inc\n[default]\n#"
	main := head + strings.Repeat("x", readSize-len(head)-len("\nPRE")) + "\nPREFIX=lost\nNEVER=1\n"
	o := Parser{Compatible: true, Includes: fstest.MapFS{"inc": {Data: []byte("_INC=1\nB=2\n")}}}
	f, err := o.Parse("main", strings.NewReader(main))
	require.NoError(t, err)
	require.Equal(t, "PRE_INC=\"1\"\nB=\"2\"\nexport PRE_INC\nexport B\n", output(f, pc01))
	require.Len(t, f.Problems(), 2)
	require.EqualError(t, f.Problems()[0], "main:1:1: clients lose what follows the first 8192 bytes of a file with an include; make the file smaller or do without")

	var b bytes.Buffer
	_, err = f.WriteTo(&b)
	require.NoError(t, err)
	require.Equal(t, main, b.String())
}

func TestIncludeLimit(t *testing.T) {
	files := fstest.MapFS{}
	for i := range 12 {
		files[fmt.Sprintf("i%d", i)] = &fstest.MapFile{Data: fmt.Appendf(nil, "[default]\nA=%d\n[s%d]\nA=%d\ninclude i%d\n", i, i, i, i+1)}
	}
	f, err := Parser{Compatible: true, Includes: files}.Parse("main", strings.NewReader("include i0\n"))
	require.NoError(t, err)
	require.Equal(t, "A=\"8\"\nexport A\n", output(f, Client{Hostname: "s8"}), "the tenth file, the main one counted")
	require.Equal(t, "A=\"0\"\nexport A\n", output(f, Client{Hostname: "s9"}))
	require.EqualError(t, f.Problems()[0], `i8:5:1: more than 10 files; clients ignore this include`)
}

func TestMaxSize(t *testing.T) {
	const in = "[a]\nA=1\ninclude b\n"
	files := fstest.MapFS{"b": {Data: []byte("[b]\nB=1\n")}}
	all := int64(len(in) + len(files["b"].Data))
	for _, compatible := range []bool{false, true} {
		_, err := Parser{Compatible: compatible, MaxSize: all, Includes: files}.Parse("", strings.NewReader(in))
		require.NoError(t, err)
		_, err = Parser{Compatible: compatible, MaxSize: all - 1, Includes: files}.Parse("", strings.NewReader(in))
		require.EqualError(t, err, "b: larger than 7 bytes: split it, or raise Parser.MaxSize: invalid argument")
		require.ErrorIs(t, err, fs.ErrInvalid)
		_, err = Parser{Compatible: compatible, MaxSize: 3}.Parse("", strings.NewReader(in))
		require.EqualError(t, err, "lts.conf: larger than 3 bytes: split it, or raise Parser.MaxSize: invalid argument")
	}
	big := strings.Repeat("#\n", DefaultMaxSize/2)
	_, err := Parse(strings.NewReader(big))
	require.NoError(t, err)
	_, err = Parse(strings.NewReader(big + "\n"))
	require.ErrorIs(t, err, fs.ErrInvalid)
	_, err = Parser{MaxSize: -1}.Parse("", strings.NewReader(big+"\n"))
	require.NoError(t, err)
}

func TestParseFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lts.conf")
	_, err := ParseFile(name)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, os.WriteFile(name, []byte("[default]\nA=1\n"), 0o600))
	f, err := ParseFile(name)
	require.NoError(t, err)
	require.Equal(t, Settings{{"A", Value{Raw: "1", Section: "default", File: name, Line: 2, Col: 1}}}, Collect(f.Resolve(Client{})))
	require.NoError(t, os.WriteFile(name, []byte("[default]\n"), 0o600))
	_, err = ParseFile(name)
	require.EqualError(t, err, name+":2:1: section [default] has no settings: clients stop reading here; remove it or put it in comments")
}
