package tftp

import (
	"io/fs"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCleanName(t *testing.T) {
	for raw, want := range map[string]string{
		"pxelinux.0":                  "pxelinux.0",
		"/pxelinux.0":                 "pxelinux.0",
		"//boot///grub/./grub.cfg":    "boot/grub/grub.cfg",
		`\boot\x64\wdsnbp.com`:        "boot/x64/wdsnbp.com",
		`/\/./a`:                      "a",
		"pxelinux.cfg/01-52-54-00-ab": "pxelinux.cfg/01-52-54-00-ab",
		"a/../b":                      "b",
		"a/b/../../c":                 "c",
		"dir/":                        "dir",
		"":                            ".",
		"/":                           ".",
		"a/..":                        ".",
		"..a/b..":                     "..a/b..",
		"...":                         "...",
		"snponly.efi\xff":             "snponly.efi",
		"grubx64.efi\xff\xff":         "grubx64.efi",
		"ein größerer Name":           "ein größerer Name",
		"%2e%2e/etc/passwd":           "%2e%2e/etc/passwd", // not a URL: those are ordinary characters
	} {
		got, err := cleanName(raw)
		require.NoError(t, err, "%q", raw)
		require.Equal(t, want, got, "%q", raw)
	}
	for _, raw := range escapes {
		_, err := cleanName(raw)
		require.ErrorIs(t, err, fs.ErrPermission, "%q", raw)
	}
	for _, raw := range []string{"a\nb", "a\x7f", "\x1b[2J", "a\xc0\xaeb", "\xfe"} {
		_, err := cleanName(raw)
		require.ErrorIs(t, err, fs.ErrPermission, "%q", raw)
	}
}

// escapes are spellings of a way out of the tree.
var escapes = []string{
	"..", "../", "../etc/passwd", "/../etc/passwd", "//../etc/passwd", "/./../etc/passwd", "a/../../etc/passwd",
	"/a/b/../../../etc/passwd", `..\etc\passwd`, `\..\..\etc\passwd`, `a\..\..\etc\passwd`, `a/..\../etc/passwd`,
	"./../etc/passwd", "..//etc/passwd", "../\xff", ".//..//..//etc/passwd", strings.Repeat("../", 40) + "etc/passwd",
}

func FuzzCleanName(f *testing.F) {
	for _, s := range append([]string{"", "/", "a//b", `\x\y`, "a\x00b", "b\xff", "a/../b"}, escapes...) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		name, err := cleanName(raw)
		if err != nil {
			require.ErrorIs(t, err, fs.ErrPermission)
			return
		}
		require.True(t, fs.ValidPath(name), "%q became %q", raw, name)
		require.NotContains(t, name, `\`)
		require.NotContains(t, name, "\x00")
		again, err := cleanName(name)
		require.NoError(t, err)
		require.Equal(t, name, again)
	})
}
