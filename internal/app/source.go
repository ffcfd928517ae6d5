package app

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"regexp"

	"github.com/seed-3ec230fa/diskless/squash"
	"github.com/seed-3ec230fa/diskless/squash/container"
)

// errNoSource says that a file is nothing that a root image can be made of.
var errNoSource = errors.New("no source of an image: choose a directory, a tar archive (as it is, or compressed with gzip or zstd), " +
	`a container image ("docker save", "podman save" or an OCI layout, not compressed) or a SquashFS image`)

// OpenSource opens what a root image can be made of by its path: a directory,
// a container image (an OCI layout or what "docker save" writes, as a directory
// or an archive), a SquashFS image, or a tar archive, which may be compressed
// with gzip or zstd. "-" is a tar archive from stdin, which can be read once, the
// others as often as one likes. The source must be closed after its use.
func OpenSource(name string, stdin io.Reader, opts *container.Options) (squash.Source, io.Closer, error) {
	choice := opts != nil && *opts != container.Options{}
	if name == "-" {
		if choice {
			return nil, nil, fmt.Errorf("stdin: %w: save the container image to a file first", container.ErrNoImage)
		}
		return noImage(squash.Tar(stdin)), io.NopCloser(nil), nil
	}
	fi, err := os.Stat(name)
	if err != nil {
		return nil, nil, err
	}
	if fi.IsDir() || fi.Mode().IsRegular() {
		image, err := container.Open(name, opts)
		if err == nil {
			return image, image, nil
		}
		if fi.Mode().IsRegular() {
			if image, f, err := OpenSquash(name); err == nil {
				return image, f, nil
			} else if !errors.Is(err, errNoSquash) {
				return nil, nil, err
			}
		}
		if choice || !errors.Is(err, container.ErrNoImage) {
			return nil, nil, err
		}
		if errors.Is(err, tar.ErrHeader) {
			return nil, nil, fmt.Errorf("%s: %w", name, errNoSource)
		}
	}
	if fi.IsDir() {
		return squash.Dir(name), io.NopCloser(nil), nil
	}
	return noImage(tarFile(name)), io.NopCloser(nil), nil
}

// noImage refuses an archive that turns out to be a container image, whose
// files would be manifests and layers: one that is compressed or comes through
// a pipe, which package container cannot read.
func noImage(src squash.Source) squash.Source {
	return squash.SourceFunc(func(ctx context.Context) iter.Seq2[*squash.Entry, error] {
		return func(yield func(*squash.Entry, error) bool) {
			var manifest, layer bool
			for e, err := range src.Entries(ctx) {
				if err == nil && !e.Mode.IsDir() {
					manifest = manifest || e.Path == "manifest.json" || e.Path == "index.json"
					layer = layer || layerName.MatchString(e.Path)
					if e.Path == "oci-layout" || manifest && layer {
						yield(nil, fmt.Errorf("%s: this is a container image, which cannot be read while it is compressed or from stdin: "+
							"decompress it, or save it, to a file first: %w", e.Path, errors.ErrUnsupported))
						return
					}
				}
				if !yield(e, err) {
					return
				}
			}
		}
	})
}

// layerName is what the writers of container images call a layer's archive.
var layerName = regexp.MustCompile(`^([^/]+/layer\.tar|blobs/sha256/[0-9a-f]{64}|(sha256:)?[0-9a-f]{64}\.tar(\.gz)?)$`)

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
