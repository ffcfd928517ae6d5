// Package accept makes SquashFS images that Linux takes and images that it
// refuses, or takes and fails to read: what differs between them is what
// readers in user space do not notice. Tests mount each and read every byte,
// with the kernel that they run on and with an older one in a machine.
package accept

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"iter"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing/fstest"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/seed-3ec230fa/diskless/squash"
)

// Image is an image with the files of [Tree].
type Image struct {
	// Name has letters, digits and dashes.
	Name string
	Data []byte
	// Taken says that Linux mounts it and reads every file. If not it may
	// mount it all the same.
	Taken bool
	// Built says that it depends on what Linux was built with: not Taken is
	// about Debian's.
	Built bool
}

// Tree is what the images hold.
func Tree() fstest.MapFS {
	r := rand.New(rand.NewPCG(1, 2))
	var text, noise []byte
	for len(text) < 300_000 {
		text = fmt.Appendf(text, "line %d of a file that compresses\n", r.IntN(5000))
	}
	for range 140_000 {
		noise = append(noise, byte(r.Uint32()))
	}
	tree := fstest.MapFS{
		"text": {Data: text}, "noise": {Data: noise}, "zeros": {Data: make([]byte, 140_000)}, "empty": {},
		"tail": {Data: []byte("a tail")}, "run": {Data: append(slices.Clone(noise[:1000]), bytes.Repeat([]byte("x"), 128<<10-1000)...)}, "mixed": {Data: slices.Concat(noise[:50_000], text[:90_000], make([]byte, 50_000))},
	}
	for i := range 250 {
		tree[fmt.Sprintf("many/a-rather-long-name-of-a-file-%03d", i)] = &fstest.MapFile{Data: fmt.Append(nil, i)}
	}
	return tree
}

// Images makes them all, about 15 MB.
func Images() ([]Image, error) {
	src := squash.FromFS(Tree())
	var list []Image
	for _, v := range variants() {
		data := []byte(nil)
		for size := 0; data == nil && size < 2000; size += 100 {
			var m memory
			if err := squash.Build(context.Background(), &m, longer(src, size), &v.opts); err != nil {
				return nil, fmt.Errorf("%s: %w", v.name, err)
			}
			if data = m.b; v.change != nil {
				data = v.change(m.b)
			}
		}
		list = append(list, Image{v.name, data, v.taken, strings.HasPrefix(v.name, "xz-filter")})
	}
	return list, nil
}

// longer gives the root an attribute, so that the image ends elsewhere.
func longer(src squash.Source, size int) squash.Source {
	if size == 0 {
		return src
	}
	return squash.SourceFunc(func(ctx context.Context) iter.Seq2[*squash.Entry, error] {
		return func(yield func(*squash.Entry, error) bool) {
			for e, err := range src.Entries(ctx) {
				if e != nil && e.Path == "." {
					value := make([]byte, size)
					_, _ = rand.NewChaCha8([32]byte{}).Read(value)
					e.Xattrs = map[string][]byte{"user.longer": value}
				}
				if !yield(e, err) {
					return
				}
			}
		}
	})
}

type variant struct {
	name   string
	taken  bool
	opts   squash.Options
	change func([]byte) []byte
}

func variants() []variant {
	le := binary.LittleEndian
	const block = 128 << 10
	list := []variant{
		{"no-fragments", true, squash.Options{FragmentSize: -1}, nil},
		{"small-fragments", true, squash.Options{FragmentSize: 4096}, nil},
		{"nothing-compressed", true, squash.Options{Compressor: custom{squash.Gzip{}, nil, raw}}, nil},
		{"no-option-block", true, squash.Options{Compressor: custom{Compressor: squash.Gzip{}}}, nil},
		{"absurd-level", true, squash.Options{Compressor: custom{Compressor: squash.Gzip{}, options: []byte{255, 255, 255, 127, 99, 0, 255, 255}}}, nil},
		{"no-export-table", true, squash.Options{}, put64(88, math.MaxUint64)},
		{"padded-to-1024", true, squash.Options{}, cut(1024)},
		{"padded-to-512", false, squash.Options{}, cut(512)},
		{"not-padded", false, squash.Options{}, cut(1)},
		{"blocks-of-2-KiB", false, squash.Options{BlockSize: 4096}, func(b []byte) []byte { le.PutUint32(b[12:], 2048); le.PutUint16(b[22:], 11); return b }},
		{"blocks-of-2-MiB", false, squash.Options{BlockSize: 1 << 20}, func(b []byte) []byte { le.PutUint32(b[12:], 2<<20); le.PutUint16(b[22:], 21); return b }},
		{"version-3", false, squash.Options{}, func(b []byte) []byte { le.PutUint16(b[28:], 3); return b }},
		{"lzma", false, squash.Options{}, func(b []byte) []byte { le.PutUint16(b[20:], 2); return b }},
		{"compressor-9", false, squash.Options{}, func(b []byte) []byte { le.PutUint16(b[20:], 9); return b }},
		{"used-8-more", false, squash.Options{}, func(b []byte) []byte { le.PutUint64(b[40:], le.Uint64(b[40:])+8); return b }},

		{"zstd-window-of-a-block", true, zstdWith(nil, zstd.WithWindowSize(block), zstd.WithSingleSegment(false)), nil},
		{"zstd-checksum", true, zstdWith(nil, zstd.WithEncoderCRC(true)), nil},
		{"zstd-window-of-8-MiB", false, squash.Options{Compressor: custom{squash.Zstd{}, nil, window(13 << 3)}}, nil},
		{"zstd-window-of-a-block-length-unknown", true, squash.Options{Compressor: custom{squash.Zstd{}, nil, window(7 << 3)}}, nil},
		{"zstd-window-of-9-8-of-a-block", false, squash.Options{Compressor: custom{squash.Zstd{}, nil, window(7<<3 | 1)}}, nil},
		{"zstd-window-of-8-KiB", true, squash.Options{BlockSize: 4096, Compressor: custom{squash.Zstd{}, nil, window(3 << 3)}}, nil},
		{"zstd-window-of-9-KiB", false, squash.Options{BlockSize: 4096, Compressor: custom{squash.Zstd{}, nil, window(3<<3 | 1)}}, nil},
		{"zstd-two-frames", false, zstdWith(func(e *zstd.Encoder, dst, src []byte) []byte {
			return e.EncodeAll(src[len(src)/2:], e.EncodeAll(src[:len(src)/2], dst))
		}), nil},
		{"zstd-skippable-frame", false, zstdWith(func(e *zstd.Encoder, dst, src []byte) []byte {
			return e.EncodeAll(src, append(dst, 0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 'x'))
		}), nil},

		{"xz-no-checksum", true, xzWith(nil, xz.WriterConfig{DictCap: 65536, NoCheckSum: true}), nil},
		{"xz-CRC32", true, xzWith(nil, xz.WriterConfig{DictCap: block, CheckSum: xz.CRC32}), nil},
		{"xz-CRC64", false, xzWith(nil, xz.WriterConfig{DictCap: 65536, CheckSum: xz.CRC64}), nil},
		{"xz-SHA-256", false, xzWith(nil, xz.WriterConfig{DictCap: 65536, CheckSum: xz.SHA256}), nil},
		{"xz-dictionary-of-the-options", true, xzWith(dictionary(98304), xz.WriterConfig{DictCap: 98304, CheckSum: xz.CRC32}), nil},
		{"xz-dictionary-above-the-options", false, xzWith(dictionary(8192), xz.WriterConfig{DictCap: 65536, CheckSum: xz.CRC32}), nil},
		{"xz-dictionary-above-a-block", false, xzWith(nil, xz.WriterConfig{DictCap: 2 * block, CheckSum: xz.CRC32}), nil},
		{"xz-option-of-40960", false, xzWith(dictionary(40960), xz.WriterConfig{DictCap: 65536, CheckSum: xz.CRC32}), nil},

		{"lz4-no-options", false, squash.Options{Compressor: custom{Compressor: squash.LZ4{}}}, nil},
		{"lz4-version-2", false, squash.Options{Compressor: custom{Compressor: squash.LZ4{}, options: le.AppendUint64(nil, 2)}}, nil},

		{"lz4-5-literals-at-the-end", true, lz4Ends(5), nil},
		{"lz4-4-literals-at-the-end", false, lz4Ends(4), nil},
		{"lz4-no-literals-at-the-end", false, lz4Ends(0), nil},
		{"lz4-last-copy-12-before-the-end", true, lz4Ends(5, 7), nil},
		{"lz4-last-copy-11-before-the-end", false, lz4Ends(5, 6), nil},
	}
	for i, machine := range []string{"x86", "powerpc", "", "arm", "armthumb", "sparc", "arm64"} {
		if machine != "" {
			list = append(list, variant{"xz-filter-" + machine, machine == "x86", xzFilter(byte(4 + i)), nil})
		}
	}
	for _, size := range []int{8 << 10, 16 << 10, 32 << 10, 64 << 10, 256 << 10, 512 << 10} {
		list = append(list, variant{fmt.Sprintf("zstd-%d", size), true, squash.Options{BlockSize: size}, nil})
	}
	for _, c := range []squash.Compressor{squash.Zstd{}, squash.Gzip{}, squash.LZ4{}, squash.LZ4{Level: 3}, squash.XZ{}} {
		for _, size := range []int{4096, block, 1 << 20} {
			name := map[uint16]string{1: "gzip", 4: "xz", 5: "lz4", 6: "zstd"}[c.ID()]
			if c == (squash.LZ4{Level: 3}) {
				name += "-hc"
			}
			list = append(list, variant{fmt.Sprintf("%s-%d", name, size), true, squash.Options{Compressor: c, BlockSize: size}, nil})
		}
	}
	return list
}

// custom is a compressor with other options, and perhaps streams of its own.
type custom struct {
	squash.Compressor
	options []byte
	encode  encoder
}

type encoder func(dst, src []byte) ([]byte, error)

func (e encoder) Encode(dst, src []byte) ([]byte, error) { return e(dst, src) }

func (c custom) Options(int) []byte { return c.options }

func (c custom) NewEncoder(blockSize int) (squash.Encoder, error) {
	if c.encode == nil {
		return c.Compressor.NewEncoder(blockSize)
	}
	return c.encode, nil
}

func raw(dst, src []byte) ([]byte, error) { return append(dst, src...), nil }

// zstdWith makes frames as the options say, of data and of metadata.
func zstdWith(encode func(e *zstd.Encoder, dst, src []byte) []byte, opts ...zstd.EOption) squash.Options {
	return squash.Options{Workers: 1, Compressor: custom{squash.Zstd{}, nil, func(dst, src []byte) ([]byte, error) {
		e, err := zstd.NewWriter(nil, append([]zstd.EOption{zstd.WithSingleSegment(true), zstd.WithEncoderCRC(false), zstd.WithEncoderConcurrency(1)}, opts...)...)
		if err != nil {
			return nil, err
		}
		if encode != nil {
			return encode(e, dst, src), nil
		}
		return e.EncodeAll(src, dst), nil
	}}}
}

// window makes frames of unknown length that say to need a window of that code
// (RFC 8878, 3.1.1.1.2), of blocks of text: such an image can be mounted.
func window(code byte) encoder {
	return func(dst, src []byte) ([]byte, error) {
		if !bytes.Contains(src, []byte("line ")) {
			return append(dst, src...), nil
		}
		out := bytes.NewBuffer(dst)
		w, err := zstd.NewWriter(out, zstd.WithWindowSize(4096))
		if err != nil {
			return nil, err
		}
		for _, p := range [][]byte{src[:len(src)/2], src[len(src)/2:]} {
			if _, err := w.Write(p); err != nil {
				return nil, err
			}
			if err := w.Flush(); err != nil {
				return nil, err
			}
		}
		err = w.Close()
		out.Bytes()[len(dst)+5] = code
		return out.Bytes(), err
	}
}

func dictionary(size uint32) []byte {
	return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, size), 0)
}

func xzWith(options []byte, c xz.WriterConfig) squash.Options {
	return squash.Options{Compressor: custom{squash.XZ{}, options, func(dst, src []byte) ([]byte, error) {
		out := bytes.NewBuffer(dst)
		w, err := c.NewWriter(out)
		if err != nil {
			return nil, err
		}
		if _, err := io.Copy(w, bytes.NewReader(src)); err != nil {
			return nil, err
		}
		err = w.Close()
		return out.Bytes(), err
	}}}
}

func put64(at int, v uint64) func([]byte) []byte {
	return func(b []byte) []byte { binary.LittleEndian.PutUint64(b[at:], v); return b }
}

// cut pads an image to a multiple of so many bytes, and of no more than that;
// nil if the image itself ends too far on.
func cut(unit int) func([]byte) []byte {
	return func(b []byte) []byte {
		used := int(binary.LittleEndian.Uint64(b[40:]))
		end := (used + unit - 1) / unit * unit
		if unit == 1024 && end%2048 == 0 {
			end += 1024
		}
		if unit < 1024 && (end%(2*unit) == 0 || end%512 == 0 && unit == 1) {
			return nil
		}
		return append(b, make([]byte, 8192)...)[:end]
	}
}

type memory struct{ b []byte }

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if end := off + int64(len(p)); end > int64(len(m.b)) {
		m.b = append(m.b, make([]byte, end-int64(len(m.b)))...)
	}
	return copy(m.b[off:], p), nil
}

// Script is a shell's function that prints what sum returns for a directory.
const Script = `sum() { (cd "$1" && find . -type f | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -d' ' -f1); }`

// Sum is what Script's function prints for the files of Tree.
func Sum() string {
	tree := Tree()
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(tree)) {
		fmt.Fprintf(h, "%x  ./%s\n", sha256.Sum256(tree[name].Data), name)
	}
	return hex.EncodeToString(h.Sum(nil))
}
