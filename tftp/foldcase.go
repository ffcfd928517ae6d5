package tftp

import (
	"errors"
	"io/fs"
	"path"
	"strings"
)

// FoldCase makes names of fsys match in any case: what Windows' loaders and some
// firmware need. A name that exists as it is written is that one; otherwise
// each element is looked for in its directory, and the first that is equal but
// for case is taken, in the order of [fs.ReadDir]. It may be used concurrently
// when fsys may.
func FoldCase(fsys fs.FS) fs.FS { return foldFS{fsys} }

type foldFS struct{ fs.FS }

func (f foldFS) Open(name string) (fs.File, error) {
	file, err := f.FS.Open(name)
	if !errors.Is(err, fs.ErrNotExist) || !fs.ValidPath(name) {
		return file, err
	}
	at := "."
	for elem := range strings.SplitSeq(name, "/") {
		entries, rerr := fs.ReadDir(f.FS, at)
		found := false
		for _, e := range entries {
			if found = strings.EqualFold(e.Name(), elem); found {
				at = path.Join(at, e.Name())
				break
			}
		}
		if !found {
			if rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
				return nil, rerr
			}
			return nil, err
		}
	}
	return f.FS.Open(at)
}
