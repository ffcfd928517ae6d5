package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"

	"github.com/seed-3ec230fa/diskless/squash"
	"github.com/seed-3ec230fa/diskless/squash/container"
)

// OpenSource opens what a root image can be made of by its path: a directory,
// an OCI layout (a directory or an archive), a "docker save" archive, a
// SquashFS image, or a tar archive, which may be compressed with gzip or zstd.
// "-" is a tar archive from stdin, which can be read once, the others as often
// as one likes. The source must be closed after its use.
func OpenSource(name string, stdin io.Reader, opts *container.Options) (squash.Source, io.Closer, error) {
	if name == "-" {
		return squash.Tar(stdin), io.NopCloser(nil), nil
	}
	fi, err := os.Stat(name)
	if err != nil {
		return nil, nil, err
	}
	if fi.IsDir() {
		if _, err := os.Lstat(filepath.Join(name, "oci-layout")); err == nil {
			image, err := container.Open(name, opts)
			return image, image, err
		}
		return squash.Dir(name), io.NopCloser(nil), nil
	}
	if fi.Mode().IsRegular() {
		image, err := container.Open(name, opts)
		if err == nil {
			return image, image, nil
		}
		if image, f, err := OpenSquash(name); err == nil {
			return image, f, nil
		} else if !errors.Is(err, errNoSquash) {
			return nil, nil, err
		}
		// Not a container image but another archive, or one that is compressed.
		if opts != nil && (opts.Name != "" || opts.Platform != "") || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errors.ErrUnsupported) {
			return nil, nil, err
		}
	}
	return tarFile(name), io.NopCloser(nil), nil
}

// tarFile is an archive that can be read again.
func tarFile(name string) squash.Source {
	return squash.SourceFunc(func(ctx context.Context) iter.Seq2[*squash.Entry, error] {
		return func(yield func(*squash.Entry, error) bool) {
			f, err := os.Open(name)
			if err != nil {
				yield(nil, err)
				return
			}
			defer f.Close()
			for e, err := range squash.Tar(f).Entries(ctx) {
				if !yield(e, err) {
					return
				}
			}
		}
	})
}

var errNoSquash = errors.New("no SquashFS image")

// OpenSquash opens a SquashFS image.
func OpenSquash(name string) (*squash.FS, *os.File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, nil, err
	}
	var magic [4]byte
	if _, err := f.ReadAt(magic[:], 0); err != nil && err != io.EOF {
		_ = f.Close()
		return nil, nil, err
	}
	if !bytes.Equal(magic[:], []byte("hsqs")) {
		_ = f.Close()
		return nil, nil, fmt.Errorf("%s: %w", name, errNoSquash)
	}
	image, err := squash.Open(f)
	if err != nil {
		_ = f.Close()
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	return image, f, nil
}
