package squash

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// BuildFile is [Build] into the file at path, which appears complete or not at
// all: the image is written to a new file beside it (".NAME.RANDOM.tmp", mode
// 0666 before umask), synced, and renamed over whatever path named before.
// Machines that read the old file through an open descriptor keep it. On an
// error the new file is removed and path is as it was.
//
// The image must not lie in the tree that it is made from; BuildFile refuses
// that when the source tells inode numbers.
func BuildFile(ctx context.Context, path string, src Source, opts *Options) (err error) {
	dir, base := filepath.Split(path)
	if base == "" {
		return &fs.PathError{Op: "squash", Path: path, Err: errors.New("the image's path must name a file")}
	}
	f, err := os.OpenFile(filepath.Join(dir, "."+base+"."+rand.Text()+".tmp"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return fmt.Errorf("squash: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	fi, err := f.Stat()
	if err != nil {
		return fmt.Errorf("squash: %w", err)
	}
	own, known := statOf(fi)
	refuse := func(st Stat) error {
		if known && st.Dev == own.Dev && st.Ino == own.Ino {
			return fmt.Errorf("%w: this is the image being built; choose a path outside of the source tree", fs.ErrInvalid)
		}
		return nil
	}
	if err := build(ctx, f, src, opts, refuse); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("squash: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("squash: %w", err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("squash: %w", err)
	}
	// The rename is made durable as far as possible: a directory may be
	// unreadable to us, and some file systems cannot sync one.
	if d, err := os.Open(filepath.Join(dir, ".")); err == nil {
		_ = d.Sync()
		_ = d.Close()
	}
	return nil
}
