package dhcp

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The crash test records what a store does to its directory, replays every
// prefix of that as a loss of power could have left it, and opens what is
// there. What no flush protects may be lost, reordered or torn.

type tapeOp struct {
	kind     string // write, truncate, sync, link, rename, syncdir
	file     int
	off      int64
	data     []byte
	from, to string
}

// tape is a journalDir that records.
type tape struct {
	mu    sync.Mutex
	files [][]byte
	names map[string]int
	log   []tapeOp
	skip  string // the place of a flush that is taken out
	sites map[string]bool
	gate  chan struct{} // when set, the making of a ".new" file waits for it
}

func newTape() *tape { return &tape{names: map[string]int{}, sites: map[string]bool{}} }

// flush notes where it is called from and says whether it is done. The writing
// of batches and the laying down of a new file are told apart.
func (d *tape) flush(op tapeOp) {
	_, file, line, _ := runtime.Caller(2)
	site := fmt.Sprint(filepath.Base(file), ":", line)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sites[site] = true
	if site != d.skip {
		d.log = append(d.log, op)
	}
}

func (d *tape) open(name string, create bool) (journalFile, error) {
	if create && d.gate != nil {
		<-d.gate
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	i, ok := d.names[name]
	if !ok && !create {
		return nil, fs.ErrNotExist
	}
	if create { // a new file, as far as the content goes
		i = len(d.files)
		d.files = append(d.files, nil)
		d.names[name] = i
		d.log = append(d.log, tapeOp{kind: "link", file: i, to: name})
	}
	return &tapeFile{d, i}, nil
}

func (d *tape) rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log = append(d.log, tapeOp{kind: "rename", file: d.names[from], from: from, to: to})
	d.names[to] = d.names[from]
	delete(d.names, from)
	return nil
}

func (d *tape) sync() error {
	d.flush(tapeOp{kind: "syncdir"})
	return nil
}

func (d *tape) renamesOpen() bool { return true }

func (d *tape) position() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.log)
}

type tapeFile struct {
	dir *tape
	i   int
}

func (f *tapeFile) ReadAt(p []byte, off int64) (int, error) {
	f.dir.mu.Lock()
	defer f.dir.mu.Unlock()
	if off >= int64(len(f.dir.files[f.i])) {
		return 0, io.EOF
	}
	n := copy(p, f.dir.files[f.i][off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *tapeFile) WriteAt(p []byte, off int64) (int, error) {
	f.dir.mu.Lock()
	defer f.dir.mu.Unlock()
	// The zeroes laid out ahead are many and all alike: a few tell as much.
	short := p
	if n := len(p) - layAhead; n > 0 {
		short = p[:n+64]
	}
	f.dir.log = append(f.dir.log, tapeOp{kind: "write", file: f.i, off: off, data: bytes.Clone(short)})
	f.dir.files[f.i] = writeTo(f.dir.files[f.i], short, off)
	return len(p), nil
}

func writeTo(file, p []byte, off int64) []byte {
	if n := off + int64(len(p)) - int64(len(file)); n > 0 {
		file = append(file, make([]byte, n)...)
	}
	copy(file[off:], p)
	return file
}

func (f *tapeFile) truncate(size int64) error {
	f.dir.mu.Lock()
	defer f.dir.mu.Unlock()
	f.dir.log = append(f.dir.log, tapeOp{kind: "truncate", file: f.i, off: size})
	f.dir.files[f.i] = f.dir.files[f.i][:size]
	return nil
}

func (f *tapeFile) sync() error {
	f.dir.flush(tapeOp{kind: "sync", file: f.i})
	return nil
}

func (f *tapeFile) close() error { return nil }

func (f *tapeFile) size() (int64, error) {
	f.dir.mu.Lock()
	defer f.dir.mu.Unlock()
	return int64(len(f.dir.files[f.i])), nil
}

// after makes what a loss of power after the first n steps may leave.
func (d *tape) after(n int, rng *rand.Rand) *tape {
	c := newTape()
	c.files = make([][]byte, len(d.files))
	pending := make([][]tapeOp, len(d.files))
	var names []tapeOp
	apply := func(op tapeOp) {
		switch op.kind {
		case "write":
			c.files[op.file] = writeTo(c.files[op.file], op.data, op.off)
		case "truncate":
			if op.off < int64(len(c.files[op.file])) {
				c.files[op.file] = c.files[op.file][:op.off]
			}
		default:
			delete(c.names, op.from)
			c.names[op.to] = op.file
		}
	}
	for _, op := range d.log[:n] {
		switch op.kind {
		case "sync":
			for _, p := range pending[op.file] {
				apply(p)
			}
			pending[op.file] = nil
		case "syncdir":
			for _, p := range names {
				apply(p)
			}
			names = nil
		case "write", "truncate":
			pending[op.file] = append(pending[op.file], op)
		default:
			names = append(names, op)
		}
	}
	// A directory loses its last changes, but keeps their order.
	for _, p := range names[:rng.IntN(len(names)+1)] {
		apply(p)
	}
	for _, ops := range pending {
		rng.Shuffle(len(ops), func(i, j int) { ops[i], ops[j] = ops[j], ops[i] })
		for _, p := range ops {
			switch rng.IntN(3) {
			case 0:
				continue
			case 1: // torn, at any byte
				if p.kind == "write" {
					a := rng.IntN(len(p.data) + 1)
					b := a + rng.IntN(len(p.data)-a+1)
					p.off, p.data = p.off+int64(a), p.data[a:b]
				}
			}
			apply(p)
		}
	}
	return c
}

// promise is what was reported done at a place of the tape.
type promise struct {
	at      int
	addr    byte
	version int // minutes in Expires
}

var crashBase = time.Now().Round(0).Add(1000 * time.Hour)

func promised(addr byte, version int) Lease {
	return Lease{
		Addr: testAddr(addr), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, addr}, Hostname: "node",
		Expires: crashBase.Add(time.Duration(version) * time.Minute),
	}
}

// record has a store live through renewals, two restarts and compactions, and
// returns the tape and the promises.
func recordLife(t *testing.T, skip string) (*tape, []promise) {
	d := newTape()
	d.skip = skip
	var promises []promise
	version := 0
	quiet := &FileStoreOptions{Logger: slog.New(slog.DiscardHandler)}
	for life := range 3 {
		s, err := openFileStore(d, "leases", quiet, thisHost())
		require.NoError(t, err)
		s.compactAbove = 1200
		d.gate = make(chan struct{})
		commit := func(addr byte) {
			version++
			require.NoError(t, s.Commit(context.Background(), promised(addr, version)))
			promises = append(promises, promise{d.position(), addr, version})
		}
		for range 30 {
			commit(byte(version % 5))
		}
		close(d.gate) // a compaction has waited: what came meanwhile is its tail
		s.wg.Wait()
		if life == 1 { // killed between a write and its flush
			rec, err := newRecord(promised(9, version))
			require.NoError(t, err)
			require.NoError(t, s.file.append([]record{rec, rec}))
		} else {
			commit(7)
			require.NoError(t, s.Close())
		}
		d.gate = nil
	}
	return d, promises
}

// broken replays losses of power and returns what was found to be wrong.
func broken(d *tape, promises []promise, seeds int) error {
	quiet := &FileStoreOptions{Logger: slog.New(slog.DiscardHandler)}
	for n := range len(d.log) + 1 {
		for seed := range seeds {
			rng := rand.New(rand.NewPCG(uint64(n), uint64(seed)))
			left := d.after(n, rng)
			s, err := openFileStore(left, "leases", quiet, thisHost())
			if err != nil {
				return fmt.Errorf("after %d steps: cannot be opened: %w", n, err)
			}
			if _, ok := left.names["leases.damaged"]; ok {
				return fmt.Errorf("after %d steps: the loss of power was taken for damage", n)
			}
			kept := map[byte]int{}
			last := 0
			for _, p := range promises {
				if p.at <= n {
					kept[p.addr] = p.version
				}
				last = max(last, p.version)
			}
			for addr, version := range kept {
				l, err := s.LeaseByAddr(context.Background(), testAddr(addr))
				if err != nil {
					return fmt.Errorf("after %d steps: %v, promised in version %d: %w", n, testAddr(addr), version, err)
				}
				if got := int(l.Expires.Sub(crashBase) / time.Minute); got < version || got > last || string(l.HardwareAddr) != string(promised(addr, 0).HardwareAddr) {
					return fmt.Errorf("after %d steps: %v has version %d, promised %d", n, testAddr(addr), got, version)
				}
			}
			s.Close()
		}
	}
	return nil
}

func TestFileStoreLossOfPower(t *testing.T) {
	d, promises := recordLife(t, "")
	require.NoError(t, broken(d, promises, 40))

	// Each flush is needed: without it, a promise is broken or the file lost.
	require.Len(t, d.sites, 4)
	for site := range d.sites {
		t.Run(site, func(t *testing.T) {
			without, promises := recordLife(t, site)
			require.Error(t, broken(without, promises, 40), "the flush at %s protects nothing", site)
		})
	}
}

// A disk that fails ends all promises.
func TestFileStoreDiskFails(t *testing.T) {
	d := &failingDir{tape: newTape()}
	s, err := openFileStore(d, "leases", nil, thisHost())
	require.NoError(t, err)
	require.NoError(t, s.Commit(t.Context(), promised(1, 1)))
	d.fail = true
	require.ErrorContains(t, s.Commit(t.Context(), promised(1, 2)), "no space")
	d.fail = false
	require.ErrorContains(t, s.Commit(t.Context(), promised(2, 1)), "no space", "what failed once is not trusted again")
	_, err = s.LeaseByAddr(t.Context(), testAddr(1))
	require.Error(t, err)
	_, err = s.LeasesByOwner(t.Context(), "x")
	require.Error(t, err)
	require.Error(t, s.Close())
	require.ErrorIs(t, s.Close(), fs.ErrClosed)

	again, err := openFileStore(d.tape, "leases", &FileStoreOptions{Logger: slog.New(slog.DiscardHandler)}, thisHost())
	require.NoError(t, err)
	_, err = again.LeaseByAddr(t.Context(), testAddr(1))
	require.NoError(t, err)
}

// A disk that has no room for a second file: the one in use serves on, and the
// other is tried again when that has grown.
func TestFileStoreNoRoomToCompact(t *testing.T) {
	d := &failingDir{tape: newTape(), only: "leases.new"}
	logger, log := logTo(slog.LevelWarn)
	s, err := openFileStore(d, "leases", nil, thisHost())
	require.NoError(t, err)
	require.NoError(t, s.Close())
	s, err = openFileStore(d, "leases", &FileStoreOptions{Logger: logger}, thisHost())
	require.NoError(t, err)
	s.compactAbove = 1000
	d.fail = true
	version := 0
	commit := func() {
		version++
		require.NoError(t, s.Commit(t.Context(), promised(1, version)))
		s.wg.Wait()
	}
	for !strings.Contains(log.String(), "make room") {
		commit()
	}
	require.Empty(t, d.files[d.names["leases.new"]], "the room that it took is free again")
	at := s.file.end
	for s.file.end < 3*at/2 {
		commit()
	}
	require.Equal(t, 1, strings.Count(log.String(), "make room"), "it is not tried for each lease")
	d.fail = false
	for s.file.end > at {
		commit()
	}
	commit()
	require.NoError(t, s.Close())
	s, err = openFileStore(d.tape, "leases", nil, thisHost())
	require.NoError(t, err)
	l, err := s.LeaseByAddr(t.Context(), testAddr(1))
	require.NoError(t, err)
	require.WithinDuration(t, promised(1, version).Expires, l.Expires, 0)
}

// A disk that is nearly full: what is laid out ahead does not fit, the leases do.
func TestFileStoreNoRoomAhead(t *testing.T) {
	d := &failingDir{tape: newTape(), room: 1000}
	s, err := openFileStore(d, "leases", nil, thisHost())
	require.NoError(t, err)
	kept := byte(0)
	for ; err == nil; kept++ {
		err = s.Commit(t.Context(), promised(kept, 1))
	}
	kept--
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Greater(t, kept, byte(10))
	s, err = openFileStore(d.tape, "leases", &FileStoreOptions{Logger: slog.New(slog.DiscardHandler)}, thisHost())
	require.NoError(t, err)
	for n := range kept {
		_, err = s.LeaseByAddr(t.Context(), testAddr(n))
		require.NoError(t, err, "address %d", n)
	}
}

type failingDir struct {
	*tape
	room int64 // for each file, 0 for any
	fail bool
	only string // the name of files that fail, "" for all
}

func (d *failingDir) open(name string, create bool) (journalFile, error) {
	f, err := d.tape.open(name, create)
	if err != nil {
		return nil, err
	}
	if d.only != "" && name != d.only {
		return f, nil
	}
	return &failingFile{f, d}, nil
}

type failingFile struct {
	journalFile
	dir *failingDir
}

func (f *failingFile) WriteAt(p []byte, off int64) (int, error) {
	if room := f.dir.room - off; f.dir.room > 0 && int64(len(p)) > room {
		n, _ := f.journalFile.WriteAt(p[:max(0, room)], off)
		return n, syscall.ENOSPC
	}
	return f.journalFile.WriteAt(p, off)
}

func (f *failingFile) sync() error {
	if f.dir.fail {
		return fmt.Errorf("no space")
	}
	return f.journalFile.sync()
}
