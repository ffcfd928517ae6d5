package dhcp

import (
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
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

// fakeHost is a machine with the right time, set wrong by that much, which was
// started as often as boot says.
func fakeHost(by time.Duration, boot byte, up time.Duration) host {
	return host{
		now:  func() time.Time { return set(time.Now(), by) },
		boot: func() ([16]byte, time.Duration) { return [16]byte{boot}, up },
	}
}

// The clock is set while the file is closed, once or several times: no lease
// ends early, and none lasts longer than it was given for.
func TestFileStoreClockSteps(t *testing.T) {
	const years, day = 8 * 365 * 24 * time.Hour, 24 * time.Hour
	for name, test := range map[string]struct {
		lives []host
		left  time.Duration // of 20 hours
		warns bool
	}{
		"right":                      {[]host{fakeHost(0, 1, 0), fakeHost(0, 2, 0)}, 20 * time.Hour, false},
		"off for hours":              {[]host{fakeHost(-5*time.Hour, 1, 0), fakeHost(0, 2, 0)}, 15 * time.Hour, false},
		"was ahead":                  {[]host{fakeHost(years, 1, 0), fakeHost(0, 2, 0)}, 20 * time.Hour, true},
		"was far back":               {[]host{fakeHost(-years, 1, 0), fakeHost(0, 2, 0)}, 20 * time.Hour, true},
		"is far back":                {[]host{fakeHost(0, 1, 0), fakeHost(-years, 2, 0)}, 20 * time.Hour, true},
		"each time far back":         {[]host{fakeHost(-years, 1, 0), fakeHost(-years-day, 2, 0), fakeHost(-years-2*day, 3, 0)}, 20 * time.Hour, true},
		"to and fro":                 {[]host{fakeHost(0, 1, 0), fakeHost(years, 2, 0), fakeHost(-years, 3, 0), fakeHost(0, 4, 0)}, 20 * time.Hour, true},
		"set, the machine went on":   {[]host{fakeHost(-5*time.Hour, 1, day), fakeHost(0, 1, day+time.Hour)}, 19 * time.Hour, true},
		"far back, it went on":       {[]host{fakeHost(-years, 1, 0), fakeHost(0, 1, 19*time.Hour)}, time.Hour, true},
		"a little, it went on":       {[]host{fakeHost(-20*time.Second, 1, day), fakeHost(0, 1, day)}, 20 * time.Hour, false},
		"no start of it is known":    {[]host{fakeHost(years, 0, 0), fakeHost(0, 0, 0)}, 20 * time.Hour, true},
		"went on, by a copied file":  {[]host{fakeHost(years, 1, day), fakeHost(0, 1, 0)}, 20 * time.Hour, true},
		"off for longer than leases": {[]host{fakeHost(-day, 1, 0), fakeHost(0, 2, 0)}, -4 * time.Hour, false},
	} {
		t.Run(name, func(t *testing.T) {
			d := newTape()
			var log *logBuffer
			for i, h := range test.lives {
				var logger *slog.Logger
				logger, log = logTo(slog.LevelWarn)
				s, err := openFileStore(d, "leases", &FileStoreOptions{Logger: logger}, h)
				require.NoError(t, err)
				if i == 0 {
					require.NoError(t, s.Commit(t.Context(), Lease{Addr: testAddr(1), HardwareAddr: macA, Expires: h.now().Add(20 * time.Hour)}))
					require.NoError(t, s.Commit(t.Context(), Lease{Addr: testAddr(2), HardwareAddr: macA}))
				}
				if i%2 == 0 { // else killed, with what was written last
					require.NoError(t, s.Close())
					continue
				}
				l, err := s.LeaseByAddr(t.Context(), testAddr(1))
				require.NoError(t, err)
				require.WithinDuration(t, h.now().Add(test.left), l.Expires, 5*time.Minute)
				l, err = s.LeaseByAddr(t.Context(), testAddr(2))
				require.NoError(t, err)
				require.True(t, l.Expires.IsZero(), "for ever")
			}
			require.Equal(t, test.warns, strings.Contains(log.String(), "clock was set"), log.String())
		})
	}
}

// A clock that was set while the store was open counts from then on: the file's
// times are those of before.
func TestFileStoreClockSetMeanwhile(t *testing.T) {
	for _, killed := range []bool{false, true} {
		d := newTape()
		by := -5 * time.Hour
		h := fakeHost(0, 1, 0)
		h.now = func() time.Time { return set(time.Now(), by) }
		s, err := openFileStore(d, "leases", nil, h)
		require.NoError(t, err)
		lease := Lease{Addr: testAddr(1), HardwareAddr: macA, Expires: h.now().Add(2 * time.Hour)}
		require.NoError(t, s.Commit(t.Context(), lease))
		by = 0 // by NTP
		if killed {
			s.timed = s.timed.Add(-timeEvery) // a minute later
			require.NoError(t, s.Commit(t.Context(), Lease{Addr: testAddr(2), HardwareAddr: macB}))
		} else {
			require.NoError(t, s.Close())
		}
		s, err = openFileStore(d, "leases", &FileStoreOptions{Logger: slog.New(slog.DiscardHandler)}, fakeHost(0, 2, 0))
		require.NoError(t, err)
		l, err := s.LeaseByAddr(t.Context(), testAddr(1))
		require.NoError(t, err)
		require.WithinDuration(t, time.Now().Add(2*time.Hour), l.Expires, 5*time.Minute, "killed: %v", killed)
	}
}

// The system tells each start of its own.
func TestThisBoot(t *testing.T) {
	id, up := thisHost().boot()
	if id == [16]byte{} {
		t.Skip("no such thing here")
	}
	again, later := thisHost().boot()
	require.Equal(t, id, again)
	require.Positive(t, up)
	require.GreaterOrEqual(t, later, up)
}
