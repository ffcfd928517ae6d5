package dhcp

import (
	"io/fs"
	"path/filepath"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// set is t as it would have been read with the system's clock wrong by that
// much: its wall clock reading differs, the monotonic one does not.
func set(t time.Time, by time.Duration) time.Time {
	wall := (*uint64)(unsafe.Pointer(&t))
	*wall += uint64(by/time.Second) << 30 // see the comment of time.Time
	return t
}

// The clock is set between a lease and what is asked about it.
func TestStoreClockSteps(t *testing.T) {
	const years = 8 * 365 * 24 * time.Hour
	require.Equal(t, years, set(time.Now(), years).Round(0).Sub(time.Now().Round(0)).Round(time.Hour), "time.Time is made otherwise")
	file, err := OpenFileStore(filepath.Join(t.TempDir(), "leases"), nil)
	require.NoError(t, err)
	defer file.Close()
	a, owner := ip("10.0.0.100"), string(macA)
	for _, by := range []time.Duration{-years, years} {
		for _, s := range []LeaseStore{new(MemoryStore), file} {
			ctx := t.Context()
			require.NoError(t, s.Commit(ctx, Lease{Addr: a, HardwareAddr: macA, Expires: set(time.Now().Add(time.Hour), by)}))
			l, err := s.LeaseByAddr(ctx, a)
			require.NoError(t, err)
			require.True(t, l.Active(time.Now()), "set by %v", -by)
			require.False(t, l.Active(time.Now().Add(2*time.Hour)), "set by %v", -by)
			list, err := s.LeasesByOwner(ctx, owner)
			require.NoError(t, err)
			require.WithinDuration(t, l.Expires, list[0].Expires, 0)
			until, known := s.(addrStates).state(a)
			require.True(t, known)
			require.WithinDuration(t, l.Expires, until, 0)
			other := Lease{Addr: a, HardwareAddr: macB, Expires: time.Now().Add(time.Hour)}
			require.ErrorIs(t, s.Commit(ctx, other), fs.ErrExist)
			require.ErrorIs(t, s.Decline(ctx, a, string(macB), time.Now().Add(time.Hour)), fs.ErrExist)

			require.NoError(t, s.Release(ctx, a, owner))
			require.NoError(t, s.Decline(ctx, a, owner, set(time.Now().Add(time.Hour), by)))
			require.ErrorIs(t, s.Commit(ctx, other), fs.ErrExist)
			require.NoError(t, s.Decline(ctx, a, owner, set(time.Now().Add(-time.Second), by)))
			require.NoError(t, s.Commit(ctx, other))
			require.NoError(t, s.Release(ctx, a, string(macB)))
		}
	}
}
