package squash

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
)

// scripted is a finder that finds what it was told, after 128 KiB of literals.
type scripted []scriptedCopy

type scriptedCopy struct{ lits, match, offset int }

func (scripted) begin(int) {}

func (s scripted) find(out *zstdParts, src []byte, from, to int) {
	if from == 0 {
		out.rest(src[:to])
		return
	}
	for _, c := range s {
		out.add(src, from, from+c.lits, c.match, out.value(c.offset, c.lits))
		from += c.lits + c.match
	}
	out.rest(src[from:to])
}

// What finders hardly ever make of a block: as many copies as there can be,
// codes and literals of one kind, repeated offsets in every order.
func TestZstdSections(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	scripts := map[string]scripted{"none": {}}
	for range 1 << 15 {
		scripts["most copies"] = append(scripts["most copies"], scriptedCopy{0, 4, 1000 + r.IntN(100000)})
	}
	for range 1000 {
		scripts["alike"] = append(scripts["alike"], scriptedCopy{1, 24, 1<<16 + r.IntN(1<<16)})
		scripts["one offset"] = append(scripts["one offset"], scriptedCopy{2, 5, 1})
		offset := []int{100, 200, 300, 99, 199, 299}[r.IntN(6)]
		scripts["again"] = append(scripts["again"], scriptedCopy{r.IntN(2), 4 + r.IntN(70), offset})
	}
	scripts["two"] = scripts["again"][:2]
	scripts["longest"] = scripted{{0, 1 << 17, 1 << 17}}
	scripts["long literals"] = scripted{{1<<17 - 4, 4, 1}}
	noise := make([]byte, 1<<17)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise)
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	require.NoError(t, err)
	defer dec.Close()
	for name, script := range scripts {
		for _, split := range []bool{false, true} {
			content := bytes.Clone(noise)
			for _, c := range script {
				content = append(content, bytes.Repeat([]byte("z"), c.lits)...)
				for range c.match {
					content = append(content, content[len(content)-c.offset])
				}
			}
			out, err := newZstdEncoder(script, split).Encode(nil, content)
			require.NoError(t, err)
			back, err := dec.DecodeAll(out, nil)
			require.NoError(t, err, name)
			require.True(t, bytes.Equal(content, back), name)
			require.Less(t, len(out), len(content)+200, name)
		}
	}
}
