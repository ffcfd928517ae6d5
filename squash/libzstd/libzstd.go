//go:build cgo

package libzstd

import (
	"fmt"
	"io/fs"

	"github.com/DataDog/zstd"

	"github.com/seed-3ec230fa/diskless/squash"
)

// Version is that of the C library. Another one may make other bytes.
const Version = "1.5.7"

// Zstd compresses with Zstandard in C, which Linux reads since 4.14.
type Zstd struct {
	// Level is 1 (fastest) to 22 (smallest), 0 means 3. Readers take the same
	// time for all of them.
	Level int
}

var _ squash.MetadataCompressor = Zstd{}

// metadataLevel is the highest one for metadata: those up to 11 make it no smaller,
// those above some 4 % for five times the time and more.
const metadataLevel = 6

// ID is 6.
func (Zstd) ID() uint16 { return 6 }

// Options is nil: readers need to know nothing.
func (Zstd) Options(int) []byte { return nil }

// Settings names the library's version and the level.
func (z Zstd) Settings() string { return fmt.Sprintf("libzstd %s %d", Version, z.level()) }

func (z Zstd) level() int {
	if z.Level == 0 {
		return 3
	}
	return z.Level
}

// NewEncoder makes an encoder of frames whose window is no larger than their
// content, for Linux fails to read others: the library chooses so when it knows
// the content's size beforehand, whatever the level.
func (z Zstd) NewEncoder(blockSize int) (squash.Encoder, error) {
	if l := z.level(); l < 1 || l > 22 {
		return nil, fmt.Errorf("libzstd: level %d: %w: choose 1 to 22, or 0 for the default", z.Level, fs.ErrInvalid)
	}
	return &encoder{zstd.NewCtx(), z.level(), nil}, nil
}

// NewMetadataEncoder makes one of the same level, but of 6 at the most.
func (z Zstd) NewMetadataEncoder() (squash.Encoder, error) {
	if z.level() > metadataLevel {
		z.Level = metadataLevel
	}
	return z.NewEncoder(8192)
}

type encoder struct {
	ctx   zstd.Ctx
	level int
	buf   []byte // when dst has too little room for what the library could write
}

func (e *encoder) Encode(dst, src []byte) ([]byte, error) {
	at, bound := len(dst), zstd.CompressBound(len(src))
	if cap(dst)-at >= bound {
		out, err := e.ctx.CompressLevel(dst[at:cap(dst)], src, e.level)
		return dst[:at+len(out)], err
	}
	if len(e.buf) < bound {
		e.buf = make([]byte, bound)
	}
	out, err := e.ctx.CompressLevel(e.buf, src, e.level)
	return append(dst, out...), err
}
