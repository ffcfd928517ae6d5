package squash

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A file whose attributes cannot be read is not taken for one without any.
func TestDirXattrErrors(t *testing.T) {
	root := t.TempDir()
	name := filepath.Join(root, "f")
	require.NoError(t, os.WriteFile(name, nil, 0o644))
	fi, err := os.Lstat(name)
	require.NoError(t, err)
	_, err = dirSource(root).entry("f", fi)
	require.NoError(t, err)
	require.NoError(t, os.Remove(name))
	_, err = dirSource(root).entry("f", fi)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, "listxattr")
}
