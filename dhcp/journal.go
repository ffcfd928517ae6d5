package dhcp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
)

// A journal file is a header and records one after the other, each with
//
//	4 bytes  length of the record
//	4 bytes  CRC-32C of the record, begun with the sum of the record before
//	         it, so that what an earlier use left behind is never valid
//	the record (see appendRecord)
//
// and zeroes up to its end, which is laid out ahead: a flush then has no
// length to write, only data. The last record for an address counts.

const (
	journalMagic = "dhcplog1"
	frameHeader  = 8
	// layAhead is how much room is made at a time.
	layAhead = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errNotJournal = fmt.Errorf("not a lease journal, or of another version: move it away to begin with no leases: %w", fs.ErrInvalid)

// journalDir is the directory of a journal: the disk, or a test.
type journalDir interface {
	open(name string, create bool) (journalFile, error)
	rename(from, to string) error
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
	file   journalFile
	end    int64 // of the records
	laid   int64 // length of the file
	sum    uint32
	count  int64 // of records
	buf    []byte
	failed error
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

// openJournal opens or makes a journal and replays it. dropped is how many
// bytes at its end were no records, and are gone.
func openJournal(dir journalDir, name string, each func(record) error) (j *journal, dropped int64, err error) {
	f, err := dir.open(name, false)
	if errors.Is(err, fs.ErrNotExist) {
		// Under another name until it is complete: the name never stands
		// for half a header.
		if j, err = createJournal(dir, name+".new", nil); err != nil {
			return nil, 0, err
		}
		if err = dir.rename(name+".new", name); err == nil {
			err = dir.sync()
		}
		if err != nil {
			j.close()
			return nil, 0, err
		}
		return j, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	j = &journal{file: f}
	if dropped, err = j.replay(each); err != nil {
		f.close()
		return nil, 0, err
	}
	return j, dropped, nil
}

// createJournal makes a journal of the records, on disk but for its name.
func createJournal(dir journalDir, name string, recs []record) (*journal, error) {
	f, err := dir.open(name, true)
	if err != nil {
		return nil, err
	}
	j := &journal{file: f, end: int64(len(journalMagic))}
	if _, err = f.WriteAt([]byte(journalMagic), 0); err == nil {
		j.laid = j.end
		for len(recs) > 0 && err == nil {
			n := min(len(recs), 4096)
			err = j.append(recs[:n])
			recs = recs[n:]
		}
	}
	if err == nil {
		err = f.sync()
	}
	if err != nil {
		f.close()
		return nil, err
	}
	return j, nil
}

// replay reads all records, and cuts the file behind the last good one.
func (j *journal) replay(each func(record) error) (dropped int64, err error) {
	size, err := j.file.size()
	if err != nil {
		return 0, err
	}
	r := &journalReader{r: io.NewSectionReader(j.file, 0, size)}
	head := r.next(len(journalMagic))
	if string(head) != journalMagic {
		return 0, errors.Join(r.err, errNotJournal)
	}
	j.end = int64(len(journalMagic))
	for {
		head := r.next(frameHeader)
		if head == nil {
			break
		}
		n, sum := binary.BigEndian.Uint32(head), binary.BigEndian.Uint32(head[4:])
		if n < recordHeader || n > maxRecord {
			break
		}
		data := r.next(int(n))
		if data == nil || crc32.Update(j.sum, castagnoli, data) != sum {
			break
		}
		rec := record(data)
		if rec.check() != nil {
			break
		}
		if err := each(rec); err != nil {
			return 0, err
		}
		j.sum = sum
		j.count++
		j.end += frameHeader + int64(n)
	}
	if r.err != nil {
		return 0, r.err
	}
	dropped, err = j.notZero(size)
	if err != nil {
		return 0, err
	}
	if size > j.end {
		// Not flushed: should it come back, its sums are no continuation of
		// what is written instead.
		if err := j.file.truncate(j.end); err != nil {
			return 0, err
		}
	}
	j.laid = j.end
	return dropped, nil
}

// notZero counts the bytes behind the records up to the last one that is set.
func (j *journal) notZero(size int64) (n int64, err error) {
	buf := make([]byte, 64<<10)
	for off := j.end; off < size; {
		m, err := j.file.ReadAt(buf[:min(int64(len(buf)), size-off)], off)
		if m == 0 {
			return n, err
		}
		for i, b := range buf[:m] {
			if b != 0 {
				n = off + int64(i) + 1 - j.end
			}
		}
		off += int64(m)
	}
	return n, nil
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
	j.failed = j.file.sync()
	return j.failed
}

func (j *journal) append(recs []record) error {
	if j.failed != nil {
		return j.failed
	}
	b := j.buf[:0]
	for _, rec := range recs {
		j.sum = crc32.Update(j.sum, castagnoli, []byte(rec))
		b = binary.BigEndian.AppendUint32(b, uint32(len(rec)))
		b = binary.BigEndian.AppendUint32(b, j.sum)
		b = append(b, rec...)
	}
	n := len(b)
	if end := j.end + int64(n); end > j.laid {
		b = append(b, make([]byte, layAhead)...)
	}
	_, j.failed = j.file.WriteAt(b, j.end)
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

func (j *journal) close() error { return j.file.close() }

// journalReader reads ahead in pieces of bounded size.
type journalReader struct {
	r    io.Reader
	buf  []byte
	have []byte
	err  error
}

// next returns the next n bytes, valid until the next call, or nil at the end.
func (r *journalReader) next(n int) []byte {
	if len(r.have) < n {
		if r.buf == nil {
			r.buf = make([]byte, 256<<10)
		}
		m := copy(r.buf, r.have)
		k, err := io.ReadFull(r.r, r.buf[m:])
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			r.err = err
			return nil
		}
		r.have = r.buf[:m+k]
		if len(r.have) < n {
			return nil
		}
	}
	b := r.have[:n]
	r.have = r.have[n:]
	return b
}
