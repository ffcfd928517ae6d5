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
func shellMatch(p, s string) bool {
	i, j, star, resume := 0, 0, -1, 0
	for j < len(s) {
		if i < len(p) && p[i] == '*' {
			star, resume = i, j
			i++
			continue
		}
		if n, ok := shellMatchOne(p[i:], s[j]); ok {
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

func shellMatchOne(p string, c byte) (int, bool) {
	if p == "" {
		return 0, false
	}
	switch p[0] {
	case '?':
		return 1, true
	case '\\':
		if len(p) > 1 {
			return 2, p[1] == c
		}
	case '[':
		if n, in := shellSet(p, c); n > 0 {
			return n, in
		}
	}
	return 1, p[0] == c
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
