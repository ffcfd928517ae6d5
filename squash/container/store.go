package container

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

// store is the files of an image, in a directory or an archive.
type store interface {
	// open returns a file and its size.
	open(name string) (io.ReadCloser, int64, error)
	io.Closer
}

// What an archive's list may take in memory: members, and the bytes of names.
const (
	maxMembers = 1_000_000
	maxNames   = 16 << 20
)

func openStore(name string) (store, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	switch {
	case err != nil:
	case fi.IsDir():
		_ = f.Close()
		root, err := os.OpenRoot(name)
		if err != nil {
			return nil, err
		}
		return dirStore{root}, nil
	case !fi.Mode().IsRegular():
		err = fmt.Errorf("%s is no file or directory; the layers stand anywhere in an archive, so it cannot come through a pipe: %w", name, fs.ErrInvalid)
	default:
		var s *tarStore
		if s, err = indexTar(f); err == nil {
			return s, nil
		}
		err = fmt.Errorf("%s: %w", name, err)
	}
	_ = f.Close()
	return nil, err
}

// dirStore is a layout on disk, whose links do not lead out of it.
type dirStore struct{ *os.Root }

func (s dirStore) open(name string) (io.ReadCloser, int64, error) {
	fi, err := s.Stat(name) // first, for to open a pipe is to wait
	if err != nil {
		return nil, 0, err
	}
	if !fi.Mode().IsRegular() {
		return nil, 0, &fs.PathError{Op: "open", Path: name, Err: errors.New("no regular file")}
	}
	f, err := s.Open(name)
	if err != nil {
		return nil, 0, err
	}
	return f, fi.Size(), nil
}

// tarStore is an archive whose members have been listed.
type tarStore struct {
	f       *os.File
	members map[string]extent
}

type extent struct {
	off, size int64
	link      string // another member, if not empty
}

func indexTar(f *os.File) (*tarStore, error) {
	var head [6]byte
	if _, err := f.ReadAt(head[:], 0); err != nil && err != io.EOF {
		return nil, err
	}
	for _, magic := range []string{"\x1f\x8b", "\x28\xb5\x2f\xfd", "\xfd7zXZ", "BZh"} {
		if bytes.HasPrefix(head[:], []byte(magic)) {
			return nil, fmt.Errorf("the archive is compressed as a whole; decompress it first: %w (%w)", errors.ErrUnsupported, ErrNoImage)
		}
	}
	s := &tarStore{f: f, members: make(map[string]extent)}
	// On a file, archive/tar seeks over contents and reads nothing ahead.
	names := 0
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			return s, nil
		}
		if err != nil && names == 0 {
			return nil, fmt.Errorf("it is no tar archive: %w (%w)", ErrNoImage, tar.ErrHeader)
		}
		if err == io.ErrUnexpectedEOF {
			err = fmt.Errorf("the archive is cut short: %w", err)
		}
		if err != nil {
			return nil, err
		}
		// Copies, for they are parts of headers of up to 1 MiB.
		name, link := strings.Clone(path.Clean(h.Name)), strings.Clone(h.Linkname)
		names += len(name) + len(link)
		switch h.Typeflag {
		case tar.TypeReg:
			at, err := f.Seek(0, io.SeekCurrent)
			if err != nil {
				return nil, err
			}
			s.members[name] = extent{off: at, size: h.Size}
		case tar.TypeSymlink: // to the same layer of another image
			s.members[name] = extent{link: path.Join(path.Dir(name), link)}
		case tar.TypeLink:
			s.members[name] = extent{link: path.Clean(link)}
		}
		if len(s.members) > maxMembers || names > maxNames {
			return nil, fmt.Errorf("an archive of more than %d files, or %d MiB of names: %w (%w)", maxMembers, maxNames>>20, ErrNoImage, fs.ErrInvalid)
		}
	}
}

func (s *tarStore) open(name string) (io.ReadCloser, int64, error) {
	m, ok := s.members[path.Clean(name)]
	if ok && m.link != "" {
		m, ok = s.members[m.link]
		ok = ok && m.link == ""
	}
	if !ok {
		return nil, 0, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return io.NopCloser(io.NewSectionReader(s.f, m.off, m.size)), m.size, nil
}

func (s *tarStore) Close() error { return s.f.Close() }
