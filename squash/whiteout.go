package squash

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// seen is what higher layers have under a name. The lists hold layers, in
// falling order.
type seen struct {
	kids   map[string]*seen
	hides  []int // a whiteout or a file that is no directory
	opaque []int // what is below is hidden
	dirs   []int // a directory
	attrs  int   // 1 + the layer whose attributes the directory has
}

func (m *merger) whiteout(layer int, dir, base string) error {
	switch {
	case base == whiteoutOpaque:
		s := m.see(dir)
		if n := len(s.opaque); n == 0 || s.opaque[n-1] != layer {
			s.opaque = append(s.opaque, layer)
		}
	case strings.HasPrefix(base, whiteoutMeta): // another program's bookkeeping
	case base == whiteout || base == whiteout+"." || base == whiteout+"..":
		return fmt.Errorf("a whiteout %q that names nothing: %w", base, fs.ErrInvalid)
	default:
		m.see(path.Join(dir, base[len(whiteout):])).hide(layer)
	}
	return nil
}

// above notes that a layer has directories from the root down to dir.
func (m *merger) above(dir string, layer int) {
	s := &m.root
	for name := range strings.SplitSeq(dir, "/") {
		if name == "." {
			break
		}
		s = m.kid(s, name)
		if n := len(s.dirs); n == 0 || s.dirs[n-1] != layer {
			s.dirs = append(s.dirs, layer)
		}
	}
}

func (m *merger) see(name string) *seen {
	s := &m.root
	if name != "." {
		for elem := range strings.SplitSeq(name, "/") {
			s = m.kid(s, elem)
		}
	}
	return s
}

func (m *merger) kid(s *seen, name string) *seen {
	k := s.kids[name]
	if k == nil {
		if s.kids == nil {
			s.kids = make(map[string]*seen)
		}
		k = &seen{}
		m.nodes++
		m.kept += len(name)
		s.kids[strings.Clone(name)] = k
	}
	return k
}

// attrs returns 1 + the layer whose attributes a directory has, 0 for none.
func (m *merger) attrs(name string) int {
	s := &m.root
	if name != "." {
		for elem := range strings.SplitSeq(name, "/") {
			if s = s.kids[elem]; s == nil {
				return 0
			}
		}
	}
	return s.attrs
}

func (s *seen) hide(layer int) {
	if n := len(s.hides); n == 0 || s.hides[n-1] != layer {
		s.hides = append(s.hides, layer)
	}
}

// hidden says whether the layers between layer and view hide a name of layer.
func (m *merger) hidden(name string, layer, view int, dir bool) bool {
	between := func(list []int) bool {
		return slices.ContainsFunc(list, func(l int) bool { return layer < l && l < view })
	}
	s := &m.root
	for rest, more := name, name != "."; more; {
		if between(s.opaque) {
			return true
		}
		var elem string
		elem, rest, more = strings.Cut(rest, "/")
		if s = s.kids[elem]; s == nil {
			return false
		}
		if between(s.hides) {
			return true
		}
	}
	return !dir && name != "." && between(s.dirs)
}
