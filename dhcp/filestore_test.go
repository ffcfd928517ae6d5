package dhcp

import (
	"encoding/binary"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"
)

func testAddr(n byte) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, n}) }

func TestFileStoreReopen(t *testing.T) {
	name := filepath.Join(t.TempDir(), "leases")
	s, err := OpenFileStore(name, nil)
	require.NoError(t, err)
	_, err = OpenFileStore(name, nil)
	require.ErrorContains(t, err, "another process")

	want := Lease{
		Addr: testAddr(1), ID: "id", HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}, Hostname: "n1", ClientHostname: "c1",
		ClientID: []byte{1, 2}, UUID: uuidText, Archs: iana.Archs{7, 9}, Expires: time.Now().Add(time.Hour),
	}
	require.NoError(t, s.Commit(t.Context(), want))
	require.NoError(t, s.Commit(t.Context(), promised(2, 1)))
	require.NoError(t, s.Release(t.Context(), testAddr(2), string(promised(2, 1).HardwareAddr)))
	require.NoError(t, s.Decline(t.Context(), testAddr(3), "x", time.Now().Add(time.Hour)))
	require.NoError(t, s.Close())
	require.ErrorIs(t, s.Commit(t.Context(), want), fs.ErrClosed)

	s, err = OpenFileStore(name, nil)
	require.NoError(t, err)
	got, err := s.LeaseByAddr(t.Context(), testAddr(1))
	require.NoError(t, err)
	require.WithinDuration(t, want.Expires, got.Expires, time.Millisecond)
	got.Expires = want.Expires
	require.Equal(t, want, got)
	got, err = s.LeaseByAddr(t.Context(), testAddr(2))
	require.NoError(t, err)
	require.False(t, got.Active(time.Now()), "released")
	got, err = s.LeaseByAddr(t.Context(), testAddr(3))
	require.NoError(t, err)
	require.True(t, got.Declined)
	require.NoError(t, s.Close())

	require.NoError(t, os.WriteFile(name, []byte("something else"), 0o600))
	_, err = OpenFileStore(name, nil)
	require.ErrorIs(t, err, fs.ErrInvalid)
	require.ErrorContains(t, err, "move it away")
}

// What is forgotten for want of room stays so after a restart.
func TestFileStoreBound(t *testing.T) {
	d := newTape()
	s, err := openFileStore(d, "leases", &FileStoreOptions{MaxLeases: 4}, thisHost())
	require.NoError(t, err)
	for n := range byte(4) {
		l := promised(n, 0)
		l.Expires = time.Now().Add(-time.Duration(n+1) * time.Hour)
		require.NoError(t, s.Commit(t.Context(), l))
	}
	require.NoError(t, s.Commit(t.Context(), promised(9, 1)))
	require.NoError(t, s.Close())
	s, err = openFileStore(d, "leases", nil, thisHost())
	require.NoError(t, err)
	for n, want := range map[byte]error{0: nil, 1: nil, 2: fs.ErrNotExist, 3: fs.ErrNotExist, 9: nil} {
		_, err := s.LeaseByAddr(t.Context(), testAddr(n))
		require.ErrorIs(t, err, want, "address %d", n)
	}
}

// The flushes that the tests of a loss of power count are the system's.
func TestFileStoreFlushes(t *testing.T) {
	d := osJournalDir(t.TempDir())
	require.NoError(t, d.sync())
	f, err := d.open("f", true)
	require.NoError(t, err)
	require.NoError(t, f.sync())
	require.NoError(t, f.(*osJournalFile).File.Close())
	require.Error(t, f.sync(), "nothing was asked of the system")
	if runtime.GOOS == "linux" {
		require.Error(t, osJournalDir("/proc").sync(), "which cannot be flushed")
	}
}

// Many clients at once share flushes; each is told when its lease is kept, and
// the file is written anew under way.
func TestFileStoreConcurrent(t *testing.T) {
	name := filepath.Join(t.TempDir(), "leases")
	s, err := OpenFileStore(name, nil)
	require.NoError(t, err)
	s.compactAbove = 10_000
	var wg sync.WaitGroup
	for n := range byte(50) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for v := range 40 {
				if err := s.Commit(t.Context(), promised(n, v)); err != nil {
					t.Error(err)
					return
				}
			}
		}()
	}
	wg.Wait()
	require.NoError(t, s.Close())
	s, err = OpenFileStore(name, nil)
	require.NoError(t, err)
	defer s.Close()
	require.Less(t, s.file.count, int64(50*40), "it was compacted")
	for n := range byte(50) {
		l, err := s.LeaseByAddr(t.Context(), testAddr(n))
		require.NoError(t, err)
		require.True(t, promised(n, 39).Expires.Equal(l.Expires))
	}
}

// What Close writes while the file is being written anew is in the new one.
func TestFileStoreCloseWhileCompacting(t *testing.T) {
	d := newTape()
	s, err := openFileStore(d, "leases", nil, thisHost())
	require.NoError(t, err)
	s.compactAbove = 200
	d.gate = make(chan struct{})
	for v := 0; !s.tailing; v++ {
		require.NoError(t, s.Commit(t.Context(), promised(1, v)))
	}
	rec, err := newRecord(promised(2, 1))
	require.NoError(t, err)
	s.batch.recs = append(s.batch.recs, rec) // as of a client that waits
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	<-s.failedBy()
	close(d.gate)
	require.NoError(t, <-closed)
	d.gate = nil
	s, err = openFileStore(d, "leases", nil, thisHost())
	require.NoError(t, err)
	_, err = s.LeaseByAddr(t.Context(), testAddr(2))
	require.NoError(t, err)
}

// failedBy is closed when the store takes no more.
func (s *FileStore) failedBy() <-chan struct{} {
	done := make(chan struct{})
	go func() {
		for {
			s.mu.RLock()
			failed := s.failed
			s.mu.RUnlock()
			if failed != nil {
				close(done)
				return
			}
			runtime.Gosched()
		}
	}()
	return done
}

// FuzzJournal opens any bytes as a lease file: none crash it or take memory
// that they do not have, and what it opened it can write to and open again.
func FuzzJournal(f *testing.F) {
	d := newTape()
	s, err := openFileStore(d, "leases", nil, thisHost())
	require.NoError(f, err)
	for n := range byte(3) {
		require.NoError(f, s.Commit(f.Context(), promised(n, 1)))
	}
	whole := d.files[d.names["leases"]]
	f.Add(whole)
	f.Add(whole[:100])
	f.Add([]byte(journalMagic))
	f.Add([]byte(journalMagic + "\xff\xff\xff\xff\x00\x00\x00\x00"))
	quiet := &FileStoreOptions{Logger: slog.New(slog.DiscardHandler)}
	f.Fuzz(func(t *testing.T, data []byte) {
		d := newTape()
		d.files, d.names["leases"] = [][]byte{data}, 0
		s, err := openFileStore(d, "leases", quiet, thisHost())
		if err != nil {
			require.ErrorIs(t, err, fs.ErrInvalid)
			return
		}
		l := promised(200, 1)
		l.Expires = time.Time{}
		err = s.Commit(t.Context(), l)
		require.NoError(t, s.Close())
		s, oerr := openFileStore(d, "leases", quiet, thisHost())
		require.NoError(t, oerr)
		if err == nil {
			_, err = s.LeaseByAddr(t.Context(), l.Addr)
			require.NoError(t, err)
		}
	})
}

// FuzzRecord decodes any bytes; what decodes encodes to the same.
func FuzzRecord(f *testing.F) {
	rec, err := newRecord(promised(1, 1))
	require.NoError(f, err)
	f.Add(string(rec))
	f.Add("")
	f.Add(string(rec[:12]))
	f.Fuzz(func(t *testing.T, data string) {
		l, err := record(data).lease()
		if err != nil {
			return
		}
		again, err := record(appendRecord(nil, l)).lease()
		require.NoError(t, err)
		require.Equal(t, l, again)
		require.Equal(t, l.Owner(), record(data).owner())
	})
}

// A million leases take less than 300 bytes each.
func TestLeaseMemory(t *testing.T) {
	const n = 200_000
	var m MemoryStore
	m.MaxLeases = -1
	var before, after runtime.MemStats
	runtime.GC() // twice: what pools and finalizers held goes with the second
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range uint32(n) {
		l := Lease{Addr: numberAddr(10<<24 + i), HardwareAddr: make(net.HardwareAddr, 6), UUID: uuidText, Archs: iana.Archs{7}, ClientHostname: "node-000001", ClientID: make([]byte, 19), Expires: crashBase}
		binary.BigEndian.PutUint32(l.HardwareAddr[2:], i)
		require.NoError(t, m.Commit(t.Context(), l))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	per := (float64(after.HeapAlloc) - float64(before.HeapAlloc)) / n
	t.Logf("%.0f bytes per lease", per)
	require.Less(t, per, 300.0)
	runtime.KeepAlive(&m)
}
