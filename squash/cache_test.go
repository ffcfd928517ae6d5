package squash

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

// held is how many bytes of decoded pieces a cache has, those for reuse among them.
func held(c *cache) (n int) {
	for el := c.lru.Front(); el != nil; el = el.Next() {
		n += cap(el.Value.(*cached).data)
	}
	for _, b := range c.free {
		n += cap(b)
	}
	return n
}

// However much is read, no more is held than Open says.
func TestCacheBounds(t *testing.T) {
	tree := fstest.MapFS{}
	for i := range 36 {
		tree[fmt.Sprint("big", i)] = &fstest.MapFile{Data: bytes.Repeat([]byte{byte(i + 1)}, 1<<20)}
	}
	var image inMemory
	require.NoError(t, Build(t.Context(), &image, FromFS(tree), &Options{BlockSize: 1 << 20, Compressor: LZ4{}}))
	f, err := Open(bytes.NewReader(image.b))
	require.NoError(t, err)
	most := 0
	for name, file := range tree {
		r, err := f.Open(name)
		require.NoError(t, err)
		var b [10]byte // what is read in parts is kept
		_, err = r.(io.ReaderAt).ReadAt(b[:], 77)
		require.NoError(t, err)
		require.Equal(t, file.Data[:10], b[:])
		require.NoError(t, r.Close())
		most = max(most, held(&f.blocks))
	}
	require.LessOrEqual(t, most, (24+1)<<20, "and one that is on its way out")
	require.Greater(t, most, 20<<20, "it is used")

	var c cache // as that of metadata: what is tiny counts, too
	c.max = f.metas.max
	for i := range int64(20_000) {
		_, err := c.get(i, func(e *cached) error { e.data = make([]byte, 1+i%2*8191); return nil })
		require.NoError(t, err)
		if i%1000 == 0 {
			require.LessOrEqual(t, held(&c)+c.lru.Len()*entryCost, 2<<20)
			require.Len(t, c.m, c.lru.Len())
		}
	}
}

// What does not decode leaves nothing behind, and is tried again.
func TestCacheKeepsNoFailures(t *testing.T) {
	var c cache
	c.max, c.whole = 1<<20, 4096+slack
	broken := errors.New("broken")
	for i := range int64(100) {
		_, err := c.get(i, func(e *cached) error { e.data = c.room(4096); return broken })
		require.ErrorIs(t, err, broken)
	}
	require.Empty(t, c.m)
	require.Zero(t, c.lru.Len())
	require.Zero(t, c.size)
	e, err := c.get(5, func(e *cached) error { e.data = append(c.room(4096), "good"...); return nil })
	require.NoError(t, err)
	require.Equal(t, "good", string(e.data))
	again, err := c.get(5, func(*cached) error { return broken })
	require.NoError(t, err)
	require.Same(t, e, again)
}

type inMemory struct{ b []byte }

func (m *inMemory) WriteAt(p []byte, off int64) (int, error) {
	if end := int(off) + len(p); end > len(m.b) {
		m.b = append(m.b, make([]byte, end-len(m.b))...)
	}
	return copy(m.b[off:], p), nil
}
