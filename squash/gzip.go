package squash

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/klauspost/compress/zlib"
)

// Gzip compresses with zlib streams, which every SquashFS 4.0 reader knows.
type Gzip struct {
	// Level is 1 (fastest) to 9 (smallest), 0 means 6.
	Level int
}

// ID is 1.
func (Gzip) ID() uint16 { return compGzip }

// Options states the level, as unsquashfs -s shows it.
func (g Gzip) Options(int) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(g.level()))
	b = binary.LittleEndian.AppendUint16(b, 15) // window
	return binary.LittleEndian.AppendUint16(b, 0)
}

// Settings names the level.
func (g Gzip) Settings() string { return fmt.Sprintf("go gzip %d", g.level()) }

func (g Gzip) level() int {
	if g.Level == 0 {
		return 6
	}
	return g.Level
}

// NewEncoder makes an encoder of zlib streams.
func (g Gzip) NewEncoder(int) (Encoder, error) {
	if g.level() < 1 || g.level() > 9 {
		return nil, badLevel("gzip", g.Level, 1, 9)
	}
	zw, err := zlib.NewWriterLevel(nil, g.level())
	if err != nil {
		return nil, fmt.Errorf("squash: %w", err)
	}
	return encoderFunc(func(dst, src []byte) ([]byte, error) {
		out := bytes.NewBuffer(dst)
		zw.Reset(out)
		if _, err := zw.Write(src); err != nil {
			return nil, err
		}
		err := zw.Close()
		return out.Bytes(), err
	}), nil
}
