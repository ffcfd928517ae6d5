package dhcp

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
)

// A journal file is a header of
//
//	8 bytes  what it is
//	4 bytes  salt, which all sums begin with: what a client has put into a
//	         record never passes for one
//	4 bytes  CRC-32C of these
//
// and records one after the other, each with
//
//	4 bytes  length of the record
//	4 bytes  sum of the record before it, so that what an earlier use left
//	         behind is never taken for the next
//	4 bytes  how far in front of it the flush began that it was part of:
//	         before that, all was on disk
//	4 bytes  CRC-32C of these and the record
//	the record (see appendRecord)
//
// and zeroes up to its end, which is laid out ahead: a flush then has no
// length to write, only data. The last record for an address counts.
//
// What is no record is the end of a flush that a loss of power cut short, if
// it is not older than the flush of a record behind it. Then it is damage.

const (
	journalMagic  = "dhcplog2"
	journalHeader = 16
	frameHeader   = 16
	// layAhead is how much room is made at a time.
	layAhead = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errNotJournal = fmt.Errorf("not a lease journal, of another version, or damaged at its beginning: restore it from a copy, or move it away to begin with no leases: %w", fs.ErrInvalid)

// journalDir is the directory of a journal: the disk, or a test.
type journalDir interface {
	open(name string, create bool) (journalFile, error)
	rename(from, to string) error
	// renamesOpen is whether rename takes files that are open, and replaces such.
	renamesOpen() bool
	sync() error
}

// journalFile is one file there.
type journalFile interface {
	io.ReaderAt
	io.WriterAt
	size() (int64, error)
	truncate(size int64) error
	sync() error // of data and length
	close() error
}

// journal is an open file, positioned at the end of its records. It is used by
// one goroutine at a time.
type journal struct {
	file    journalFile
	salt    uint32
	flushed int64 // from the beginning
	end     int64 // of the records
	laid    int64 // length of the file
	sum     uint32
	count   int64 // of records
	buf     []byte
	failed  error
}

// average is the mean size of a record with its frame.
func (j *journal) average() int64 { return (j.end + frameHeader) / max(1, j.count) }

// recordForget marks a record of an address that is no longer remembered.
const recordForget = 8

func forgetRecord(rec record) record {
	return record(string([]byte{rec[0]&recordIPv6 | recordForget, 0}) + string(rec[2:recordHeader+rec.addrLen()]))
}

func (r record) isForget() bool { return r[0]&recordForget != 0 }

// check reports whether the record, from a file, is whole.
func (r record) check() error {
	if r.isTime() {
		return nil
	}
	if len(r) >= recordHeader && r[0]&^recordIPv6 == recordForget {
		if len(r) != recordHeader+r.addrLen() {
			return errRecord
		}
		return nil
	}
	if _, _, _, ok := r.fields(); !ok {
		return errRecord
	}
	return nil
}

// openJournal opens or makes a journal and replays it.
func openJournal(dir journalDir, name string, each func(record) error) (j *journal, found damage, err error) {
	f, err := dir.open(name, false)
	if errors.Is(err, fs.ErrNotExist) {
		// Under another name until it is complete: the name never stands
		// for half a header.
		if j, err = createJournal(dir, name+".new", nil); err != nil {
			return nil, found, err
		}
		if err = j.takeName(dir, name, nil); err == nil {
			err = dir.sync()
		}
		if err != nil {
			j.close()
			return nil, found, err
		}
		return j, found, nil
	}
	if err != nil {
		return nil, found, err
	}
	j = &journal{file: f}
	if found, err = j.replay(each); err != nil {
		f.close()
		return nil, found, err
	}
	return j, found, nil
}

// createJournal makes a journal of the records, on disk but for its name.
func createJournal(dir journalDir, name string, recs []record) (*journal, error) {
	f, err := dir.open(name, true)
	if err != nil {
		return nil, err
	}
	var salt [4]byte
	rand.Read(salt[:]) // never fails
	head := append([]byte(journalMagic), salt[:]...)
	j := &journal{file: f, salt: crc32.Checksum(head, castagnoli), end: journalHeader, laid: journalHeader}
	if _, err = f.WriteAt(binary.BigEndian.AppendUint32(head, j.salt), 0); err == nil {
		for len(recs) > 0 && err == nil {
			n := min(len(recs), 4096)
			j.flushed = -1 // none of it is seen before all of it is on disk
			err = j.append(recs[:n])
			recs = recs[n:]
		}
	}
	if err == nil {
		err = f.sync()
	}
	if err != nil {
		j.discard()
		return nil, err
	}
	j.flushed = j.end
	return j, nil
}

// takeName gives a file that is complete its name, in the place of old. Where
// it cannot be otherwise both are closed for that.
func (j *journal) takeName(dir journalDir, name string, old *journal) error {
	if dir.renamesOpen() {
		return dir.rename(name+".new", name)
	}
	if old != nil {
		old.close()
	}
	if err := j.file.close(); err != nil {
		return err
	}
	if err := dir.rename(name+".new", name); err != nil {
		return err
	}
	f, err := dir.open(name, false)
	if err == nil {
		j.file = f
	}
	return err
}

// write appends the records and returns when they are on disk.
func (j *journal) write(recs []record) error {
	if len(recs) == 0 {
		return j.failed
	}
	if err := j.append(recs); err != nil {
		return err
	}
	// A failed flush may have dropped what it could not write: trying again
	// would report it done.
	if j.failed = j.file.sync(); j.failed == nil {
		j.flushed = j.end
	}
	return j.failed
}

func (j *journal) append(recs []record) error {
	if j.failed != nil {
		return j.failed
	}
	b := j.buf[:0]
	for _, rec := range recs {
		back := j.end + int64(len(b)) - j.flushed
		if j.flushed < 0 {
			back = 0
		}
		at := len(b)
		b = binary.BigEndian.AppendUint32(b, uint32(len(rec)))
		b = binary.BigEndian.AppendUint32(b, j.sum)
		b = binary.BigEndian.AppendUint32(b, uint32(back))
		j.sum = frameSum(j.salt, b[at:], []byte(rec))
		b = binary.BigEndian.AppendUint32(b, j.sum)
		b = append(b, rec...)
	}
	n := len(b)
	if end := j.end + int64(n); end > j.laid {
		b = append(b, make([]byte, layAhead)...)
	}
	_, j.failed = j.file.WriteAt(b, j.end)
	if j.failed != nil && len(b) > n {
		b = b[:n] // a disk that is nearly full may have room for these
		_, j.failed = j.file.WriteAt(b, j.end)
	}
	if j.failed != nil {
		return j.failed
	}
	j.laid = max(j.laid, j.end+int64(len(b)))
	j.end += int64(n)
	j.count += int64(len(recs))
	if j.buf = b; cap(b) > 2*layAhead {
		j.buf = nil
	}
	return nil
}

// frameSum is of the head without its sum, and the record.
func frameSum(salt uint32, head, rec []byte) uint32 {
	return crc32.Update(crc32.Update(salt, castagnoli, head), castagnoli, rec)
}

func (j *journal) close() error { return j.file.close() }

// discard closes a file that never got its name, and gives a full disk back the
// room that it took.
func (j *journal) discard() {
	_ = j.file.truncate(0)
	j.file.close()
}
