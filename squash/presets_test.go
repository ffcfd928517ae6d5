package squash_test

import (
	"fmt"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/squash"
)

func TestPresets(t *testing.T) {
	src := fstest.MapFS{}
	for i := range 60 {
		src[fmt.Sprintf("f%02d", i)] = &fstest.MapFile{Data: append(text(2000+50*i), noise(uint64(i), 3000)...), Mode: 0o644}
	}
	src["large"] = &fstest.MapFile{Data: text(3 << 20), Mode: 0o644}
	for _, tt := range []struct {
		opts       *squash.Options
		compressor string
		block      int
	}{
		{squash.ForNetwork(), "zstd", 131072}, {squash.ForMemory(), "zstd", 1 << 20}, {squash.ForSpeed(), "lz4", 131072}, {squash.ForOldKernels(), "gzip", 131072},
	} {
		f := open(t, buildBytes(t, src, tt.opts))
		require.Equal(t, tt.compressor, f.Info().Compressor)
		require.Equal(t, tt.block, f.Info().BlockSize)
		for name, want := range src {
			require.Equal(t, want.Data, readAll(t, f, name))
		}
	}
	whole, packed := open(t, buildBytes(t, src, nil)).Info().Fragments, open(t, buildBytes(t, src, squash.ForNetwork())).Info().Fragments
	require.Greater(t, packed, 3*whole)
}
