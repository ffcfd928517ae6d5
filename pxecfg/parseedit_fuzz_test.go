package pxecfg

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzEdit: an edit is read back as meant, leaves all other entries as they
// were, and never makes the text something else than its lines.
func FuzzEdit(f *testing.F) {
	f.Add("DEFAULT a\nLABEL a\n KERNEL k\n APPEND ro\n\nLABEL b\n KERNEL l\n", "a", "append", "x=1")
	f.Add("LABEL a\r\n KERNEL k\r\n", "b", "kernel", "")
	f.Add("TEXT HELP\n", "", "menu title", "^x  y ")
	f.Add("LABEL a\n\x00", "a", "ipappend", "3")
	f.Add("MENU BEGIN m\nLABEL a\nMENU END", "a", "initrd", "i,j")
	f.Fuzz(func(t *testing.T, text, label, directive, value string) {
		if len(text) > 1<<14 {
			return
		}
		others := func(file *File) map[string]string {
			p, err := file.Load(nil, "")
			require.NoError(t, err)
			m := make(map[string]string)
			for _, e := range p.Entries() {
				if _, dup := m[e.Label]; e.labelled && e.Label != label && !dup {
					m[e.Label] = e.CommandLine(SysStrings{})
				}
			}
			return m
		}
		check := func(file *File) *PXELINUX {
			require.Equal(t, file.String(), parseString(t, file.String()).String())
			require.Equal(t, len(parseString(t, file.String()).Lines()), len(file.Lines()), "lines as they are read")
			p, err := parseString(t, file.String()).Load(nil, "")
			require.NoError(t, err)
			return p
		}
		before := others(parseString(t, text))

		file := parseString(t, text)
		if err := file.Set(label, directive, value); err == nil {
			check(file)
			if label != "" {
				require.Equal(t, before, others(file), "%q", file.String())
			}
			once := file.String()
			require.NoError(t, file.Set(label, directive, value))
			require.Equal(t, once, file.String(), "setting it again changes nothing")
		} else {
			require.True(t, errors.Is(err, fs.ErrInvalid) || errors.Is(err, fs.ErrNotExist), err)
			require.Equal(t, text, file.String(), "a refused edit changes nothing")
		}

		file = parseString(t, text)
		if err := file.AddEntry(label); err == nil {
			require.NotNil(t, check(file).Lookup(label))
			require.Equal(t, before, others(file))
			require.NoError(t, file.RemoveEntry(label))
			require.Equal(t, before, others(file))
		} else {
			require.Equal(t, text, file.String())
		}

		file = parseString(t, text)
		if file.Unset(label, directive) == nil {
			check(file)
			once := file.String()
			require.NoError(t, file.Unset(label, directive))
			require.Equal(t, once, file.String())
		}
	})
}
