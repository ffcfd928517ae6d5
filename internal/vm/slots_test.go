package vm

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAcquire(t *testing.T) {
	t.Setenv("DISKLESS_VMS", "")
	dir := t.TempDir()
	one, err := Acquire(t.Context(), dir, 1)
	require.NoError(t, err)
	two, err := Acquire(t.Context(), dir, 1)
	require.NoError(t, err)

	// A context that is done tries once and does not wait.
	full, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = Acquire(full, dir, 1)
	require.ErrorIs(t, err, context.Canceled)

	// Who wants two gets neither until both are free, and what it held
	// meanwhile is not lost when it gives up.
	two()
	two()
	_, err = Acquire(full, dir, 2)
	require.ErrorIs(t, err, context.Canceled)
	two, err = Acquire(full, dir, 1)
	require.NoError(t, err)
	two()

	waiting := make(chan func())
	go func() {
		release, err := Acquire(context.Background(), dir, 5)
		if err != nil {
			release = nil
		}
		waiting <- release
	}()
	one()
	select {
	case all := <-waiting:
		require.NotNil(t, all, "five is all there are")
		_, err = Acquire(full, dir, 1)
		require.ErrorIs(t, err, context.Canceled)
		all()
	case <-time.After(time.Minute):
		t.Fatal("free places were not found")
	}

	t.Setenv("DISKLESS_VMS", "none")
	_, err = Acquire(t.Context(), dir, 1)
	require.ErrorContains(t, err, "DISKLESS_VMS=none")
}
