package ltsconf

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every recorded name is known, by its group, type, default and meaning.
func TestVariablesAreTheRecorded(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("testdata", "ltsconf_variables.json"))
	require.NoError(t, err)
	var doc struct {
		Groups map[string][]struct{ Name, Type, Default, Meaning string }
	}
	require.NoError(t, json.Unmarshal(b, &doc))
	example := strings.NewReplacer("<0-9>", "1", "<0-8>", "0", "<nn>", "03", "<n>", "2", "<VAR>", "FOO", "<x>", "SOUND", "*", "01_X",
		"01..12", "07", "01..10", "02", "0..2", "1", "SCREEN_01..SCREEN_12", "SCREEN_07")
	n := 0
	for group, vars := range doc.Groups {
		for _, v := range vars {
			n++
			name, _, _ := strings.Cut(strings.NewReplacer("[_EXTRA]", "", ", ", "/").Replace(example.Replace(v.Name)), "/")
			name, _, _ = strings.Cut(name, " ")
			got, ok := LookupVariable(strings.ToLower(name))
			require.True(t, ok, name)
			require.Equal(t, group, got.Group, name)
			require.Equal(t, v.Type, got.Type, name)
			require.Contains(t, got.Meaning, v.Meaning, name)
			if got.Default != "" {
				require.Contains(t, v.Default, got.Default, name)
				require.Empty(t, got.Check(got.Default), name)
			}
		}
	}
	require.Equal(t, 171, n)
	seen := map[string]bool{}
	for _, v := range Variables() {
		require.False(t, seen[v.Name], v.Name)
		seen[v.Name] = true
	}
}

func TestLookupVariable(t *testing.T) {
	for name, want := range map[string]string{
		"SCREEN_07":                "SCREEN_<01-12>",
		"SCREEN_07_SOUND":          "SOUND",
		"SCREEN_07_NOBODY_KNOWS":   "SCREEN_<nn>_<VAR>",
		"SCREEN_07_WAIT_FGCONSOLE": "SCREEN_<nn>_WAIT_FGCONSOLE",
		"SCREEN_DEFAULT":           "SCREEN_DEFAULT",
		"PRINTER_0_PORT":           "PRINTER_<0-9>_PORT",
		"X_TOUCH_MAXX":             "X_TOUCH_MAXX",
		"UDEV_SEAT_1_SOUND":        "UDEV_SEAT_<n>_<x>",
		"fstab_":                   "FSTAB_*",
	} {
		v, ok := LookupVariable(name)
		require.True(t, ok, name)
		require.Equal(t, want, v.Name)
	}
	for _, name := range []string{"", "SCREEN_13", "SCREEN_7", "PRINTER_X_PORT", "XRANDR_MODE_9", "UDEV_SEAT__X", "FSTAB", "SOUNDS"} {
		_, ok := LookupVariable(name)
		require.False(t, ok, name)
	}
}

func TestTyped(t *testing.T) {
	s := Settings{
		{"SOUND", Literal("YES")}, {"LOCALDEV", Literal("1")}, {"VOLUME", Literal("70")}, {"X_BLANKING", Literal("off")},
		{"KEEP_SYSTEM_SERVICES", Literal("a  b")}, {"LDM_USER_ALLOW", Literal("a b, c,")}, {"SERVER", Value{Raw: "$(x)"}},
	}
	b, ok := s.Bool("sound")
	require.True(t, b && ok)
	b, ok = s.Bool("LOCALDEV")
	require.True(t, !b && ok, "1 is not true")
	b, ok = s.Bool("ENCRYPT_SWAP")
	require.False(t, b || ok, "depends on the image")
	b, ok = s.Bool("CONFIGURE_FSTAB")
	require.True(t, b && ok, "the default")
	n, ok := s.Int("VOLUME")
	require.True(t, ok)
	require.Equal(t, 70, n)
	n, ok = s.Int("FAT_RAM_THRESHOLD")
	require.True(t, ok)
	require.Equal(t, 400, n)
	_, ok = s.Int("X_BLANKING")
	require.False(t, ok)
	require.Equal(t, []string{"a", "b"}, s.List("KEEP_SYSTEM_SERVICES"))
	require.Equal(t, []string{"a b", "c"}, s.List("LDM_USER_ALLOW"))
	_, ok = s.Text("SERVER")
	require.False(t, ok)
}

func TestCheckValue(t *testing.T) {
	for _, c := range []struct{ name, good, bad string }{
		{"SOUND", "Yes", "1"}, {"VOLUME", "100", "101"}, {"PRINTER_0_PORT", "9100", "x"}, {"HWCLOCK", "utc", "UTC"},
		{"SOUND_DAEMON", "FALSE", "alsa"}, {"DNS_SERVER", "10.0.0.1 fd00::1", "dns"}, {"SERVER", "10.0.0.1", "10.0.0.1 10.0.0.2"},
		{"XDM_SERVER", "host", "http://host"}, {"X_CONF", "/etc/x", "x"}, {"SHUTDOWN_TIME", "21:30", "24:00"}, {"SHUTDOWN_TIME", "21:30:59", "21"},
		{"X_COLOR_DEPTH", "16", "15"}, {"SHUTDOWN_TIME", "", "1:2:3:4"},
	} {
		v, ok := LookupVariable(c.name)
		require.True(t, ok)
		require.Empty(t, v.Check(c.good), c.name)
		require.NotEmpty(t, v.Check(c.bad), c.name)
	}
}

func TestLint(t *testing.T) {
	f, err := Parser{Compatible: true}.Parse("x", strings.NewReader(`[Default]
LIKE=pc01
SCREEN_07_SUOND=True
SUOND=True
VOLUME=loud
LOCALDEV=1
NBD_SWAP_PORT=1
LTSCONF=a
RCFILE_01_JOIN="kubeadm join --token abc  x"
FSATB_01=y
[pc*]
FSTAB_01="10.0.0.1:/d /d nfs defaults 0 0"
FSTAB_02="/dev/sda1 /d"
FSTAB_03="10.0.0.1:/d /d nfs defaults,nofail 0 0"
LIKE=kiok
[PC01]
A=1
A=2
[kiosk]
SOUND=$X
[pc1*]
B=1
[pc01]
C=1
[01-00-11-25-84-ce-ba]
D=1
[00-11-25-84-CE-BA]
D=1
[fd00::1]
D=1
[10.0.0.999]
D=1
[10.0.0.0/24]
D=1
[two words]
D=1
[loop]
LIKE=loop
[gone]
`))
	require.NoError(t, err)
	var got []string
	for _, x := range f.Lint() {
		if !strings.Contains(x.Msg, "does not know A") && !strings.Contains(x.Msg, "does not know B") && !strings.Contains(x.Msg, "does not know C") && !strings.Contains(x.Msg, "does not know D") {
			got = append(got, x.String())
		}
	}
	require.Equal(t, []string{
		"x:2:6: LIKE in [Default] has no effect: no section is followed from there (like)",
		"x:3:1: LTSP does not know SCREEN_07_SUOND; is it SCREEN_07_SOUND? (unknown)",
		"x:4:1: LTSP does not know SUOND; is it SOUND? (unknown)",
		`x:5:1: VOLUME: "loud" is no number (type)`,
		`x:6:1: LOCALDEV: "1" counts as false; only true, yes and y are true (type)`,
		"x:7:1: no script of LTSP 5 reads NBD_SWAP_PORT (unused)",
		"x:8:1: LTSCONF is read before this file is: set it on the kernel command line (early)",
		"x:9:1: RCFILE_01_JOIN looks like a secret, and each client that [default] applies to can read it (secret)",
		"x:9:1: RCFILE_01_JOIN: each run of white space becomes one space, at the ends too (spacing)",
		"x:10:1: LTSP does not know FSATB_01; is it FSTAB_01? (unknown)",
		"x:12:1: FSTAB_01: without nofail among its options the boot stops when this cannot be mounted (fstab)",
		"x:13:1: FSTAB_02: an fstab line has four to six fields, this one has 2 (fstab)",
		"x:15:6: no section [kiok]: clients ignore this LIKE; is it [kiosk]? (like)",
		"x:17:1: A is set again in line 18, which counts (duplicate-setting)",
		"x:21:1: no client gets to [pc1*]: [pc*] in line 11 matches the same ones, and only the first pattern counts (dead-section)",
		"x:23:1: [pc01] is there already, in line 16: clients see only that one (duplicate-section)",
		"x:25:1: no client matches [01-00-11-25-84-ce-ba]: the 01- is for boot files; write [00:11:25:84:ce:ba] (dead-section)",
		"x:27:1: no client matches [00-11-25-84-CE-BA]: MAC addresses have colons; write [00:11:25:84:ce:ba] (dead-section)",
		"x:29:1: no client matches [fd00::1]: clients look for IPv4 addresses only (dead-section)",
		"x:31:1: no client matches [10.0.0.999]: it is no IPv4 address (dead-section)",
		"x:33:1: no client matches [10.0.0.0/24]: networks are not known; write a pattern such as [192.168.67.*] (dead-section)",
		"x:35:1: no client matches [two words]: ' ' is in no host name, and no LIKE names it (dead-section)",
		"x:38:6: LIKE in a circle: [loop] leads back to itself, and clients never finish reading (syntax)",
		"x:40:1: section [gone] has no settings: clients stop reading here; remove it or put it in comments (syntax)",
	}, got)
	require.Empty(t, mustParse(t, "[Default]\nSOUND=True\n[pc01]\nLIKE=grp\n[grp]\nSOUND=NONE\nRCFILE_01=\"echo $(date)\"\n").Lint())
}

func TestCovers(t *testing.T) {
	for _, c := range []struct {
		p, q string
		want bool
	}{
		{"pc*", "pc1*", true}, {"*", "a?b*", true}, {"pc?", "pc1", true}, {"pc??", "pc*", false}, {"pc*", "p*", false},
		{"*-lab", "x*-lab", true}, {"pc?*", "pc??", true}, {"pc?", "pc*", false}, {"a*", "a*", true},
	} {
		e := maxEffort
		require.Equal(t, c.want, e.covers(c.p, c.q), "%s %s", c.p, c.q)
	}
}

func TestLintHostileInput(t *testing.T) {
	const n = 40000
	for name, line := range map[string]string{
		"likes":    "[s#]\nLIKE=t#\n",
		"globs":    "[*#x*#y]\nSOUND=True\n",
		"unknown":  "[s#]\nUNKNOWN_NAME_#=1\n",
		"same":     "[s]\nSOUND=1\nSOUND=2\n",
		"families": "[s#]\nFSTAB_#=a\nSCREEN_07_SCREEN_07_X=\"1  2\"\n",
		"one":      "SCREEN_07_X_#=1\n",
		"alike":    "[" + strings.Repeat("a", 120) + "#]\nLIKE=" + strings.Repeat("a", 119) + "#x\n",
		"covering": "[" + strings.Repeat("a*", 500) + "b#]\nSOUND=True\n",
	} {
		var b strings.Builder
		if name == "one" {
			b.WriteString("[s]\n")
		}
		for i := range n * 8 / max(8, len(line)) {
			b.WriteString(strings.ReplaceAll(line, "#", itoa(i)))
		}
		f := parseCompatible(t, b.String())
		require.LessOrEqual(t, len(f.Lint()), maxFindings, name)
	}
}
