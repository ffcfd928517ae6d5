package dhcp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"net/netip"
	"path/filepath"
	"runtime"
	"sync"
	"time"
)

// FileStore is a [LeaseStore] in one file, a journal: what a method reported
// done survives the end of the process and a loss of power, on a disk that
// keeps what it was told to flush. Requests that come at the same time share
// one flush. All leases are in memory besides, less than 300 bytes each.
//
// When the disk fails, every method returns the error from then on, so that no
// client is promised what is not kept; open the store anew when the disk works.
// The file is written anew, beside the one in use, when it is twice as long as
// its leases need; a disk that has no room for that is told of at Warn.
type FileStore struct {
	o    FileStoreOptions
	dir  journalDir
	host host
	lock interface{ Close() error }
	name string

	compactAbove int64

	// token is held by whoever writes to the file.
	token chan struct{}

	mu     sync.RWMutex
	table  leaseTable
	batch  *journalBatch // what is not on disk yet
	failed error         // for ever, also after Close

	// With the token:
	file    *journal
	timed   time.Time // the last time record
	tail    []record  // written since the compaction at work began
	tailing bool
	wg      sync.WaitGroup // compaction
}

// journalBatch is the records that are flushed together.
type journalBatch struct {
	recs []record
	done chan struct{} // closed when they are on disk, or err says why not
	err  error
}

// FileStoreOptions change a [FileStore]. The zero value is good for most.
type FileStoreOptions struct {
	// MaxLeases is as in [MemoryStore.MaxLeases].
	MaxLeases int
	// Logger gets, at Warn, what of the file was damaged, how much a clock was
	// set, and that the file cannot be written anew; nil is [slog.Default].
	Logger *slog.Logger
}

var _ LeaseStore = (*FileStore)(nil)

// OpenFileStore opens or makes the store in the file of that name; nil
// options are the defaults. A second process that opens it is refused. Beside
// the file one more with ".lock", and at times one with ".new", is made.
//
// What a loss of power left half written at the end of the file is dropped:
// nobody was told about that. Damage in front of leases that are whole, of which
// a disk may have told nothing, costs those that it is in: the rest is kept, the
// file as it was found stays beside it with ".damaged" (and ".damaged.2", the next
// time), and a line at Warn tells. A file that is no journal is an error that is
// [fs.ErrInvalid].
//
// The directory must be one to write to, since the file is replaced at times. A
// symbolic link is followed, and stays. A container must be given the directory:
// for a file that is mounted alone there is an error that says so.
//
// A clock that was set while the file was closed, or begins anew at each start of
// the machine, does not matter: leases have as much time left as they had when
// the file was last written, less the time since, as far as that can be told.
func OpenFileStore(name string, o *FileStoreOptions) (*FileStore, error) {
	file, err := followLinks(name)
	if err == nil && isMount(file) {
		err = fmt.Errorf("it is mounted as a single file, in whose place no other can be put: mount its directory instead: %w", fs.ErrInvalid)
	}
	if err != nil {
		return nil, fmt.Errorf("dhcp: lease file %s: %w", name, err)
	}
	dir := osJournalDir(filepath.Dir(file))
	lock, err := dir.lock(filepath.Base(file) + ".lock")
	if err != nil {
		return nil, fmt.Errorf("dhcp: lease file %s: %w", name, err)
	}
	s, err := openFileStore(dir, filepath.Base(file), o, thisHost())
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("dhcp: lease file %s: %w", name, err)
	}
	s.lock = lock
	return s, nil
}

func openFileStore(dir journalDir, name string, o *FileStoreOptions, h host) (*FileStore, error) {
	s := &FileStore{dir: dir, host: h, name: name, token: make(chan struct{}, 1), batch: newBatch(), compactAbove: defaultCompactAbove}
	if o != nil {
		s.o = *o
	}
	s.table.clock.begin(h.now())
	var last record
	file, found, err := openJournal(dir, name, func(rec record) error {
		switch {
		case rec.isTime():
			last = rec
		case rec.isForget():
			s.table.drop(rec.addr())
		default:
			_, err := s.table.put(rec, -1)
			return err
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.file = file
	if err := s.repair(found, last); err != nil {
		s.file.close()
		return nil, err
	}
	s.token <- struct{}{}
	return s, nil
}

// repair writes the file anew where it was damaged, or its times are not of the
// clock that the store has now.
func (s *FileStore) repair(found damage, last record) error {
	log := orDefault(s.o.Logger)
	var ahead time.Duration
	if last != "" {
		ahead = s.host.moment(&s.table.clock).ahead(last.moment())
		s.table.shift(ahead)
	}
	if found.lost == 0 && found.cut > 0 {
		log.Warn("dhcp: the end of the lease file was damaged, as after a loss of power, and is dropped", "file", s.name, "bytes", found.cut)
	}
	if found.lost > 0 {
		kept, err := s.unused(s.name + ".damaged")
		if err == nil {
			err = s.copyTo(kept)
		}
		if err != nil {
			return fmt.Errorf("it is damaged, and cannot be copied to %s before it is written anew: %w", kept, err)
		}
		log.Warn("dhcp: the lease file was damaged, and leases are lost that were in it: their addresses may be given to others, so look for machines that use one without a lease (arping), and have the disk checked",
			"file", s.name, "bytes", found.lost+found.cut, "leases kept", s.table.len(), "damaged file", kept)
	}
	if ahead != 0 {
		log.Warn("dhcp: the system's clock was set while the lease file was closed, or that was for more than a month: leases have the time left that they had then", "file", s.name, "by", ahead.Round(time.Second))
	}
	if found.lost == 0 && ahead == 0 {
		return nil
	}
	next, err := createJournal(s.dir, s.name+".new", s.contents())
	if err != nil {
		return err
	}
	if err := s.replaceBy(next); err != nil {
		next.close()
		return err
	}
	return nil
}

// contents is what a new file has in it.
func (s *FileStore) contents() []record {
	return append([]record{s.host.moment(&s.table.clock).record()}, s.table.all()...)
}

// unused is the name, or with a number behind it where there is such a file with
// anything in it.
func (s *FileStore) unused(name string) (string, error) {
	for n, try := 2, name; n < 1000; n++ {
		f, err := s.dir.open(try, false)
		if errors.Is(err, fs.ErrNotExist) {
			return try, nil
		}
		if err == nil {
			size, err := f.size()
			f.close()
			if err == nil && size == 0 {
				return try, nil
			}
		}
		try = fmt.Sprint(name, ".", n)
	}
	return name, fmt.Errorf("there are too many of that name, move them away: %w", fs.ErrExist)
}

// copyTo copies the file as it is.
func (s *FileStore) copyTo(name string) error {
	to, err := s.dir.open(name, true)
	if err != nil {
		return err
	}
	size, err := s.file.file.size()
	buf := make([]byte, 256<<10)
	for off := int64(0); off < size && err == nil; {
		var n int
		if n, err = s.file.file.ReadAt(buf[:min(int64(len(buf)), size-off)], off); n > 0 {
			_, err = to.WriteAt(buf[:n], off)
			off += int64(n)
		}
	}
	if err == nil {
		err = to.sync()
	}
	if err != nil {
		_ = to.truncate(0)
	}
	return errors.Join(err, to.close())
}

func newBatch() *journalBatch { return &journalBatch{done: make(chan struct{})} }

// Close waits for what is being written, and closes the file. Every method
// returns [fs.ErrClosed] afterwards.
func (s *FileStore) Close() error {
	<-s.token
	s.mu.Lock()
	if errors.Is(s.failed, fs.ErrClosed) {
		s.mu.Unlock()
		s.token <- struct{}{}
		return fs.ErrClosed
	}
	b := s.batch
	s.batch = newBatch()
	failed := s.failed
	s.failed = fmt.Errorf("dhcp: lease file: %w", fs.ErrClosed)
	s.mu.Unlock()
	if failed == nil {
		if !s.timed.IsZero() || len(b.recs) > 0 {
			b.recs = append(b.recs, s.host.moment(&s.table.clock).record())
		}
		failed = s.file.write(b.recs)
	}
	if s.tailing {
		s.tail = append(s.tail, b.recs...)
	}
	b.err = failed
	close(b.done)
	s.token <- struct{}{}

	s.wg.Wait()
	err := errors.Join(failed, s.file.close())
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
	}
	return err
}

// Commit implements [LeaseStore].
func (s *FileStore) Commit(_ context.Context, l Lease) error {
	rec, err := s.table.record(l)
	if err != nil {
		return err
	}
	return s.change(func(now time.Time) (record, error) { return rec, s.table.mayCommit(rec, now) })
}

// Release implements [LeaseStore].
func (s *FileStore) Release(_ context.Context, addr netip.Addr, owner string) error {
	return s.change(func(now time.Time) (record, error) { return s.table.released(addr, owner, now) })
}

// Decline implements [LeaseStore].
func (s *FileStore) Decline(_ context.Context, addr netip.Addr, owner string, until time.Time) error {
	return s.change(func(now time.Time) (record, error) { return s.table.declined(addr, owner, until, now) })
}

// change makes a record and returns when it is on disk.
func (s *FileStore) change(decide func(now time.Time) (record, error)) error {
	s.mu.Lock()
	b := s.batch
	err := s.failed
	if err == nil {
		var rec record
		if rec, err = decide(time.Now()); err == nil {
			var forgotten []record
			forgotten, err = s.table.put(rec, s.o.MaxLeases)
			for _, f := range forgotten {
				b.recs = append(b.recs, forgetRecord(f))
			}
			if err == nil {
				b.recs = append(b.recs, rec)
			}
		}
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case <-b.done:
	case <-s.token:
		// Nobody writes: either this batch is done, or it is the next. Others
		// that are about to commit get into it first.
		runtime.Gosched()
		s.flush()
		s.token <- struct{}{}
		<-b.done
	}
	return b.err
}

// flush writes the batch; the caller has the token.
func (s *FileStore) flush() {
	s.mu.Lock()
	b := s.batch
	if len(b.recs) == 0 {
		s.mu.Unlock()
		return
	}
	s.batch = newBatch()
	err := s.failed
	s.mu.Unlock()

	if err == nil {
		if now := time.Now(); s.timed.IsZero() || now.Sub(s.timed) >= timeEvery {
			s.timed = now
			b.recs = append(b.recs, s.host.moment(&s.table.clock).record())
		}
		if err = s.file.write(b.recs); err != nil {
			err = fmt.Errorf("dhcp: lease file: %w: leases cannot be kept, so none are given until it is opened anew", err)
			s.mu.Lock()
			s.failed = err
			s.mu.Unlock()
		}
	}
	if s.tailing {
		s.tail = append(s.tail, b.recs...)
	}
	b.err = err
	close(b.done)
	if err == nil && !s.tailing {
		s.mayCompact()
	}
}

// LeaseByAddr implements [LeaseStore].
func (s *FileStore) LeaseByAddr(_ context.Context, addr netip.Addr) (Lease, error) {
	s.mu.RLock()
	rec, ok := s.table.byAddr(addr)
	err := s.failed
	s.mu.RUnlock()
	switch {
	case err != nil:
		return Lease{}, err
	case !ok:
		return Lease{}, fs.ErrNotExist
	}
	return s.table.lease(rec)
}

// LeasesByOwner implements [LeaseStore].
func (s *FileStore) LeasesByOwner(_ context.Context, owner string) ([]Lease, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.failed != nil {
		return nil, s.failed
	}
	return s.table.leasesOf(owner)
}

// Leases implements [LeaseStore]. It iterates over a copy.
func (s *FileStore) Leases(ctx context.Context) iter.Seq2[Lease, error] {
	return func(yield func(Lease, error) bool) {
		s.mu.RLock()
		all, err := s.table.all(), s.failed
		s.mu.RUnlock()
		if err != nil {
			yield(Lease{}, err)
			return
		}
		s.table.yield(ctx, all, yield)
	}
}

// state implements [addrStates].
func (s *FileStore) state(addr netip.Addr) (expires time.Time, known bool) {
	s.mu.RLock()
	rec, ok := s.table.byAddr(addr)
	s.mu.RUnlock()
	if !ok {
		return time.Time{}, false
	}
	return s.table.clock.out(expiryTime(rec.expires())), true
}
