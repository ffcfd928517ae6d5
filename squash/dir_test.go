package squash_test

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/squash"
)

// Large directories, many levels, errors in the middle: listed ahead or not, a
// tree is what it is.
func TestDirListsInOrder(t *testing.T) {
	root := t.TempDir()
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 1100 {
		require.NoError(t, os.WriteFile(filepath.Join(root, fmt.Sprintf("many%04d", i)), nil, 0o644))
		if i%3 == 0 {
			require.NoError(t, os.MkdirAll(filepath.Join(root, fmt.Sprintf("d%d/e%d/f%d", r.IntN(5), r.IntN(9), r.IntN(9))), 0o755))
		}
	}
	list := func(src squash.Source) (names []string) {
		for e, err := range src.Entries(t.Context()) {
			require.NoError(t, err)
			names = append(names, e.Path+e.Mode.String())
		}
		return names
	}
	want := list(squash.FromFS(os.DirFS(root)))
	require.Greater(t, len(want), 1300)
	require.Equal(t, want, list(squash.Dir(root)))
	n := 0
	for range squash.Dir(root).Entries(t.Context()) { // left early, goroutines end
		if n++; n == 10 {
			break
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	var last error
	for _, err := range squash.Dir(root).Entries(ctx) {
		cancel(fs.ErrClosed)
		last = err
	}
	require.ErrorIs(t, last, fs.ErrClosed)
}
