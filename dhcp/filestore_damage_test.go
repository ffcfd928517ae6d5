package dhcp

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// leaseFile is a journal of n leases, each flushed, or as compaction writes it,
// and where each begins.
func leaseFile(t *testing.T, n byte, compact bool) (data []byte, starts []int64) {
	d := newTape()
	s, err := openFileStore(d, "leases", nil, thisHost())
	require.NoError(t, err)
	for i := range n {
		starts = append(starts, s.file.end)
		require.NoError(t, s.Commit(t.Context(), promised(i, 1)))
		if i == 0 {
			s.timed = s.timed.Add(timeEvery * 1000) // no more of these
		}
	}
	if compact {
		starts = starts[:0]
		j, err := createJournal(d, "leases", s.table.all())
		require.NoError(t, err)
		for i := range n {
			starts = append(starts, journalHeader+int64(i)*(j.end-journalHeader)/int64(n))
		}
		s.file = j
	}
	return d.files[d.names["leases"]][:s.file.end], starts
}

// opened is what a store has of the leases of leaseFile, with the directory and
// the log.
func opened(t *testing.T, data []byte) (s *FileStore, has []byte, d *tape, log *logBuffer) {
	d = newTape()
	d.files, d.names["leases"] = [][]byte{bytes.Clone(data)}, 0
	logger, log := logTo(slog.LevelWarn)
	s, err := openFileStore(d, "leases", &FileStoreOptions{Logger: logger}, thisHost())
	require.NoError(t, err)
	for i := range byte(200) {
		l, err := s.LeaseByAddr(t.Context(), testAddr(i))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		require.NoError(t, err)
		l.Expires = l.Expires.Round(0)
		require.Equal(t, promised(i, 1), l)
		has = append(has, i)
	}
	return s, has, d, log
}

// A disk that changed a byte, or zeroed some, costs the leases that it is in, and
// says so; at the end of the file that is a loss of power.
func TestFileStoreDamage(t *testing.T) {
	const n = 6
	all := []byte{0, 1, 2, 3, 4, 5}
	for _, compact := range []bool{false, true} {
		whole, starts := leaseFile(t, n, compact)
		_, has, _, log := opened(t, whole)
		require.Equal(t, all, has)
		require.Empty(t, log.String())
		for off := journalHeader; off < len(whole); off++ {
			for _, length := range []int{1, 40} {
				data := bytes.Clone(whole)
				end := min(off+length, len(data))
				for i := off; i < end; i++ {
					if data[i]++; length > 1 {
						data[i] = 0
					}
				}
				if bytes.Equal(data, whole) || length > 1 && off%7 > 0 { // enough, and quicker
					continue
				}
				hit := func(i byte) bool {
					after := starts[i] + starts[2] - starts[1]
					return int64(off) < after && int64(end) > starts[i] && !bytes.Equal(data[starts[i]:after], whole[starts[i]:after])
				}
				want := slices.DeleteFunc(slices.Clone(all), hit)
				s, has, d, log := opened(t, data)
				require.Equal(t, want, has, "offset %d, %d bytes", off, length)
				if len(want) == n {
					continue // a record of the time
				}
				if want[len(want)-1] != n-1 {
					if rest := data[starts[n-1]:]; len(bytes.Trim(rest, "\x00")) > 0 { // else it looks as if never written
						require.Contains(t, log.String(), "loss of power", "offset %d", off)
					}
					continue
				}
				require.Contains(t, log.String(), "damaged file", "offset %d", off)
				require.Equal(t, data, d.files[d.names["leases.damaged"]])
				if off%7 > 0 {
					continue
				}
				require.NoError(t, s.Commit(t.Context(), promised(100, 1)))
				require.NoError(t, s.Close())
				_, has, _, log = opened(t, d.files[d.names["leases"]])
				require.Equal(t, append(want, 100), has)
				require.Empty(t, log.String(), "it was written anew")
			}
		}
	}
}

// Power that is lost while a damaged file is written anew costs nothing besides.
func TestFileStoreRepairLossOfPower(t *testing.T) {
	d := newTape()
	quiet := &FileStoreOptions{Logger: slog.New(slog.DiscardHandler)}
	s, err := openFileStore(d, "leases", quiet, thisHost())
	require.NoError(t, err)
	var third int64
	for i := range byte(6) {
		if i == 3 {
			third = s.file.end
		}
		require.NoError(t, s.Commit(t.Context(), promised(i, 1)))
	}
	_, err = s.file.file.WriteAt([]byte("xxx"), third+20)
	require.NoError(t, err)
	require.NoError(t, s.file.file.sync())
	from, found := d.position(), d.names["leases"]
	_, err = openFileStore(d, "leases", quiet, thisHost())
	require.NoError(t, err)
	require.Contains(t, d.names, "leases.damaged")
	for n := from; n <= d.position(); n++ {
		for seed := range uint64(20) {
			left := d.after(n, rand.New(rand.NewPCG(uint64(n), seed)))
			if left.names["leases"] != found {
				require.Equal(t, d.files[found], left.files[left.names["leases.damaged"]], "what was found is not lost, after %d steps", n-from)
			}
			s, err := openFileStore(left, "leases", quiet, thisHost())
			require.NoError(t, err)
			for _, i := range []byte{0, 1, 2, 4, 5} {
				_, err = s.LeaseByAddr(t.Context(), testAddr(i))
				require.NoError(t, err, "after %d of %d steps, address %d", n-from, d.position()-from, i)
			}
		}
	}
}

// Damage at several places, some of it at the end.
func TestFileStoreDamageHereAndThere(t *testing.T) {
	whole, starts := leaseFile(t, 40, false)
	data := bytes.Clone(whole)
	for _, i := range []int{0, 7, 8, 20, 39} {
		data[starts[i]+30]++
	}
	copy(data[starts[30]:], data[starts[31]:]) // which is no longer there
	_, has, _, log := opened(t, data)
	require.NotContains(t, has, byte(30))
	require.NotContains(t, has, byte(39))
	require.Len(t, has, 40-5-1)
	require.Contains(t, log.String(), "leases kept\"=34")
}

// What was cut off, and is there again since the disk had not heard of that, is
// not taken for what follows the lease that was written in its place.
func TestFileStoreCutComesBack(t *testing.T) {
	d := newTape()
	j, err := createJournal(d, "leases", nil)
	require.NoError(t, err)
	rec := func(addr byte) record {
		r, err := newRecord(promised(addr, 1))
		require.NoError(t, err)
		return r
	}
	require.NoError(t, j.write([]record{rec(1)}))
	before := *j
	require.NoError(t, j.write([]record{rec(2), rec(3), rec(4)}))
	before.buf = nil
	require.NoError(t, before.write([]record{rec(5)}))
	_, has, _, log := opened(t, d.files[0])
	require.Equal(t, []byte{1, 5}, has)
	require.Contains(t, log.String(), "loss of power")
}

// What a client can put into a lease does not pass for another one after
// damage in front of it.
func TestFileStoreForgedRecord(t *testing.T) {
	d := newTape()
	s, err := openFileStore(d, "leases", nil, thisHost())
	require.NoError(t, err)
	forger, err := createJournal(newTape(), "x", nil)
	require.NoError(t, err)
	rec, err := newRecord(promised(66, 1))
	require.NoError(t, err)
	require.NoError(t, forger.append([]record{rec}))
	forged := forger.file.(*tapeFile).dir.files[0][journalHeader:forger.end]
	l := promised(1, 1)
	l.ClientID = forged
	at := s.file.end
	require.NoError(t, s.Commit(t.Context(), l))
	require.NoError(t, s.Commit(t.Context(), promised(2, 1)))
	d.files[0][at]++ // of the length
	_, has, _, _ := opened(t, d.files[0])
	require.Equal(t, []byte{2}, has)
}

// The beginning of the file cannot be told from another file's; a disk that
// cannot read is no damage that is repaired. Both say what to do.
func TestFileStoreUnreadable(t *testing.T) {
	whole, _ := leaseFile(t, 3, false)
	for off := range journalHeader {
		data := bytes.Clone(whole)
		data[off]++
		d := newTape()
		d.files, d.names["leases"] = [][]byte{data}, 0
		_, err := openFileStore(d, "leases", nil, thisHost())
		require.ErrorIs(t, err, fs.ErrInvalid)
		require.ErrorContains(t, err, "restore it from a copy")
		require.Equal(t, append(bytes.Clone(data[:off]), data[off:]...), d.files[0])
	}
	d := &brokenDir{newTape()}
	d.files, d.names["leases"] = [][]byte{whole}, 0
	_, err := openFileStore(d, "leases", nil, thisHost())
	require.ErrorIs(t, err, errSector)
	require.ErrorContains(t, err, "ddrescue")
}

var errSector = errors.New("input/output error")

// brokenDir has files with a sector that cannot be read.
type brokenDir struct{ *tape }

func (d *brokenDir) open(name string, create bool) (journalFile, error) {
	f, err := d.tape.open(name, create)
	return &brokenFile{f}, err
}

type brokenFile struct{ journalFile }

func (f *brokenFile) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > 100 {
		return 0, errSector
	}
	return f.journalFile.ReadAt(p, off)
}
