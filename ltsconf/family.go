package ltsconf

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// Family is the beginning of the names of settings that clients collect: all
// that start with it, in the order of [Family.Of].
type Family string

// The families of LTSP 5. Preinit is one of a patched LTSP.
const (
	Preinit     Family = "PREINIT_"      // shell code, run right before init
	InitCommand Family = "INIT_COMMAND_" // shell code, sourced while the boot sets things up
	Fstab       Family = "FSTAB_"        // lines of /etc/fstab
	RCFile      Family = "RCFILE_"       // shell code, run at the end of the boot
	Module      Family = "MODULE_"       // arguments of modprobe
	Hosts       Family = "HOSTS_"        // lines of /etc/hosts
	Crontab     Family = "CRONTAB_"      // lines of /etc/cron.d/ltsp
	Screen      Family = "SCREEN_"       // what runs on a virtual terminal
)

// FamilyOf returns the family that a name, in any case, belongs to.
// SCREEN_DEFAULT, and what is set for one screen only, belong to none.
func FamilyOf(name string) (Family, bool) {
	name = upper(name)
	for _, f := range []Family{Preinit, InitCommand, Fstab, RCFile, Module, Hosts, Crontab} {
		if strings.HasPrefix(name, string(f)) {
			return f, true
		}
	}
	if _, rest, ok := screenName(name); ok && rest == "" {
		return Screen, true
	}
	return "", false
}

// Of returns the settings of a family in the order in which clients work
// through them: sorted as sort -V sorts lines of NAME=value, where numbers
// count as numbers: FSTAB_2 comes before FSTAB_10.
func (f Family) Of(s Settings) Settings {
	type line struct {
		key string
		set Setting
	}
	var lines []line
	for _, set := range s {
		if fam, ok := FamilyOf(set.Name); ok && fam == f {
			v, ok := set.Value.Literal()
			if !ok {
				v = set.Value.Raw
			}
			lines = append(lines, line{upper(set.Name) + "=" + v, set})
		}
	}
	slices.SortStableFunc(lines, func(a, b line) int { return versionCompare(a.key, b.key) })
	var out Settings
	for _, l := range lines {
		out = append(out, l.set)
	}
	return out
}

// Setting returns the setting of a family with a number and a name, as in
// FSTAB_01_DATA; the name may be empty. The line is taken literally: no shell
// on the way changes it, but for PREINIT, INIT_COMMAND and RCFILE it is shell
// code itself.
//
// It is an error that is [fs.ErrInvalid] when the line cannot arrive as it is:
// with line ends, or with two white spaces in a row, a tab, or white space at
// an end, which the boot makes one space of, or when it is NONE or empty.
func (f Family) Setting(n int, name, line string) (Setting, error) {
	full := fmt.Sprintf("%s%02d", f, n)
	if name != "" {
		full += "_" + upper(name)
	}
	if fam, ok := FamilyOf(full); !ok || fam != f || n < 0 || !isName(full) {
		return Setting{}, fmt.Errorf("%s: no name of a setting of the family %s: %w", clip(full), f, fs.ErrInvalid)
	}
	v := Literal(line)
	switch err := v.check(); {
	case err != nil:
		return Setting{}, fmt.Errorf("%s: %w: %w", full, err, fs.ErrInvalid)
	case line == "":
		return Setting{}, fmt.Errorf("%s: nothing to set: %w", full, fs.ErrInvalid)
	case collapse(line) != line || strings.ContainsAny(line, "\v\f"):
		return Setting{}, fmt.Errorf("%s: white space in %q would become one space: %w", full, clip(line), fs.ErrInvalid)
	}
	return Setting{full, v}, nil
}

// collapse does what becomes of white space while a client boots.
func collapse(s string) string {
	if !strings.ContainsAny(s, " \t") {
		return s
	}
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == '\t' }), " ")
}

// Screen returns what the session on one virtual terminal gets: each
// SCREEN_nn_NAME as NAME, in place of one for all.
func (s Settings) Screen(n int) Settings {
	own := make(map[string]Value)
	var order []string
	var out Settings
	for _, set := range s {
		num, rest, ok := screenName(upper(set.Name))
		if !ok || rest == "" || num != fmt.Sprintf("%02d", n) {
			continue
		}
		if _, have := own[rest]; !have {
			order = append(order, rest)
		}
		own[rest] = set.Value
	}
	for _, set := range s {
		name := upper(set.Name)
		if num, rest, ok := screenName(name); ok && rest != "" && num == fmt.Sprintf("%02d", n) {
			continue
		}
		if v, ok := own[name]; ok {
			set.Value = v
			delete(own, name)
		}
		out = append(out, set)
	}
	for _, name := range order {
		if v, ok := own[name]; ok {
			out = append(out, Setting{name, v})
		}
	}
	return out
}

// versionCompare is the order of GNU sort -V: first without what look like
// file name suffixes, then with them, then by bytes.
func versionCompare(a, b string) int {
	sa, sb := stem(a), stem(b)
	if c := compareRuns(sa, sb); c != 0 {
		return c
	}
	if len(sa) != len(a) || len(sb) != len(b) {
		if c := compareRuns(a, b); c != 0 {
			return c
		}
	}
	return strings.Compare(a, b)
}

// stem cuts the longest end that is made of .letters parts; at least one byte
// remains.
func stem(s string) string {
	alpha := func(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' || c == '~' }
	n := 0
	for i := 0; i < len(s); {
		i++
		n = i
		for i+1 < len(s) && s[i] == '.' && alpha(s[i+1]) {
			for i += 2; i < len(s) && (alpha(s[i]) || s[i] >= '0' && s[i] <= '9'); i++ {
			}
		}
	}
	return s[:n]
}

func compareRuns(a, b string) int {
	digit := func(s string, i int) bool { return i < len(s) && s[i] >= '0' && s[i] <= '9' }
	order := func(s string, i int) int {
		if i >= len(s) {
			return -1
		}
		switch c := s[i]; {
		case c >= '0' && c <= '9':
			return 0
		case c|0x20 >= 'a' && c|0x20 <= 'z':
			return int(c)
		case c == '~':
			return -2
		default:
			return int(c) + 256
		}
	}
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		for i < len(a) && !digit(a, i) || j < len(b) && !digit(b, j) {
			if x, y := order(a, i), order(b, j); x != y {
				return x - y
			}
			i++
			j++
		}
		for i < len(a) && a[i] == '0' {
			i++
		}
		for j < len(b) && b[j] == '0' {
			j++
		}
		first := 0
		for digit(a, i) && digit(b, j) {
			if first == 0 {
				first = int(a[i]) - int(b[j])
			}
			i++
			j++
		}
		switch {
		case digit(a, i):
			return 1
		case digit(b, j):
			return -1
		case first != 0:
			return first
		}
	}
	return 0
}
