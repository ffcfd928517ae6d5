package nbd

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// What a Mapper gave is let go of once it is sent, and when it cannot be: else
// the memory would stay taken for ever.
func TestSegmentsAreReleased(t *testing.T) {
	if runtime.GOOS != "linux" || !canMap {
		t.Skip("nothing is mapped here")
	}
	path := filepath.Join(t.TempDir(), "image")
	require.NoError(t, os.WriteFile(path, make([]byte, 4<<20), 0o600))
	file, err := OpenFile(path)
	require.NoError(t, err)
	defer file.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	srv := &Server{Handler: Share(file), Logger: slog.New(slog.DiscardHandler)}
	go srv.Serve(l) // ends with Shutdown
	c, err := Dial(t.Context(), "tcp", l.Addr().String(), "")
	require.NoError(t, err)
	for _, n := range []int{1, 4096, 100 << 10, 3 << 20} {
		_, err := c.ReadAt(make([]byte, n), 512)
		require.NoError(t, err)
	}
	require.NoError(t, os.Truncate(path, 1<<20))
	_, err = c.ReadAt(make([]byte, 4096), 2<<20)
	require.Error(t, err)
	require.NoError(t, c.Close())
	require.NoError(t, srv.Shutdown(t.Context()))
	require.EqualValues(t, 1, file.mapped.refs.Load(), "segments are still held")
}
