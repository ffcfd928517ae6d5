package squash

import (
	"context"
	"fmt"
	"io"
	"os"
)

// make makes a file that is no directory.
func (x *extractor) make(at *openDir, base string, kind uint16, e *Entry) (made bool, err error) {
	switch kind {
	case kindFile:
		f, err := at.root.OpenFile(base, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return false, err
		}
		defer f.Close()
		if err := x.content(f, e); err != nil {
			return false, err
		}
		if err := x.attributes(at, base, e, f); err != nil {
			return false, err
		}
		return true, f.Close()
	case kindSymlink:
		err = at.root.Symlink(e.Target, base)
	case 0:
		return false, fmt.Errorf("files of type %v cannot be made: leave it out of the source", e.Mode.Type())
	default:
		err = sysMknod(at.dir, base, kind, e)
		if err != nil && x.skip(err) {
			x.done.Entries--
			x.count(&x.done.Devices, &x.first.device, e.Path)
			return false, nil
		}
		err = x.needs(err)
	}
	if err != nil {
		return false, err
	}
	return true, x.attributes(at, base, e, nil)
}

// content writes a regular file, with holes where it has 4 KiB of zeros.
func (x *extractor) content(f *os.File, e *Entry) error {
	x.done.Bytes += e.Size
	if x.o.MaxSize >= 0 && (e.Size > x.o.MaxSize || x.done.Bytes > x.o.MaxSize) {
		return fmt.Errorf("the files have more bytes than ExtractOptions.MaxSize allows (%d)", x.o.MaxSize)
	}
	r, err := e.content()
	if err != nil {
		return err
	}
	defer r.Close()
	w := &sparseWriter{ctx: x.ctx, f: f, size: e.Size}
	if _, err := io.CopyBuffer(w, r, x.buf); err != nil {
		return err
	}
	if w.off != e.Size {
		return fmt.Errorf("the file ended after %d bytes, it had %d when the tree was listed: %w", w.off, e.Size, io.ErrUnexpectedEOF)
	}
	return f.Truncate(e.Size) // its end may be a hole
}

// sparseWriter leaves out what is zero.
type sparseWriter struct {
	ctx  context.Context
	f    *os.File
	off  int64
	size int64
}

func (w *sparseWriter) Write(p []byte) (n int, err error) {
	const grain = 4096
	if err := context.Cause(w.ctx); err != nil {
		return 0, err
	}
	if int64(len(p)) > w.size-w.off {
		return 0, fmt.Errorf("the file has more than the %d bytes that it had when the tree was listed", w.size)
	}
	for n < len(p) {
		end := n
		for end < len(p) {
			next := min(end+grain-int((w.off+int64(end-n))%grain), len(p))
			if allZero(p[end:next]) {
				break
			}
			end = next
		}
		if end > n {
			k, err := w.f.WriteAt(p[n:end], w.off)
			n += k
			w.off += int64(k)
			if err != nil {
				return n, err
			}
		}
		for n < len(p) {
			next := min(n+grain-int(w.off%grain), len(p))
			if !allZero(p[n:next]) {
				break
			}
			w.off += int64(next - n)
			n = next
		}
	}
	return n, nil
}
