package tftp

import (
	"context"
	"crypto/rand"
	"fmt"
	"io/fs"
	"os"
	"path"
)

const defaultMaxUpload = 64 << 20

// Uploads takes files into a directory: crash dumps, logs. A file has its name
// only when it is complete, and nothing outside the directory can be reached.
// It serves no file; combine it with a handler that does:
//
//	tftp.First(tftp.FileServerFS(files), &tftp.Uploads{Root: root})
//
// Its fields must not change while it is used; it may be used concurrently.
type Uploads struct {
	// Root is the directory. Directories in it are not made.
	Root *os.Root
	// MaxSize bounds a file, in bytes. 0 means 64 MiB, -1 no bound. A larger one
	// is refused with code 3, before it is sent when the client says its size.
	MaxSize int64
	// Overwrite lets a file take the place of one that exists. Without it that
	// is an error, with code 6.
	Overwrite bool
}

// OpenTFTP has no files.
func (u *Uploads) OpenTFTP(_ context.Context, r *Request) (File, error) {
	return nil, notExist(r.Name)
}

// CreateTFTP begins a file.
func (u *Uploads) CreateTFTP(_ context.Context, r *Request) (Upload, error) {
	if u.over(r.UploadSize) {
		return nil, errTooLarge
	}
	if !u.Overwrite {
		if _, err := u.Root.Lstat(r.Name); err == nil {
			return nil, &fs.PathError{Op: "create", Path: r.Name, Err: fs.ErrExist}
		}
	}
	temp := path.Join(path.Dir(r.Name), ".upload-"+rand.Text())
	f, err := u.Root.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return &uploaded{u: u, f: f, temp: temp, name: r.Name}, nil
}

var errTooLarge = fmt.Errorf("tftp: %w", &Error{CodeDiskFull, "larger than this server takes"})

func (u *Uploads) over(n int64) bool {
	limit := u.MaxSize
	if limit == 0 {
		limit = defaultMaxUpload
	}
	return limit > 0 && n > limit
}

// uploaded is a file under its temporary name.
type uploaded struct {
	u          *Uploads
	f          *os.File
	temp, name string
	n          int64
}

func (f *uploaded) Write(p []byte) (int, error) {
	if f.n += int64(len(p)); f.u.over(f.n) {
		return 0, errTooLarge
	}
	return f.f.Write(p)
}

// Commit gives the file its name.
func (f *uploaded) Commit() error {
	if err := f.f.Sync(); err != nil {
		return err
	}
	if f.u.Overwrite {
		return f.u.Root.Rename(f.temp, f.name)
	}
	// A link, unlike a new name, never takes the place of another file.
	if err := f.u.Root.Link(f.temp, f.name); err != nil {
		return err
	}
	return f.u.Root.Remove(f.temp)
}

// Close takes the temporary name away, where it is still there.
func (f *uploaded) Close() error {
	err := f.f.Close()
	if rerr := f.u.Root.Remove(f.temp); err == nil && rerr != nil && !os.IsNotExist(rerr) {
		err = rerr
	}
	return err
}

var _ Uploader = (*Uploads)(nil)
