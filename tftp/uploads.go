package tftp

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"sync"
	"syscall"
)

const (
	defaultMaxUpload  = 64 << 20
	defaultMaxUploads = 1 << 30
	leastUpload       = 4 << 10 // what a file counts: empty ones take room, too
)

// Uploads takes files into a directory: crash dumps, logs. A file has its name
// only when it is complete, and nothing outside the directory can be reached.
// Until then it is called .upload- and more beside it; what a program that is
// killed leaves so counts until somebody removes it. The file system must know
// hard links, unless Overwrite is set.
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
	// MaxTotal bounds what is in Root, in bytes: all files together, those on
	// their way here too, and each as 4 KiB at least. 0 means 1 GiB, -1 no bound.
	// What does not fit is refused with code 3.
	MaxTotal int64
	// Overwrite lets a file take the place of one that exists. Without it that
	// is an error, with code 6.
	Overwrite bool

	mu   sync.Mutex
	used int64 // as far as it counts for MaxTotal; counted anew for each upload
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
	if err := u.count(max(0, r.UploadSize)); err != nil {
		return nil, err
	}
	temp := path.Join(path.Dir(r.Name), ".upload-"+rand.Text())
	f, err := u.Root.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return &uploaded{u: u, f: f, temp: temp, name: r.Name}, nil
}

// count finds out how much there is in Root, and whether more fits.
func (u *Uploads) count(more int64) error {
	if u.MaxTotal < 0 {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.used = 0
	err := fs.WalkDir(u.Root.FS(), ".", func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		switch {
		case errors.Is(err, fs.ErrNotExist): // renamed meanwhile
			u.used += leastUpload
			return nil
		case err == nil:
			u.used += max(leastUpload, info.Size())
		}
		return err
	})
	if err == nil && !u.fits(max(leastUpload, more)) {
		err = errFull
	}
	return err
}

// fits says whether so much more may come. mu is held.
func (u *Uploads) fits(n int64) bool {
	limit := u.MaxTotal
	if limit == 0 {
		limit = defaultMaxUploads
	}
	return limit < 0 || n <= limit-u.used
}

func (u *Uploads) reserve(n int64) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	ok := u.fits(n)
	if ok {
		u.used += n
	}
	return ok
}

// errFull matches syscall.ENOSPC, so that the client gets code 3.
var errFull = fmt.Errorf("tftp: more than MaxTotal of uploads; remove some: %w", syscall.ENOSPC)

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
	if !f.u.reserve(int64(len(p))) {
		return 0, errFull
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
