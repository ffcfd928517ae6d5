package dhcp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// damage is what a journal's replay found to be no records.
type damage struct {
	cut  int64 // bytes at its end, which are gone
	lost int64 // bytes in front of records that were kept
}

// frame is what is in front of a record.
type frame struct {
	length, prev, back, sum uint32
}

func (f *frame) read(b []byte) bool {
	f.length, f.prev = binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	f.back, f.sum = binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:])
	return f.length >= recordHeader && f.length <= maxRecord
}

// whole returns the record that b begins with, "" if that is none.
func (j *journal) whole(f *frame, b []byte) record {
	if len(b) < frameHeader || !f.read(b) || len(b)-frameHeader < int(f.length) {
		return ""
	}
	data := b[frameHeader:][:f.length]
	if frameSum(j.salt, b[:frameHeader-4], data) != f.sum {
		return ""
	}
	rec := record(data)
	if rec.check() != nil {
		return ""
	}
	return rec
}

// replay reads all records, and cuts the file behind the last good one, if
// there is no damage besides: then it is left as it is.
func (j *journal) replay(each func(record) error) (found damage, err error) {
	size, err := j.file.size()
	if err != nil {
		return found, err
	}
	r := &journalReader{file: j.file, size: size}
	head, err := r.peek(journalHeader)
	if err != nil {
		return found, err
	}
	if len(head) < journalHeader || string(head[:8]) != journalMagic || crc32.Checksum(head[:12], castagnoli) != binary.BigEndian.Uint32(head[12:]) {
		return found, errNotJournal
	}
	j.salt = binary.BigEndian.Uint32(head[12:])
	j.end, j.flushed = journalHeader, journalHeader
	var proof int64 = -1 // what all before was on disk, by a record behind the first hole
	for {
		r.off = j.end
		b, err := r.peek(frameHeader + maxRecord)
		if err != nil {
			return found, err
		}
		var f frame
		if rec := j.whole(&f, b); rec != "" && f.prev == j.sum {
			if err := each(rec); err != nil {
				return found, err
			}
			j.sum = f.sum
			j.flushed = max(0, j.end-int64(f.back))
			j.count++
			j.end += frameHeader + int64(f.length)
			continue
		}
		if proof < 0 {
			if found.cut, err = j.notZero(r); err != nil {
				return found, err
			}
			if found.cut > 0 {
				if proof, err = j.provenBehind(r); err != nil {
					return found, err
				}
			}
		}
		if proof <= j.end {
			break
		}
		r.off = j.end
		if err := j.nextWhole(r, &f); err != nil {
			return found, err
		}
		found.lost += max(1, r.off-j.end) // of whole records some may be missing
		j.end, j.sum = r.off, f.prev
	}
	if found.lost > 0 {
		found.cut, err = j.notZero(r)
		return found, err
	}
	if size > j.end {
		// Not flushed: should it come back, its sums are no continuation of
		// what is written instead.
		if err := j.file.truncate(j.end); err != nil {
			return found, err
		}
	}
	j.laid = j.end
	return found, nil
}

// provenBehind is the end of what was on disk for sure, by all records behind
// the end of those that were read.
func (j *journal) provenBehind(r *journalReader) (proof int64, err error) {
	for r.off = j.end; ; {
		var f frame
		if err = j.nextWhole(r, &f); err != nil || r.off == r.size {
			return proof, err
		}
		proof = max(proof, r.off-int64(f.back))
		r.off += frameHeader + int64(f.length)
	}
}

// nextWhole moves r on to a whole record, at any place, or to the end.
func (j *journal) nextWhole(r *journalReader, f *frame) error {
	for ; r.off < r.size; r.off++ {
		b, err := r.peek(frameHeader + maxRecord)
		if err != nil {
			return err
		}
		if j.whole(f, b) != "" {
			return nil
		}
	}
	return nil
}

// notZero counts the bytes behind the records up to the last one that is set.
func (j *journal) notZero(r *journalReader) (n int64, err error) {
	for r.off = j.end; r.off < r.size; {
		b, err := r.peek(64 << 10)
		if err != nil {
			return n, err
		}
		for i, c := range b {
			if c != 0 {
				n = r.off + int64(i) + 1 - j.end
			}
		}
		r.off += int64(len(b))
	}
	return n, nil
}

// journalReader reads ahead in pieces of bounded size.
type journalReader struct {
	file io.ReaderAt
	size int64
	off  int64

	buf []byte
	at  int64 // where buf is from
}

// peek returns what is at off, n bytes or as many as there are, valid until the
// next call.
func (r *journalReader) peek(n int) ([]byte, error) {
	n = int(max(0, min(int64(n), r.size-r.off)))
	if skip := r.off - r.at; skip >= 0 && skip+int64(n) <= int64(len(r.buf)) {
		return r.buf[skip:][:n], nil
	}
	if cap(r.buf) == 0 {
		r.buf = make([]byte, 256<<10)
	}
	r.at, r.buf = r.off, r.buf[:cap(r.buf)]
	m, err := r.file.ReadAt(r.buf, r.off)
	r.buf = r.buf[:m]
	if m >= n {
		return r.buf[:n], nil
	}
	if errors.Is(err, io.EOF) {
		err = errShrunk
	}
	return nil, fmt.Errorf("%w: restore the file from a copy, or copy what can be read of it (ddrescue) in its place, or move it away to begin with no leases", err)
}

var errShrunk = errors.New("it became shorter while it was read")
