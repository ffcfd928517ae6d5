package ltsconf

import "strings"

// globMatch matches a pattern of * and ? only, letters in their own case.
func globMatch(p, s string) bool {
	i, j, star, resume := 0, 0, -1, 0
	for j < len(s) {
		switch {
		case i < len(p) && p[i] == '*':
			star, resume = i, j
			i++
		case i < len(p) && (p[i] == '?' || p[i] == s[j]):
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

// shellMatch matches a pattern of case, which knows sets and backslashes too.
func shellMatch(p, s string) bool { return matchStars(p, s, shellMatchOne) }

func shellMatchOne(p string, c byte, open bool) (n int, ok, unclosed bool) {
	if p == "" {
		return 0, false, false
	}
	switch {
	case p[0] == '?':
		return 1, true, false
	case p[0] == '\\' && len(p) > 1:
		return 2, p[1] == c, false
	case p[0] == '[' && !open:
		if n, in := shellSet(p, c); n > 0 {
			return n, in, false
		}
		return 1, c == '[', true
	}
	return 1, p[0] == c, false
}

// shellSet matches c with the set at the start of p. Its length is 0 when no
// bracket closes it: then [ is an ordinary character.
func shellSet(p string, c byte) (n int, matched bool) {
	i, negated := 1, false
	if i < len(p) && p[i] == '!' { // dash knows no ^
		i, negated = i+1, true
	}
	for first := true; ; first = false {
		if i >= len(p) {
			return 0, false
		}
		if p[i] == ']' && !first {
			return i + 1, matched != negated
		}
		if in, known, n := matchClass(p[i:], c); n > 0 {
			matched = matched || in && known
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
