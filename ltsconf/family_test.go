package ltsconf

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

// The order is that of the real sort.
func TestFamilyOrderIsSortV(t *testing.T) {
	need(t, "sort")
	r := rand.New(rand.NewPCG(5, 6))
	seen := map[string]bool{}
	var s Settings
	var in strings.Builder
	for range 3000 {
		name := "FSTAB_"
		for range r.IntN(6) {
			name += []string{"0", "1", "9", "00", "10", "_", "A", "B", "Z", "DATA", "_X"}[r.IntN(11)]
		}
		if seen[name] {
			continue
		}
		seen[name] = true
		value := []string{"", "a b", "10.0.0.1:/d", "x.conf", "x.conf.d", "~", ".a1", "1"}[r.IntN(8)]
		s = append(s, Setting{name, Literal(value)})
		fmt.Fprintf(&in, "%s=%s\n", name, value)
	}
	cmd := exec.Command("sort", "-V")
	cmd.Env = []string{"LC_ALL=C"}
	cmd.Stdin = strings.NewReader(in.String())
	want, err := cmd.Output()
	require.NoError(t, err)
	var got strings.Builder
	for _, set := range Fstab.Of(s) {
		v, _ := set.Value.Literal()
		fmt.Fprintf(&got, "%s=%s\n", set.Name, v)
	}
	require.Equal(t, string(want), got.String())
}

func TestVersionCompareIsSortV(t *testing.T) {
	need(t, "sort")
	r := rand.New(rand.NewPCG(7, 8))
	var lines []string
	for range 4000 {
		var b strings.Builder
		for range 1 + r.IntN(8) {
			b.WriteString([]string{"0", "1", "01", "10", "a", "B", "=", "_", ".", ".a", "~", "-", ".1", ".tar", "/", " "}[r.IntN(16)])
		}
		if s := "N" + b.String(); !slices.Contains(lines, s) {
			lines = append(lines, s)
		}
	}
	cmd := exec.Command("sort", "-V")
	cmd.Env = []string{"LC_ALL=C"}
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	want, err := cmd.Output()
	require.NoError(t, err)
	slices.SortStableFunc(lines, versionCompare)
	require.Equal(t, strings.Split(strings.TrimSuffix(string(want), "\n"), "\n"), lines)
}

func TestFamilyOf(t *testing.T) {
	for name, want := range map[string]Family{
		"PREINIT_01": Preinit, "init_command_x": InitCommand, "FSTAB_": Fstab, "RCFILE_1": RCFile, "MODULE_a": Module,
		"HOSTS_1": Hosts, "CRONTAB_1": Crontab, "SCREEN_07": Screen,
	} {
		got, ok := FamilyOf(name)
		require.True(t, ok, name)
		require.Equal(t, want, got)
	}
	for _, name := range []string{"SCREEN_DEFAULT", "SCREEN_07_SOUND", "FSTAB", "X", ""} {
		_, ok := FamilyOf(name)
		require.False(t, ok, name)
	}
}

func TestFamilySetting(t *testing.T) {
	s, err := RCFile.Setting(3, "join", `echo "$A"`)
	require.NoError(t, err)
	require.Equal(t, Setting{"RCFILE_03_JOIN", Value{Raw: `echo \"\$A\"`}}, s)
	s, err = Screen.Setting(7, "", "kiosk")
	require.NoError(t, err)
	require.Equal(t, "SCREEN_07", s.Name)
	for _, c := range []struct {
		f          Family
		n          int
		name, line string
	}{
		{Screen, 7, "SOUND", "x"}, {Fstab, 1, "", ""}, {Fstab, 1, "", "a  b"}, {Fstab, 1, "", "a\tb"}, {Fstab, 1, "", " a"},
		{Fstab, 1, "", "a\nb"}, {Fstab, 1, "A-B", "a"}, {Fstab, -1, "", "a"}, {Fstab, 1, "", "None"}, {"FOO_", 1, "", "a"},
	} {
		_, err := c.f.Setting(c.n, c.name, c.line)
		require.ErrorIs(t, err, fs.ErrInvalid, "%v", c)
	}
}

func TestScreen(t *testing.T) {
	s := Settings{{"SCREEN_07", Literal("ldm")}, {"SOUND", Literal("True")}, {"SCREEN_07_SOUND", Literal("False")}, {"SCREEN_08_SOUND", Literal("x")}, {"SCREEN_07_LANG", Literal("C")}}
	require.Equal(t, Settings{{"SCREEN_07", Literal("ldm")}, {"SOUND", Literal("False")}, {"SCREEN_08_SOUND", Literal("x")}, {"LANG", Literal("C")}}, s.Screen(7))
}

func TestLines(t *testing.T) {
	line, err := Mount{Source: "10.0.0.1:/my data", Target: "/d", Type: "nfs", Options: []string{"ro", "vers=4"}}.Line()
	require.NoError(t, err)
	require.Equal(t, `10.0.0.1:/my\040data /d nfs ro,vers=4,nofail 0 0`, line)
	line, err = Mount{Source: "LABEL=x", Target: "/d", Type: "ext4", Required: true, Pass: 2}.Line()
	require.NoError(t, err)
	require.Equal(t, "LABEL=x /d ext4 defaults 0 2", line)
	line, err = Mount{Source: "a", Target: "/d", Type: "ext4", Options: []string{"ro,nofail"}}.Line()
	require.NoError(t, err)
	require.Equal(t, "a /d ext4 ro,nofail 0 0", line)
	for _, m := range []Mount{
		{}, {Source: "a", Target: "d", Type: "x"}, {Source: "a", Target: "/d"}, {Source: "#a", Target: "/d", Type: "x"},
		{Source: "a", Target: "/d", Type: "x", Options: []string{"a b"}}, {Source: "a", Target: "/d", Type: "x", Pass: -1},
	} {
		_, err := m.Line()
		require.ErrorIs(t, err, fs.ErrInvalid)
	}
	line, err = CronJob{Schedule: "0 22 * * *", Command: "date +%F"}.Line()
	require.NoError(t, err)
	require.Equal(t, `0 22 * * * root date +\%F`, line)
	for _, c := range []CronJob{{}, {Schedule: "1 2 3 4", Command: "x"}, {Schedule: "@daily", User: "a b", Command: "x"}, {Schedule: "@daily"}} {
		_, err := c.Line()
		require.ErrorIs(t, err, fs.ErrInvalid)
	}
	line, err = HostsLine(netip.MustParseAddr("10.0.0.1"), "api", "api.lab")
	require.NoError(t, err)
	require.Equal(t, "10.0.0.1 api api.lab", line)
	_, err = HostsLine(netip.Addr{}, "api")
	require.ErrorIs(t, err, fs.ErrInvalid)
	_, err = HostsLine(netip.MustParseAddr("10.0.0.1"), "a b")
	require.ErrorIs(t, err, fs.ErrInvalid)
}

// A shell hands each argument over as it is.
func TestCommandThroughShell(t *testing.T) {
	need(t, "sh", "printf")
	args := []string{"a b", "", "it's", `"$A"`, "`id`", "~", "A=1", "*", "#", "!", "x;y", "é", "%s"}
	out, err := exec.Command("sh", "-c", Command(append([]string{"printf", `%s\n`}, args...)...)).Output()
	require.NoError(t, err)
	require.Equal(t, strings.Join(args, "\n")+"\n", string(out))
	out, err = exec.Command("sh", "-c", Command("A=1")).CombinedOutput()
	require.Error(t, err, "a command, not an assignment")
	require.NotEmpty(t, out)
}

func TestClientFS(t *testing.T) {
	f := mustParse(t, "[Default]\nA=1\n[pc01]\nRCFILE_01=\"kubeadm join --token s3cret\"\n[pc02]\nB=2\n")
	fsys, err := f.For(pc01, "lts-lab.conf")
	require.NoError(t, err)
	require.NoError(t, fstest.TestFS(fsys, "lts.conf", "ltsp/amd64/lts.conf", "ltsp/i386/lts-lab.conf", "ltsp/arm64/lts.conf"))
	for _, name := range []string{"lts.conf", "images/lab/lts.conf", "(tftp)/ltsp/amd64/lts.conf", "http:/h/x/lts.conf", "ltsp/x/lts-lab.conf"} {
		b, err := fs.ReadFile(fsys, name)
		require.NoError(t, err)
		require.Equal(t, "[Default]\nA=\"1\"\nRCFILE_01=\"kubeadm join --token s3cret\"\n", string(b))
	}
	for _, name := range []string{"vmlinuz", "lts.conf/x", "ltsp/amd64/other"} {
		_, err := fs.ReadFile(fsys, name)
		require.ErrorIs(t, err, fs.ErrNotExist)
	}
	for _, c := range []Client{{}, {Hostname: "pc02"}, {IP: pc01.IP, MAC: pc01.MAC}} {
		other, err := f.For(c)
		require.NoError(t, err)
		b, err := fs.ReadFile(other, "ltsp/amd64/lts.conf")
		require.NoError(t, err)
		require.NotContains(t, string(b), "s3cret")
	}
	// What must not reach a shell is not served.
	bad := parseCompatible(t, "[Default]\nA=\"a\" # \"b\"\n")
	_, err = bad.For(pc01)
	require.ErrorIs(t, err, fs.ErrInvalid)
}
