package ltsconf

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Finding is something in a file that is probably not meant.
type Finding struct {
	// Rule names the kind of finding: syntax, unknown, type, unused, early,
	// duplicate-section, duplicate-setting, like, dead-section, spacing,
	// secret, fstab, include.
	Rule string
	File string
	Line int
	Col  int
	Msg  string
}

// String returns file:line:col: message (rule).
func (f Finding) String() string {
	return (&SyntaxError{f.File, f.Line, f.Col, f.Msg}).Error() + " (" + f.Rule + ")"
}

// maxFindings bounds the work on a file that is nothing but mistakes.
const maxFindings = 1000

// effort is how many comparisons of names the search for what covers or
// resembles them may still take: it would be quadratic.
type effort int

const maxEffort effort = 1 << 26

// glob is the pattern of a section.
type glob struct {
	name    string // folded
	section int32
}

type linter struct {
	f   *File
	out []Finding
	effort
}

func (l *linter) add(rule string, file int32, line, col int32, format string, args ...any) {
	if len(l.out) < maxFindings {
		l.out = append(l.out, Finding{rule, l.f.names[file], int(line), int(col), fmt.Sprintf(format, args...)})
	}
}

// Lint returns what is probably a mistake, in the order of the file; at most a
// thousand findings. Read the file with a compatible [Parser] to have its
// syntax errors among them; a strict one would have refused it.
//
// Beside those (rule "syntax", LIKE in a circle included): names that LTSP
// does not know, with the name that was probably meant; values of the wrong
// type; settings that no script reads, or that are read before the file is;
// second sections and settings of one name; LIKE that names no section, or
// stands in Default; sections that no client can match; runs of white space
// where the boot makes one space of them; what looks like a secret in a
// section for many clients; fstab lines that can stop the boot.
func (f *File) Lint() []Finding {
	l := &linter{f: f, effort: maxEffort}
	for _, p := range f.problems {
		l.out = append(l.out, Finding{"syntax", p.File, p.Line, p.Col, p.Msg})
	}
	l.sections()
	for i := range f.sections {
		for j := range f.sections[i].settings {
			if l.full() {
				break
			}
			l.setting(int32(i), &f.sections[i].settings[j])
		}
	}
	l.duplicates()
	slices.SortStableFunc(l.out, func(a, b Finding) int {
		if a.File != b.File {
			return slices.Index(f.names, a.File) - slices.Index(f.names, b.File)
		}
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Col - b.Col
	})
	return l.out
}

func (l *linter) full() bool { return len(l.out) >= maxFindings }

func (l *linter) duplicates() {
	type key struct {
		section int32
		name    string
	}
	last := make(map[key]span)
	for _, sp := range l.f.spans {
		if sp.name == "LIKE" {
			continue
		}
		k := key{sp.section, sp.name}
		if was, ok := last[k]; ok {
			l.add("duplicate-setting", 0, was.keyTok.line, was.keyTok.col, "%s is set again in line %d, which counts", clip(sp.name), sp.keyTok.line)
		}
		last[k] = sp
	}
}

func (l *linter) sections() {
	f := l.f
	liked := make(map[int32]bool)
	for _, k := range f.likes {
		if l.full() {
			return
		}
		t, by := k.target, f.sections[k.section].name
		to, ok := f.index[fold(t.text)]
		switch {
		case !ok:
			l.add("like", t.file, t.line, t.col, "no section [%s]: clients ignore this LIKE%s", clip(t.text), l.meant(t.text))
		case fold(by) == "default":
			l.add("like", t.file, t.line, t.col, "LIKE in [%s] has no effect: no section is followed from there", clip(by))
		default:
			liked[to] = true
		}
	}
	var globs []glob
	for i := range f.sections {
		if l.full() {
			return
		}
		s, n := &f.sections[i], int32(i)
		if first := f.index[fold(s.name)]; first != n {
			l.add("duplicate-section", s.file, s.line, s.col, "[%s] is there already, in line %d: clients see only that one", clip(s.name), f.sections[first].line)
			continue
		}
		if fold(s.name) == "default" || liked[n] {
			if isPattern(s.name) && len(globs) < maxFindings {
				globs = append(globs, glob{fold(s.name), n})
			}
			continue
		}
		if why := deadName(s.name); why != "" {
			l.add("dead-section", s.file, s.line, s.col, "no client matches [%s]: %s", clip(s.name), why)
			continue
		}
		if !isPattern(s.name) {
			continue
		}
		folded := fold(s.name)
		if by := slices.IndexFunc(globs, func(g glob) bool { return l.covers(g.name, folded) }); by >= 0 {
			g := f.sections[globs[by].section]
			l.add("dead-section", s.file, s.line, s.col, "no client gets to [%s]: [%s] in line %d matches the same ones, and only the first pattern counts", clip(s.name), clip(g.name), g.line)
		} else if len(globs) < maxFindings {
			globs = append(globs, glob{folded, n})
		}
	}
}

// meant offers the section that was probably meant.
func (l *linter) meant(name string) string {
	best, at := 3, ""
	for _, s := range l.f.sections[:min(len(l.f.sections), maxFindings)] {
		if d := l.distance(fold(s.name), fold(name), best); d < best && d < len(name) {
			best, at = d, s.name
		}
	}
	if at == "" {
		return ""
	}
	return fmt.Sprintf("; is it [%s]?", clip(at))
}

// deadName tells why no identifier of a client can match a name.
func deadName(name string) string {
	hex := func(s string) bool { return strings.Trim(fold(s), "0123456789abcdef") == "" }
	if mac, err := net.ParseMAC(name); err == nil {
		if strings.Contains(name, "-") || strings.Contains(name, ".") {
			return fmt.Sprintf("MAC addresses have colons; write [%s]", mac)
		}
		if len(mac) != 6 {
			return "a MAC address has six bytes"
		}
		return ""
	}
	if rest, ok := strings.CutPrefix(name, "01-"); ok {
		if mac, err := net.ParseMAC(rest); err == nil {
			return fmt.Sprintf("the 01- is for boot files; write [%s]", mac)
		}
	}
	if len(name) == 12 && hex(name) && strings.ContainsAny(name, "0123456789") {
		return "MAC addresses have colons"
	}
	if ip, err := netip.ParseAddr(name); err == nil && ip.Is6() {
		return "clients look for IPv4 addresses only"
	}
	if strings.Contains(name, "/") {
		if _, err := netip.ParsePrefix(name); err == nil {
			return "networks are not known; write a pattern such as [192.168.67.*]"
		}
	}
	if _, err := netip.ParseAddr(name); err != nil && strings.Count(name, ".") == 3 && strings.Trim(name, "0123456789.") == "" {
		return "it is no IPv4 address"
	}
	if strings.ContainsAny(name, "[]") {
		return "of brackets, only quoted ones get this far; name the machines one by one"
	}
	if i := strings.IndexAny(name, " \t,;|"); i >= 0 {
		return fmt.Sprintf("%q is in no host name, and no LIKE names it", name[i])
	}
	return ""
}

// covers reports whether p, a pattern of * and ? only, matches all that q does. It may miss some.
func (e *effort) covers(p, q string) bool {
	if strings.ContainsAny(p, `[\`) || strings.ContainsAny(q, `[\`) {
		return p == q
	}
	i, j, star, resume := 0, 0, -1, 0
	for j < len(q) {
		if *e--; *e < 0 {
			return false
		}
		switch {
		case i < len(p) && p[i] == '*':
			star, resume = i, j
			i++
		case i < len(p) && q[j] != '*' && (p[i] == '?' || p[i] == q[j]):
			i++
			j++
		case star >= 0:
			resume++
			i, j = star+1, resume
		default:
			return false
		}
	}
	return strings.Trim(p[i:], "*") == ""
}

func (l *linter) setting(section int32, s *setting) {
	name := l.f.keys[s.key]
	add := func(rule, format string, args ...any) { l.add(rule, s.file, s.line, s.col, format, args...) }
	v, known := LookupVariable(name)
	if v.Name == perScreen {
		prefix := "SCREEN_" + name[len("SCREEN_"):len("SCREEN_07_")]
		hint := suggest(name[len(prefix):])
		add("unknown", "LTSP does not know %s%s", clip(name), strings.Replace(hint, "is it ", "is it "+prefix, 1))
	}
	if !known {
		add("unknown", "LTSP does not know %s%s", clip(name), suggest(name))
	}
	switch {
	case v.Unused:
		add("unused", "no script of LTSP 5 reads %s", name)
	case v.Early:
		add("early", "%s is read before this file is: set it on the kernel command line", name)
	}
	text, literal := Value{Raw: s.raw}.Literal()
	if literal && !equalNone(s.raw) {
		if why := v.Check(text); why != "" {
			add("type", "%s: %q %s", clip(name), clip(text), why)
		}
	}
	many := fold(l.f.sections[section].name)
	if (many == "default" || isPattern(many)) && isSecret(name, s.raw) {
		add("secret", "%s looks like a secret, and each client that [%s] applies to can read it", clip(name), clip(many))
	}
	fam, ok := FamilyOf(name)
	if !ok {
		return
	}
	if fam != Screen && collapse(s.raw) != s.raw {
		add("spacing", "%s: each run of white space becomes one space, at the ends too", clip(name))
	}
	if fam == Fstab && literal {
		if why := checkFstab(text); why != "" {
			add("fstab", "%s: %s", clip(name), why)
		}
	}
}

// isSecret knows the secrets that are usual in an lts.conf.
func isSecret(name, raw string) bool {
	return strings.Contains(name, "PASSWORD") && !strings.HasSuffix(name, "_HASH") ||
		strings.Contains(name, "TOKEN") || strings.Contains(name, "SECRET") ||
		strings.Contains(raw, "--token") || strings.Contains(raw, "--certificate-key") ||
		strings.Contains(raw, "password=") || strings.Contains(raw, "PRIVATE KEY")
}

func checkFstab(line string) string {
	if line == "" || strings.HasPrefix(line, "#") {
		return ""
	}
	fields := strings.Fields(line)
	if len(fields) < 4 || len(fields) > 6 {
		return fmt.Sprintf("an fstab line has four to six fields, this one has %d", len(fields))
	}
	opts := strings.Split(fields[3], ",")
	if fields[2] != "swap" && !slices.Contains(opts, "nofail") && !slices.Contains(opts, "noauto") &&
		(strings.Contains(fields[0], ":") || strings.HasPrefix(fields[0], "//") || strings.HasPrefix(fields[0], "/dev/")) {
		return "without nofail among its options the boot stops when this cannot be mounted"
	}
	return ""
}

// suggest offers the known name that was probably meant.
func suggest(name string) string { return suggestFrom(variables[:], name) }

func suggestFrom(variables []Variable, name string) string {
	best, at := max(2, min(4, len(name)/4+1)), ""
	try := func(s string) {
		if d := distance(name, s, best); d < best {
			best, at = d, s
		}
	}
	for _, v := range variables {
		i := strings.IndexAny(v.Name, "*<")
		if i < 0 {
			try(v.Name)
			continue
		}
		// A family: its fixed part instead of as much of the name.
		for _, n := range []int{i, i - 1, i + 1} {
			if v.Name[i] == '*' && n > 0 && n < len(name) {
				if d := distance(name[:n], v.Name[:i], best); d < best {
					best, at = d, v.Name[:i]+name[n:]
				}
			}
		}
	}
	if at == "" {
		return ""
	}
	return "; is it " + at + "?"
}

// distance is the distance of names that are not known beforehand.
func (e *effort) distance(a, b string, limit int) int {
	if max(len(a)-len(b), len(b)-len(a)) >= limit || *e < 0 {
		return limit
	}
	*e -= effort(len(a) * min(len(b), 128))
	return distance(a, b, limit)
}

// distance is the number of edits from a to b, where two letters that changed
// places count once; limit when it is that or more.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit || len(a) > 128 {
		return limit
	}
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	for j := range rows[1] {
		rows[1][j] = j
	}
	for i := range len(a) {
		prev2, prev, cur := rows[i%3], rows[(i+1)%3], rows[(i+2)%3]
		cur[0] = i + 1
		for j := range len(b) {
			d := prev[j]
			if a[i] != b[j] {
				d++
			}
			d = min(d, prev[j+1]+1, cur[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				d = min(d, prev2[j-1]+1)
			}
			cur[j+1] = d
		}
	}
	return min(limit, rows[(len(a)+1)%3][len(b)])
}
