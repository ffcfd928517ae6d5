package squash

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"strings"
)

// diffID makes what computes a digest, and the digest to expect.
func diffID(id string) (sum hash.Hash, want []byte, err error) {
	if id == "" {
		return noHash{}, nil, nil
	}
	alg, digits, _ := strings.Cut(id, ":")
	want, err = hex.DecodeString(digits)
	switch {
	case err == nil && alg == "sha256" && len(want) == sha256.Size:
		return sha256.New(), want, nil
	case err == nil && alg == "sha512" && len(want) == sha512.Size:
		return sha512.New(), want, nil
	}
	return nil, nil, fmt.Errorf("the digest %.80q is no sha256 and no sha512: %w", id, fs.ErrInvalid)
}

// noHash is for archives whose digest nobody knows.
type noHash struct{ hash.Hash }

func (noHash) Write(p []byte) (int, error) { return len(p), nil }

func (noHash) Sum([]byte) []byte { return nil }

// endReader remembers the last 512 bytes, which are zeros in a whole archive:
// archive/tar takes a stream that ends between two files for complete.
type endReader struct {
	r    io.Reader
	n    int64
	last [512]byte
}

func (e *endReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	e.n += int64(n)
	if n >= len(e.last) {
		copy(e.last[:], p[n-len(e.last):n])
	} else {
		copy(e.last[:], e.last[n:])
		copy(e.last[len(e.last)-n:], p[:n])
	}
	return n, err
}

// memberReader tells an archive that is cut from a file that ends early.
type memberReader struct{ r io.Reader }

func (m memberReader) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if err == io.ErrUnexpectedEOF {
		err = fmt.Errorf("the archive is cut short: %w", err)
	}
	return n, err
}

// maxRest is how many bytes may follow an archive's end: tar pads to its
// blocking factor, 10 KiB mostly, and a few programs to some MiB.
const maxRest = 16 << 20

// drain reads what follows an archive's end, which is not endless.
func drain(r io.Reader) error {
	n, err := io.CopyN(io.Discard, r, maxRest+1)
	if err == io.EOF {
		return nil
	}
	if n > maxRest {
		err = fmt.Errorf("more than %d MiB follow the archive's end: is it an archive, or several in one? %w", maxRest>>20, fs.ErrInvalid)
	}
	return err
}
