package squash_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/squash"
)

func TestPattern(t *testing.T) {
	for _, tt := range []struct {
		pattern       squash.Pattern
		match, covers string
		not           string
	}{
		{"a", "a", "a a/b a/b/c", "b ab b/a"},
		{"/a/", "a", "a a/b", "b"},
		{"a/*", "a/b", "a/b a/b/c", "a b/a a/.b"},
		{"a/.*", "a/.b", "a/.b a/.b/c", "a/b"},
		{"*/x", "a/x", "a/x a/x/y", "x a/b/x"},
		{"... *.orig", "a.orig b/a.orig", "a.orig b/a.orig b/a.orig/c", "orig a.orig2 b/c/.orig"},
		{"... var/log", "var/log x/var/log", "var/log x/var/log/y", "log var/x/log"},
		{"[a-c]?", "ax cz bé", "ax ax/y", "dx a axx"},
		{"[!a-c]", "d", "d", "a"},
		{"[^a-c]", "d", "d", "a"},
		{`\[!a\]\*`, "[!a]*", "[!a]*", "b"},
		{"home/!(ann|b*)", "home/cat home/annie", "home/cat home/cat/x", "home/ann home/bob home home/ann/x"},
		{`\#x`, "#x", "#x", "x"},
		{"a\xff*", "a\xffb", "a\xffb", "a"},
	} {
		require.NoError(t, tt.pattern.Check(), tt.pattern)
		for _, name := range strings.Fields(tt.match) {
			require.True(t, tt.pattern.Match(name), "%s %s", tt.pattern, name)
		}
		for _, name := range strings.Fields(tt.covers) {
			require.True(t, tt.pattern.Covers(name), "%s %s", tt.pattern, name)
		}
		for _, name := range strings.Fields(tt.not) {
			require.False(t, tt.pattern.Match(name), "%s %s", tt.pattern, name)
			require.False(t, tt.pattern.Covers(name), "%s %s", tt.pattern, name)
		}
	}
	for _, bad := range []squash.Pattern{"", "/", "a//b", "a/../b", "./a", "a/[b", `a\`, "... ", "@(a|b)", "x!(a)", "!(a|[)"} {
		require.Error(t, bad.Check(), bad)
	}
	require.ErrorIs(t, squash.Pattern("+(a)").Check(), errors.ErrUnsupported)
}

// parse reads rules from a text, with files to put.
func parse(t testing.TB, text string) *squash.Rules {
	t.Helper()
	r, err := squash.ParseRules("rules", strings.NewReader(text), fstest.MapFS{"files/motd": {Data: []byte("new motd\n"), ModTime: time.Unix(77, 0)}})
	require.NoError(t, err)
	return r
}

func TestRules(t *testing.T) {
	src := fakeTree()
	src["home/ann/x"], src["home/bob/x"] = &fstest.MapFile{Data: []byte("a")}, &fstest.MapFile{Data: []byte("b")}
	src["usr/share/doc/x/copyright"], src["usr/share/doc/x/README"] = &fstest.MapFile{Data: []byte("c")}, &fstest.MapFile{}
	src["usr/share/doc"] = &fstest.MapFile{Mode: fs.ModeDir | 0o711}
	src["a.orig"], src["etc/a.orig"] = &fstest.MapFile{}, &fstest.MapFile{}
	want := describe(t, src)
	rules := parse(t, `
# what the image shall not have
exclude home/*
keep    home/bob            # but this
exclude usr/share/doc
keep    usr/share/doc/*/copyright
exclude "... *.orig"
exclude lib/module-*
chmod 04711 usr/bin/su*
chown 7:8 etc/*
xattr user.by "a rule" etc/passwd

dir     etc 0750 1:2
file    /etc/motd 0644 0:0 files/motd
text    etc/issue 0600 3:4 "welcome\n"
symlink usr/x /x
text    tmp 0644 0:0 "no directory any more"
char    dev/null 0666 0:0 1 3
block   dev/console 0660 0:6 8 17
fifo    run/new/fifo 0622 0:0
`)
	image := open(t, buildBytes(t, dirTree{src, rules.Apply(squash.FromFS(src))}, nil))
	got := describe(t, image)

	maps.DeleteFunc(want, func(name, _ string) bool {
		return strings.HasPrefix(name, "lib/module") || strings.HasSuffix(name, ".orig") || strings.HasPrefix(name, "home/ann") || strings.HasSuffix(name, "README")
	})
	want["usr/bin/su"] = strings.Replace(want["usr/bin/su"], "urwxr-xr-x", "urwx--x--x", 1)
	want["usr/bin/su2"] = strings.Replace(want["usr/bin/su2"], "urwxr-xr-x", "urwx--x--x", 1)
	want["etc/passwd"] = strings.Replace(want["etc/passwd"], "0:0", "7:8", 1) + ` user.by="a rule"`
	want["etc/shadow"] = strings.Replace(want["etc/shadow"], "0:42", "7:8", 1)
	want["etc"] = "drwxr-x--- 1:2 mtime 0"
	want["etc/motd"] = "-rw-r--r-- 0:0 mtime 77 links 1 9 bytes"
	want["etc/issue"] = "-rw------- 3:4 mtime 0 links 1 8 bytes"
	want["usr/x"] = "Lrwxrwxrwx 0:0 mtime 0 links 1 -> /x"
	want["tmp"] = "-rw-r--r-- 0:0 mtime 0 links 1 21 bytes"
	want["dev/null"] = "Dcrw-rw-rw- 0:0 mtime 0 dev 1:3 links 1"
	want["dev/console"] = "Drw-rw---- 0:6 mtime 0 dev 8:17 links 1"
	want["run/new"] = "drwxr-xr-x 0:0 mtime 0"
	want["run/new/fifo"] = "prw--w--w- 0:0 mtime 0 links 1"
	want["."] = got["."]
	require.Equal(t, slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got)))
	for name, line := range want {
		require.True(t, strings.HasPrefix(got[name], line), "%s: %s, not %s", name, got[name], line)
	}
	require.Equal(t, "new motd\n", string(readAll(t, image, "etc/motd")))
	require.Equal(t, "welcome\n", string(readAll(t, image, "etc/issue")))
	require.Contains(t, got["usr/share/doc"], "drwx--x--x")

	// No name comes twice, so that it can be extracted and archived too.
	names := map[string]bool{}
	for e, err := range rules.Apply(squash.FromFS(src)).Entries(t.Context()) {
		require.NoError(t, err)
		require.False(t, names[e.Path], e.Path)
		names[e.Path] = true
	}
}

// What is left out under its first name comes with the next, from a stream too.
func TestRulesAndHardLinks(t *testing.T) {
	src := fstest.MapFS{
		"a": {Data: []byte("linked"), Mode: 0o644, Sys: &squash.Stat{Ino: 5, Nlink: 3}},
		"b": {Data: []byte("linked"), Mode: 0o644, Sys: &squash.Stat{Ino: 5, Nlink: 3}},
		"c": {Data: []byte("linked"), Mode: 0o644, Sys: &squash.Stat{Ino: 5, Nlink: 3}},
	}
	var archive bytes.Buffer
	_, err := squash.WriteTar(t.Context(), &archive, squash.FromFS(src))
	require.NoError(t, err)
	for name, from := range map[string]func() squash.Source{
		"file system": func() squash.Source { return squash.FromFS(src) },
		"stream":      func() squash.Source { return squash.Tar(bytes.NewReader(archive.Bytes())) },
	} {
		t.Run(name, func(t *testing.T) {
			got := describe(t, build(t, parse(t, "exclude a\n").Apply(from())))
			require.Contains(t, got["b"], "links 2 6 bytes")
			require.Contains(t, got["c"], " = b links 2 6 bytes")
			require.NotContains(t, got, "a")
			got = describe(t, build(t, parse(t, "exclude b\nchmod 0600 ?\n").Apply(from())))
			require.Contains(t, got["c"], "-rw------- 0:0 mtime 0 = a links 2 6 bytes")
			got = describe(t, build(t, parse(t, "exclude [ab]\n").Apply(from())))
			require.Contains(t, got["c"], "links 1 6 bytes")

			err := squash.Build(t.Context(), &memory{}, parse(t, "chmod 0600 b\n").Apply(from()), nil)
			require.ErrorIs(t, err, fs.ErrInvalid)
			require.ErrorContains(t, err, "the same file")
		})
	}
}

func TestRulesThatCannotBeApplied(t *testing.T) {
	src := fstest.MapFS{"bin": {Data: []byte("usr/bin"), Mode: fs.ModeSymlink}, "usr/bin/x": {}, "file": {}}
	for _, tt := range []struct {
		rules *squash.Rules
		is    error
		text  string
	}{
		{parse(t, "text bin/y 0644 0:0 x"), fs.ErrExist, "a symbolic link to usr/bin"},
		{parse(t, "text file/y 0644 0:0 x"), fs.ErrExist, "a file"},
		{parse(t, "exclude x\nchmod 0644 nothing"), fs.ErrNotExist, `rules:2: no file matches "nothing"`},
		{parse(t, "text a 0644 0:0 x\ntext a/b 0644 0:0 x"), fs.ErrInvalid, "below a"},
		{&squash.Rules{Exclude: []squash.Pattern{"a["}}, fs.ErrInvalid, `"a["`},
		{&squash.Rules{Keep: []squash.Pattern{".."}}, fs.ErrInvalid, `".."`},
		{&squash.Rules{Modify: []squash.Modify{{Pattern: ""}}}, fs.ErrInvalid, "a rule"},
		{&squash.Rules{Modify: []squash.Modify{{Pattern: "file", Change: func(*squash.Entry) error { return fs.ErrClosed }}}}, fs.ErrClosed, "file"},
		{&squash.Rules{Put: []*squash.Entry{{Path: "x", Size: 5}}}, fs.ErrInvalid, "no Open"},
		{&squash.Rules{Put: []*squash.Entry{{Path: "x"}, {Path: "x"}}}, fs.ErrExist, "two files"},
	} {
		err := squash.Build(t.Context(), &memory{}, tt.rules.Apply(squash.FromFS(src)), nil)
		require.ErrorIs(t, err, tt.is)
		require.ErrorContains(t, err, tt.text)
	}
	require.NoError(t, squash.Build(t.Context(), &memory{}, parse(t, "exclude bin\ntext bin/y 0644 0:0 x").Apply(squash.FromFS(src)), nil))
}

func TestParseRulesErrors(t *testing.T) {
	for text, want := range map[string]string{
		"exclude a\nfoo bar":              `r:2:1: no rule begins with "foo"`,
		"  exclude":                       "r:1:3: the rule is: exclude PATTERN",
		"exclude a b":                     "r:1:11: the rule is: exclude PATTERN",
		"exclude a//b":                    "r:1:9: the pattern",
		`exclude "a`:                      "r:1:9: a word in quotes that does not end",
		`exclude "a"b`:                    "r:1:9: a word in quotes",
		"chmod 9 a":                       `r:1:7: "9" is no mode in octal`,
		"chmod 10000 a":                   "r:1:7: a mode has at most 07777",
		"chown root a":                    `r:1:7: "root" is no owner`,
		"chown 0:4294967296 a":            "r:1:7: ",
		"dir ../x 0755 0:0":               `r:1:5: "../x" is no path`,
		"fifo / 0755 0:0":                 `r:1:6: "/" is no path`,
		"char a 0644 0:0 4096 0":          `r:1:17: "4096" is no major number`,
		"block a 0644 0:0 1 1048576":      `r:1:20: "1048576" is no minor number`,
		"dir a 0755 0:0\nfifo a 0644 0:0": "r:2:6: line 1 puts a, too",
		"file a 0644 0:0 none":            "r:1:17: the file to put: open none: file does not exist",
		"file a 0644 0:0 files":           "r:1:17: the file to put: files is no regular file",
		strings.Repeat("x", 2<<20):        "r:1:1: the line is longer than 1 MiB",
	} {
		_, err := squash.ParseRules("r", strings.NewReader(text), fstest.MapFS{"files/motd": {}})
		var se *squash.SyntaxError
		require.ErrorAs(t, err, &se, text)
		require.ErrorContains(t, err, want)
	}
	_, err := squash.ParseRules("r", strings.NewReader("file a 0644 0:0 x"), nil)
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = squash.ParseExcludes("x", strings.NewReader("a\n\n  [b\n"))
	require.EqualError(t, err, `x:3:3: the pattern "[b": an element "[b" that ends inside of [ or after \: invalid argument`)
}

// Patterns leave out what mksquashfs leaves out for them.
func TestExcludesAsMksquashfs(t *testing.T) {
	need(t, "root", "mksquashfs")
	const list = `# LTSP's list has such lines
home/*
  tmp/*
var/log/*.gz
var/log/*/*
opt/ltsp*
etc/[a-c]?x
srv/!(keep|*.txt)
... .git
... l?g2
\#odd
usr
`
	src := fstest.MapFS{}
	for _, name := range strings.Fields(`home/ann/x home/.hidden srv/.b srv/.txt .odd tmp/x tmpx var/log/a.gz var/log/a.log var/log/b/c var/log/b/d/e var/log/ab
		opt/ltsp-1/x opt/other etc/a1x etc/d1x etc/ab1x srv/keep/x srv/a.txt srv/b/x .git/config a/b/.git/x a/.gitx x/log2/ab x/log23 #odd usr/bin/x usrx`) {
		src[name] = &fstest.MapFile{Data: []byte(name)}
	}
	excludes, err := squash.ParseExcludes("list", strings.NewReader(list))
	require.NoError(t, err)
	require.Len(t, excludes, 11)
	root, file := t.TempDir(), t.TempDir()+"/list"
	_, err = squash.Extract(t.Context(), root, squash.FromFS(src), nil)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, []byte(list), 0o600))
	run(t, "mksquashfs", root, file+".squashfs", "-quiet", "-no-progress", "-wildcards", "-ef", file)
	b, err := os.ReadFile(file + ".squashfs")
	require.NoError(t, err)
	theirs := describe(t, open(t, b))
	ours := describe(t, build(t, (&squash.Rules{Exclude: excludes}).Apply(squash.Dir(root))))
	requireSame(t, theirs, ours)
	require.Less(t, len(ours), 40)
	require.Greater(t, len(ours), 15)
}

func FuzzParseRules(f *testing.F) {
	f.Add("exclude home/*\nkeep \"a b\"\nchmod 04755 usr/bin/su\nchown 1:2 x\nxattr user.a b c")
	f.Add("dir a 0755 0:0\nfile a/b 0644 0:0 files/motd\ntext c 0644 0:0 \"x\\n\"\nsymlink d /e\nchar f 0666 0:0 1 3\nblock g 0660 0:6 8 0\nfifo h 0600 0:0")
	f.Add("exclude \"... !(a|b*)/[!x]\"\n# comment")
	f.Fuzz(func(t *testing.T, text string) {
		rules, err := squash.ParseRules("r", strings.NewReader(text), fstest.MapFS{"files/motd": {}})
		if err != nil {
			var se *squash.SyntaxError
			if !errors.As(err, &se) || se.Line < 1 || se.Col < 1 {
				t.Fatal(err)
			}
			return
		}
		// Whatever the rules are, their result is an image or an error.
		var m memory
		src := fstest.MapFS{"home/ann/x": {Data: []byte("x")}, "a/b": {}, "l": {Data: []byte("a"), Mode: fs.ModeSymlink}}
		if err := squash.Build(context.Background(), &m, rules.Apply(squash.FromFS(src)), nil); err != nil {
			return
		}
		for d, err := range squash.Verify(context.Background(), m.reader(), nil) {
			t.Fatal(d, err)
		}
	})
}

func ExampleParseRules() {
	rules, err := squash.ParseRules("site.rules", strings.NewReader(`
exclude var/cache/apt/*
chmod   0600 etc/secret
text    etc/hostname 0644 0:0 "node\n"
symlink etc/mtab /proc/mounts
char    dev/console 0600 0:5 5 1
`), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	src := squash.FromFS(fstest.MapFS{
		"etc/secret":                 {Data: []byte("x"), Mode: 0o644},
		"var/cache/apt/pkgcache.bin": {Data: []byte("large")},
	})
	for e, err := range rules.Apply(src).Entries(context.Background()) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(e.Mode, e.Path)
	}
	_, err = squash.ParseRules("site.rules", strings.NewReader("exclude a\nchmod rw b"), nil)
	fmt.Println(err)
	// Output:
	// dr-xr-xr-x .
	// dr-xr-xr-x etc
	// dr-xr-xr-x var
	// -rw------- etc/secret
	// dr-xr-xr-x var/cache
	// dr-xr-xr-x var/cache/apt
	// -rw-r--r-- etc/hostname
	// Lrwxrwxrwx etc/mtab
	// Dcrw------- dev/console
	// site.rules:2:7: "rw" is no mode in octal
}
