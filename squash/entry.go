package squash

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"strings"
	"time"
)

// Entry is one name of a tree, with the file that it names. Entries are what
// sources are made of and what an image gives back: unlike [fs.FS] they carry
// owners, extended attributes and names of any bytes.
type Entry struct {
	// Path is the name from the root of the tree, its elements separated by
	// slashes: "etc/passwd". The root is ".". The bytes need not be UTF-8.
	Path string
	// Mode is the type with the permissions, setuid, setgid and sticky.
	Mode fs.FileMode
	// Size is the length in bytes of a regular file, 0 for others.
	Size int64
	// ModTime is the time of modification; the zero time is stored as 1970.
	ModTime time.Time
	// Target is where a symbolic link points.
	Target string
	// Stat is the rest. Entries whose Nlink is above 1 and whose Dev, Ino and
	// type are equal are names of one file, directories excepted.
	Stat

	// Open opens the content of a regular file, as often as it is called and
	// after the iteration, too. [Build] calls it in the order of the tree, from
	// as many goroutines at a time as [Options.Readers] says.
	Open func() (io.ReadCloser, error)
	// Content is the content of a regular file in a source that can be read
	// once only, such as a tar stream. It ends with the next entry. It is used
	// when Open is nil; both are nil for further names of a file that came
	// before. A regular file that is new needs one of them unless it is empty.
	Content io.Reader
}

// content opens what a regular file holds.
func (e *Entry) content() (io.ReadCloser, error) {
	switch {
	case e.Open != nil:
		return e.Open()
	case e.Content != nil:
		return io.NopCloser(e.Content), nil
	case e.Size == 0:
		return io.NopCloser(strings.NewReader("")), nil
	}
	return nil, errNoContent
}

var errNoContent = errors.New("the source gives no content for this file")

// Source is a tree to build an image from. [Dir], [FromFS], [Tar], [Layers]
// and an [*FS] are sources.
type Source interface {
	// Entries iterates over the tree. A name that comes again replaces what
	// it named before, with all that lies below; only a directory over a
	// directory keeps the children and takes the new attributes, as when an
	// archive is unpacked. Directories that are missing above a name belong to
	// root and have mode 0755. The iteration ends with the first error.
	//
	// Entries is called from one goroutine, once for each [Build].
	Entries(ctx context.Context) iter.Seq2[*Entry, error]
}

// SourceFunc is a function that is a [Source].
type SourceFunc func(ctx context.Context) iter.Seq2[*Entry, error]

// Entries calls f.
func (f SourceFunc) Entries(ctx context.Context) iter.Seq2[*Entry, error] { return f(ctx) }
