package initrd

import (
	"bytes"

	"github.com/cavaliergopher/cpio"
)

// archive writes the newc form that the kernel unpacks, in the order of calls
// and without times. A buffer has no errors but those of the archive's form,
// which the last call returns.
type archive struct {
	buf bytes.Buffer
	w   *cpio.Writer
	err error
}

func (a *archive) add(h *cpio.Header, data []byte) {
	if a.w == nil {
		a.w = cpio.NewWriter(&a.buf)
	}
	if a.err == nil {
		a.err = a.w.WriteHeader(h)
	}
	if a.err == nil {
		_, a.err = a.w.Write(data)
	}
}

func (a *archive) dir(name string, perm cpio.FileMode) {
	a.add(&cpio.Header{Name: name, Mode: cpio.TypeDir | perm, Links: 2}, nil)
}

func (a *archive) file(name string, perm cpio.FileMode, data []byte) {
	a.add(&cpio.Header{Name: name, Mode: cpio.TypeReg | perm, Size: int64(len(data))}, data)
}

func (a *archive) bytes() ([]byte, error) {
	if a.w == nil {
		a.w = cpio.NewWriter(&a.buf)
	}
	if a.err == nil {
		a.err = a.w.Close()
	}
	return a.buf.Bytes(), a.err
}
