//go:build unix

package nbd

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOverlayPunchesHoles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "o")
	o, err := OpenOverlay(bytesBase(make([]byte, 8<<20)), dir, "id")
	require.NoError(t, err)
	_, err = o.WriteAt(randomBytes(1, 8<<20), 0)
	require.NoError(t, err)
	require.NoError(t, o.Sync())
	allocated := func() int64 {
		var st syscall.Stat_t
		require.NoError(t, syscall.Stat(filepath.Join(dir, "data"), &st))
		return st.Blocks * 512
	}
	before := allocated()
	require.NoError(t, o.Trim(4096, 6<<20))
	require.NoError(t, o.Sync())
	if allocated() == before && os.Getenv("DISKLESS_REQUIRE") != "all" {
		t.Skip("this file system punches no holes")
	}
	require.Less(t, allocated(), before/2)
	require.NoError(t, o.Close())
	used, err := overlayUsage(dir)
	require.NoError(t, err)
	require.EqualValues(t, 2<<20, used)
	o, err = OpenOverlay(bytesBase(make([]byte, 8<<20)), dir, "id")
	require.NoError(t, err)
	require.EqualValues(t, 2<<20, o.Usage())
	got := make([]byte, 6<<20)
	_, err = o.ReadAt(got, 4096)
	require.NoError(t, err)
	require.True(t, bytes.Equal(got, make([]byte, 6<<20)))
	require.NoError(t, o.Close())
}
