package squash_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/squash"
)

// lz4Sequence appends literals and, unless size is 0, a copy.
func lz4Sequence(block, content, literals []byte, size, from int) (_, _ []byte) {
	length := func(n int) {
		for n -= 15; n >= 255; n -= 255 {
			block = append(block, 255)
		}
		if n >= 0 {
			block = append(block, byte(n))
		}
	}
	copied := max(size-4, 0)
	block = append(block, byte(min(len(literals), 15)<<4|min(copied, 15)))
	length(len(literals))
	block, content = append(block, literals...), append(content, literals...)
	if size > 0 {
		block = binary.LittleEndian.AppendUint16(block, uint16(from))
		length(copied)
		for range size {
			content = append(content, content[len(content)-from])
		}
	}
	return block, content
}

// Every way for a block to end: what Linux refuses, Verify tells, and Linux
// reads what Verify has nothing to say about.
func TestVerifyLZ4EndsAgreeWithLinux(t *testing.T) {
	need(t, "root")
	const size = 4096
	type end struct{ literals, copied, from, last int }
	ends, blocks, src := map[string]end{}, map[string][]byte{}, fstest.MapFS{}
	for _, literals := range []int{0, 3, 14, 15} {
		for _, copied := range []int{4, 8, 18, 19, 34} {
			for _, from := range []int{4, 8} {
				for last := -1; last < 14; last++ { // -1: no last sequence
					name := fmt.Sprintf("%d-%d-%d-%d", literals, copied, from, last)
					ends[name] = end{literals, copied, from, last}
					b, content := lz4Sequence(nil, nil, noise(uint64(len(ends)), 64), size-64-literals-copied-max(last, 0), 64)
					b, content = lz4Sequence(b, content, noise(1, literals), copied, from)
					if last >= 0 {
						b, content = lz4Sequence(b, content, noise(2, last), 0, 0)
					}
					require.Len(t, content, size)
					blocks[string(content)], src[name] = b, &fstest.MapFile{Data: content}
				}
			}
		}
	}
	lz4 := odd{squash.LZ4{}, squash.LZ4{}.Options(size), func(dst, src []byte) ([]byte, error) {
		if b := blocks[string(src)]; b != nil {
			return append(dst, b...), nil
		}
		return append(dst, src...), nil
	}}
	image := buildBytes(t, src, &squash.Options{Compressor: lz4, BlockSize: size})
	found := map[string]bool{}
	for d, err := range squash.Verify(t.Context(), bytes.NewReader(image), nil) {
		require.NoError(t, err)
		require.Contains(t, d.Msg, "lz4 block")
		found[d.Path] = true
	}
	linux, image2 := os.DirFS(mount(t, imageFile(t, image))), open(t, image)
	for name, e := range ends {
		b, err := fs.ReadFile(linux, name)
		reads := err == nil
		require.True(t, !reads || bytes.Equal(b, src[name].Data), name)
		require.True(t, reads || found[name], "%s: Linux does not read it, Verify has nothing to say", name)
		wrong := e.last < 5 || e.copied+e.last < 12
		require.Equal(t, wrong, found[name], name)
		if shortcut := e.literals < 15 && e.copied < 19 && e.from >= 8; !shortcut {
			require.Equal(t, wrong, !reads, "%s: %v", name, err)
		}
		// We read more than Linux does.
		b, err = image2.ReadFile(name)
		require.True(t, err == nil && bytes.Equal(b, src[name].Data), "%s: %v", name, err)
	}
}
