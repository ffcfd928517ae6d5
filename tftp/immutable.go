package tftp

import (
	"io"
	"io/fs"
)

// Immutable says of a tree that its files never change: an embedded one, an
// image, an archive. Then [FileServerFS] reads a file of it once for all clients
// that read it at the same time, and unpacks it once where it is compressed. id
// names the content of the whole tree, such as the digest of its image: trees
// with the same id have the same files. The empty id is that of no tree, and
// returns fsys as it is.
func Immutable(fsys fs.FS, id string) fs.FS {
	if id == "" {
		return fsys
	}
	return &immutable{fsys, id}
}

type immutable struct {
	fs.FS
	id string
}

// Open implements fs.FS.
func (t *immutable) Open(name string) (fs.File, error) {
	f, err := t.FS.Open(name)
	if err != nil {
		return nil, err
	}
	r, ok := f.(io.ReaderAt)
	if !ok {
		return f, nil // read whole by every client anyway, as are directories
	}
	named := named{f, r, t.id + "\x00" + name}
	if s, ok := f.(io.Seeker); ok {
		return &namedSeeker{named, s}, nil
	}
	return &named, nil
}

// Stat implements fs.StatFS.
func (t *immutable) Stat(name string) (fs.FileInfo, error) { return fs.Stat(t.FS, name) }

// ReadDir implements fs.ReadDirFS.
func (t *immutable) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(t.FS, name) }

// ReadLink implements fs.ReadLinkFS, with Lstat.
func (t *immutable) ReadLink(name string) (string, error) { return fs.ReadLink(t.FS, name) }

// Lstat implements fs.ReadLinkFS.
func (t *immutable) Lstat(name string) (fs.FileInfo, error) { return fs.Lstat(t.FS, name) }

// named is a file with an ID.
type named struct {
	fs.File
	io.ReaderAt
	id string
}

func (f *named) ID() string { return f.id }

// namedSeeker can be served over HTTP, too.
type namedSeeker struct {
	named
	io.Seeker
}
