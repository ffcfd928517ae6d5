package dhcp

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Flushes that the goroutine waits for like for a socket, and those of a kernel
// that has none, which are done by a thread.
func TestDataSync(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	require.NoError(t, err)
	s := newDataSync()
	defer s.close()
	if s.ctx != 0 {
		for range 3 {
			require.NoError(t, s.async(f))
		}
	}
	none := dataSync{}
	for range 2 {
		_, err = f.Write([]byte("data"))
		require.NoError(t, err)
		require.NoError(t, s.sync(f))
		require.NoError(t, none.sync(f))
	}
	require.NoError(t, f.Close())
	require.Error(t, s.sync(f))
	require.Error(t, none.sync(f))

	pipe, w, err := os.Pipe() // which cannot be flushed
	require.NoError(t, err)
	defer pipe.Close()
	defer w.Close()
	s2 := newDataSync()
	defer s2.close()
	require.Error(t, s2.sync(w))
}
