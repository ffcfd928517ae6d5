package squash

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// WriteTar writes a source as a tar archive in PAX format: an open image,
// a directory, the merge of a container image's layers. Extended attributes
// stand in SCHILY.xattr records, which GNU tar (--xattrs) and [Tar] read; a
// name or value that such a record cannot hold is an error. Holes are written
// as zeros. Sockets, which the format does not know, are left out and counted
// in what is returned.
//
// A directory's entries need not follow it at once, so that GNU tar keeps the
// times of directories only with --delay-directory-restore.
//
// The archive ends as it should only when the error is nil. w is written by
// one goroutine and not closed.
func WriteTar(ctx context.Context, w io.Writer, src Source) (sockets int, err error) {
	out := bufio.NewWriterSize(w, 64<<10) // headers are small
	tw := tar.NewWriter(out)
	first := make(map[linkKey]string)
	buf := make([]byte, 128<<10)
	for e, err := range entriesAhead(ctx, src) {
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return sockets, err
		}
		kind := kindOf(e.Mode)
		if kind == kindSocket {
			sockets++
			continue
		}
		h, err := tarHeader(e, kind)
		if err != nil {
			return sockets, entryError(e.Path, err)
		}
		key := linkKey{e.Dev, e.Ino, kind}
		if e.Nlink > 1 && kind != kindDir {
			if target, ok := first[key]; ok {
				h.Typeflag, h.Linkname, h.Size, h.PAXRecords = tar.TypeLink, target, 0, nil
			} else {
				first[key] = h.Name
			}
		}
		if err := tw.WriteHeader(h); err != nil {
			return sockets, entryError(e.Path, err)
		}
		if h.Typeflag == tar.TypeReg && h.Size > 0 {
			if err := tarContent(tw, e, buf); err != nil {
				return sockets, wrapPath(e.Path, err)
			}
		}
	}
	if err := errors.Join(tw.Close(), out.Flush()); err != nil {
		return sockets, fmt.Errorf("squash: %w", err)
	}
	return sockets, nil
}

func tarHeader(e *Entry, kind uint16) (*tar.Header, error) {
	h := &tar.Header{Format: tar.FormatPAX, Name: e.Path, Mode: int64(unixPerm(e.Mode)), ModTime: e.ModTime,
		Uid: int(e.Uid), Gid: int(e.Gid), Devmajor: int64(e.Major), Devminor: int64(e.Minor)}
	if e.ModTime.IsZero() {
		h.ModTime = time.Unix(0, 0)
	}
	switch kind {
	case kindFile:
		h.Typeflag, h.Size = tar.TypeReg, e.Size
	case kindDir:
		h.Typeflag = tar.TypeDir
		h.Name += "/"
	case kindSymlink:
		h.Typeflag, h.Linkname = tar.TypeSymlink, e.Target
	case kindBlock:
		h.Typeflag = tar.TypeBlock
	case kindChar:
		h.Typeflag = tar.TypeChar
	case kindFIFO:
		h.Typeflag = tar.TypeFifo
	default:
		return nil, fmt.Errorf("tar has no files of type %v", e.Mode.Type())
	}
	for name, value := range e.Xattrs {
		if h.PAXRecords == nil {
			h.PAXRecords = make(map[string]string)
		}
		h.PAXRecords["SCHILY.xattr."+name] = string(value)
	}
	return h, nil
}

// tarContent copies a file, which archive/tar holds to the size announced.
func tarContent(tw *tar.Writer, e *Entry, buf []byte) error {
	r, err := e.content()
	if err != nil {
		return err
	}
	defer r.Close()
	// Hidden, for the writer's own way asks for what is behind the reader.
	n, err := io.CopyBuffer(struct{ io.Writer }{tw}, r, buf)
	if err == nil && n < e.Size {
		err = fmt.Errorf("the file ended after %d bytes, it had %d when the tree was listed: %w", n, e.Size, io.ErrUnexpectedEOF)
	}
	return err
}
