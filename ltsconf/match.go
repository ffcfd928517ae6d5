package ltsconf

import (
	"slices"
	"strings"
)

// maxAffix bounds the number of look-ups for one identifier.
const maxAffix = 16

// patterns finds the first section whose name, as a pattern, matches an
// identifier, by what the pattern has before its first wildcard and behind
// its last one: so the time does not grow with the number of patterns as long
// as these differ.
type patterns struct {
	byAffix map[affix][]pattern
	lengths [][2]int // of prefix and suffix, each pair once
	count   int
}

type affix struct{ prefix, suffix string }

type pattern struct {
	name    string // folded
	section int32
}

func isPattern(name string) bool { return strings.ContainsAny(name, `*?[\`) }

// add adds the pattern name, which is folded; sections come in the order of
// the file.
func (ps *patterns) add(name string, section int32) {
	ps.count++
	if ps.byAffix == nil {
		ps.byAffix = make(map[affix][]pattern)
	}
	n := min(strings.IndexAny(name, `*?[\`), maxAffix)
	m := 0
	if !strings.ContainsAny(name, `[\`) { // else the end may be inside of brackets
		m = min(len(name)-1-strings.LastIndexAny(name, "*?"), maxAffix)
	}
	if lens := [2]int{n, m}; !slices.Contains(ps.lengths, lens) {
		ps.lengths = append(ps.lengths, lens)
	}
	k := affix{name[:n], name[len(name)-m:]}
	ps.byAffix[k] = append(ps.byAffix[k], pattern{name, section})
}

// first returns the first section in the file whose pattern matches. id is what
// prefixes and suffixes are compared with, in the case that the patterns have.
func (ps *patterns) first(id string, matches func(pattern string) bool) (int32, bool) {
	best, found := int32(0), false
	for _, l := range ps.lengths {
		if l[0]+l[1] > len(id) {
			continue
		}
		for _, p := range ps.byAffix[affix{id[:l[0]], id[len(id)-l[1]:]}] {
			if found && p.section > best {
				break
			}
			if matches(p.name) {
				best, found = p.section, true
				break
			}
		}
	}
	return best, found
}

// match is fnmatch(3) with FNM_CASEFOLD, in the C locale; p is folded.
func match(p, s string) bool { return matchStars(p, s, matchOne) }

// matchStars matches s with p, of which one matches a byte with what is no
// star. Only the last star's position needs to be remembered, and which
// brackets have no end, so that the time is bounded by the product of the
// lengths.
func matchStars(p, s string, one func(p string, char byte, open bool) (n int, ok, unclosed bool)) bool {
	i, j := 0, 0
	star, resume := -1, 0
	var open map[int]bool
	for j < len(s) {
		if i < len(p) && p[i] == '*' {
			star, resume = i, j
			i++
			continue
		}
		n, ok, unclosed := one(p[i:], s[j], open[i])
		if unclosed {
			if open == nil {
				open = make(map[int]bool)
			}
			open[i] = true
		}
		if ok {
			i += n
			j++
			continue
		}
		if star < 0 {
			return false
		}
		resume++
		i, j = star+1, resume
	}
	return strings.Trim(p[i:], "*") == ""
}

// matchOne matches c with the start of p and returns how much of p that took.
// open says that p is known to start with a bracket without an end, unclosed
// that it was found to.
func matchOne(p string, char byte, open bool) (n int, ok, unclosed bool) {
	c := lower(char)
	if p == "" {
		return 0, false, false
	}
	switch {
	case p[0] == '?':
		return 1, true, false
	case p[0] == '\\':
		return 2, len(p) > 1 && p[1] == c, false
	case p[0] == '[' && !open:
		if n, ok := matchSet(p, char); n > 0 {
			return n, ok, false
		}
		return 1, c == '[', true
	}
	return 1, p[0] == c, false
}

// matchSet matches c with the bracket expression at the start of p. Its
// length is 0 when no bracket closes it: then [ is an ordinary character.
func matchSet(p string, char byte) (n int, matched bool) {
	c := lower(char)
	i, negated := 1, false
	if i < len(p) && (p[i] == '!' || p[i] == '^') {
		i, negated = i+1, true
	}
	for first := true; ; first = false {
		if i >= len(p) {
			return 0, false
		}
		if p[i] == ']' && !first {
			return i + 1, matched != negated
		}
		if in, known, n := matchClass(p[i:], char); n > 0 {
			if !known && !matched {
				return n, false // whatever else is in the set
			}
			matched = matched || in
			i += n
			continue
		}
		lo, n := setChar(p[i:])
		i += n
		hi := lo
		if i+1 < len(p) && p[i] == '-' && p[i+1] != ']' {
			hi, n = setChar(p[i+1:])
			i += 1 + n
		}
		matched = matched || lo <= c && c <= hi
	}
}

// setChar returns the character at the start of p, within a set, and its
// length.
func setChar(p string) (byte, int) {
	switch {
	case p[0] == '\\' && len(p) > 1:
		return p[1], 2
	case len(p) >= len("[=a=]") && p[0] == '[' && (p[1] == '=' || p[1] == '.') && p[3] == p[1] && p[4] == ']':
		return p[2], len("[=a=]")
	}
	return p[0], 1
}

// matchClass matches c, in its own case, with a class such as [:digit:] at the
// start of p, which has length n; 0 when there is none.
func matchClass(p string, c byte) (in, known bool, n int) {
	rest, ok := strings.CutPrefix(p, "[:")
	if !ok {
		return false, false, 0
	}
	end := 0
	for end < len(rest) && rest[end] >= 'a' && rest[end] <= 'z' {
		end++
	}
	name := rest[:end]
	if !strings.HasPrefix(rest[end:], ":]") {
		return false, false, 0
	}
	known = true
	lower := c >= 'a' && c <= 'z'
	alpha := lower || c >= 'A' && c <= 'Z'
	digit := c >= '0' && c <= '9'
	graph := c > ' ' && c < 0x7f
	switch name {
	case "alpha":
		in = alpha
	case "lower":
		in = lower
	case "upper":
		in = alpha && !lower
	case "digit":
		in = digit
	case "alnum":
		in = alpha || digit
	case "xdigit":
		in = digit || alpha && c|0x20 <= 'f'
	case "punct":
		in = graph && !alpha && !digit
	case "graph":
		in = graph
	case "print":
		in = graph || c == ' '
	case "space":
		in = isSpace(c)
	case "blank":
		in = c == ' ' || c == '\t'
	case "cntrl":
		in = c < ' ' || c == 0x7f
	default:
		known = false
	}
	return in, known, len("[:") + len(name) + len(":]")
}
