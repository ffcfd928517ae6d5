package tftp

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// maxBuffered bounds what FileServerFS keeps in memory for one file that
// cannot be read at an offset. Rendered configuration is far smaller.
const maxBuffered = 4 << 20

// FileServerFS returns a handler that serves the regular files of fsys, the
// twin of [net/http.FileServerFS]. Directories and special files do not exist
// for it.
//
// A file that is an [io.ReaderAt] (those of [os.Root], [embed.FS] and
// [testing/fstest.MapFS] are) is read as the transfer goes on. Any other file
// is read whole when it is opened, up to 4 MiB; a larger one is an error. A
// file with a method ID() string gives the [File] its ID (see [Immutable]), and
// an [*os.File] that was not changed just now has one from its inode and times.
func FileServerFS(fsys fs.FS) Handler {
	return HandlerFunc(func(_ context.Context, r *Request) (File, error) { return openFS(fsys, r.Name) })
}

// FSFunc returns a handler that serves the files of the tree that view returns
// for the request: what this client sees. A nil tree, or the error
// fs.ErrNotExist, means that there is none for it. view is called for each
// request, concurrently.
func FSFunc(view func(ctx context.Context, r *Request) (fs.FS, error)) Handler {
	return HandlerFunc(func(ctx context.Context, r *Request) (File, error) {
		fsys, err := view(ctx, r)
		if err != nil {
			return nil, err
		}
		if fsys == nil {
			return nil, notExist(r.Name)
		}
		return openFS(fsys, r.Name)
	})
}

func openFS(fsys fs.FS, name string) (_ File, err error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, notExist(name)
	}
	var id string
	if i, ok := f.(interface{ ID() string }); ok {
		id = i.ID()
	}
	if _, ok := f.(*os.File); ok && id == "" {
		id = fileID(info, time.Now())
	}
	if r, ok := f.(io.ReaderAt); ok {
		return &fsFile{r, f, info.Size(), id}, nil
	}

	b, err := io.ReadAll(io.LimitReader(f, maxBuffered+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxBuffered {
		return nil, fmt.Errorf("tftp: %s is larger than %d bytes and its file system cannot read at an offset: "+
			"serve it from one whose files are an io.ReaderAt", name, maxBuffered)
	}
	f.Close() // read to its end: nothing that Close could still say matters
	return NewFile(bytes.NewReader(b), int64(len(b)), id), nil
}

// fsFile is an open fs.File that can read at an offset.
type fsFile struct {
	io.ReaderAt
	io.Closer
	size int64
	id   string
}

func (f *fsFile) Size() int64 { return f.size }
func (f *fsFile) ID() string  { return f.id }
