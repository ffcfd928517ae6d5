package squash

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// Pattern matches names of a tree as mksquashfs -wildcards does: a path from
// the root of the tree, each element of which may have
//
//   - any bytes, also none, also a leading dot
//     ?        one character
//     [a-z]    one of a class; [!a-z] or [^a-z] one that is not of it
//     \x       x itself
//     !(a|b)   as a whole element: anything that matches none of these
//
// None of *, ? and [ matches the dot that begins a name. A leading slash means
// nothing. A pattern that begins with "... " is not anchored: its first element
// may be any on the way. [Pattern.Check] says whether a pattern makes sense;
// one that does not matches nothing.
type Pattern string

// Check says what is wrong with a pattern.
func (p Pattern) Check() error {
	_, elems := p.parts()
	for _, elem := range elems {
		if elem == "" || elem == "." || elem == ".." {
			return fmt.Errorf("a pattern must be a path from the root of the tree, without \".\" and \"..\": %w", fs.ErrInvalid)
		}
		for _, alt := range alternatives(elem) {
			if _, err := path.Match(alt, ""); err != nil {
				return fmt.Errorf("an element %q that ends inside of [ or after \\: %w", elem, fs.ErrInvalid)
			}
			if i := strings.IndexByte(alt, '('); i > 0 && strings.IndexByte("?*+@!", alt[i-1]) >= 0 && (i < 2 || alt[i-2] != '\\') {
				return fmt.Errorf("the extended pattern %q: only !(a|b) as a whole element is known: %w", elem, errors.ErrUnsupported)
			}
		}
	}
	return nil
}

// parts splits a pattern into its elements.
func (p Pattern) parts() (sticky bool, elems []string) {
	s, sticky := strings.CutPrefix(string(p), "... ")
	s = strings.TrimSuffix(strings.TrimPrefix(s, "/"), "/")
	return sticky, strings.Split(s, "/")
}

// alternatives are the patterns in !(a|b), or the element itself.
func alternatives(elem string) []string {
	if not(elem) {
		return strings.Split(elem[2:len(elem)-1], "|")
	}
	return []string{elem}
}

func not(elem string) bool { return strings.HasPrefix(elem, "!(") && strings.HasSuffix(elem, ")") }

func matchElem(pattern, name string) bool {
	any := false
	for _, alt := range alternatives(pattern) {
		if strings.HasPrefix(name, ".") && !strings.HasPrefix(alt, ".") && !strings.HasPrefix(alt, `\.`) {
			continue
		}
		ok, err := path.Match(caret(alt), name)
		if err != nil {
			return false
		}
		any = any || ok
	}
	return any != not(pattern)
}

// caret writes [!a] as [^a], which package path knows.
func caret(pattern string) string {
	if !strings.Contains(pattern, "[!") {
		return pattern
	}
	b := []byte(pattern)
	for i := 0; i+1 < len(b); i++ {
		switch {
		case b[i] == '\\':
			i++
		case b[i] == '[' && b[i+1] == '!':
			b[i+1] = '^'
		}
	}
	return string(b)
}

func matchElems(patterns, names []string) bool {
	for i, p := range patterns {
		if !matchElem(p, names[i]) {
			return false
		}
	}
	return true
}

// Match says whether the pattern matches a name itself.
func (p Pattern) Match(name string) bool {
	sticky, elems := p.parts()
	names := strings.Split(name, "/")
	n := len(names) - len(elems)
	return n >= 0 && (sticky || n == 0) && matchElems(elems, names[n:])
}

// Covers says whether the pattern matches a name or a directory above it.
func (p Pattern) Covers(name string) bool {
	sticky, elems := p.parts()
	names := strings.Split(name, "/")
	for i := 0; i+len(elems) <= len(names); i++ {
		if matchElems(elems, names[i:]) {
			return true
		}
		if !sticky {
			break
		}
	}
	return false
}

// leadsBelow says whether an anchored pattern may match something below a
// directory.
func (p Pattern) leadsBelow(dir string) bool {
	sticky, elems := p.parts()
	names := strings.Split(dir, "/")
	return !sticky && len(names) < len(elems) && matchElems(elems[:len(names)], names)
}
