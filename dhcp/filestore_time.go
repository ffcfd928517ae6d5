package dhcp

import (
	"encoding/binary"
	"math"
	"time"
)

// Leases end at times of the store's clock (see storeClock), which is the
// system's when the file was opened. That one may have been set since, or have
// begun anew, on a machine without a battery: how long the file was closed is
// found out from what the clocks said when it was last written, of which it has
// a record for each minute in which it was.
//
//	0   flags: 16; 0
//	2   8 bytes: the store's clock, in nanoseconds since 1970
//	10  8 bytes: the system's clock, likewise
//	18  8 bytes: nanoseconds since the machine was started
//	26  16 bytes: which start of the machine that was, zeroes when unknown

const (
	recordTime  = 16
	timeRecord  = 42
	timeEvery   = time.Minute
	clockJitter = time.Minute // what is not worth a correction

	// maxAbsence is how long at most a file is believed to have been closed by
	// the system's clock alone. A longer time is rather a clock that was wrong;
	// if not, leases that go on end soon.
	maxAbsence = 30 * 24 * time.Hour
)

func (r record) isTime() bool { return len(r) == timeRecord && r[0] == recordTime }

// host is the machine's clocks.
type host struct {
	now func() time.Time
	// boot tells which start of the machine this is, and how long ago it was.
	boot func() (id [16]byte, up time.Duration)
}

// moment is what the clocks said at one time, in nanoseconds.
type moment struct {
	store, wall, up int64
	boot            [16]byte
}

func (h host) moment(c *storeClock) (m moment) {
	now := h.now()
	id, up := h.boot()
	return moment{store: c.in(now).UnixNano(), wall: now.UnixNano(), up: int64(up), boot: id}
}

func (m moment) record() record {
	b := make([]byte, 2, timeRecord)
	b[0] = recordTime
	for _, n := range []int64{m.store, m.wall, m.up} {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	return record(append(b, m.boot[:]...))
}

// moment reads what moment.record wrote.
func (r record) moment() (m moment) {
	b := []byte(r)
	m.store, m.wall, m.up = int64(binary.BigEndian.Uint64(b[2:])), int64(binary.BigEndian.Uint64(b[10:])), int64(binary.BigEndian.Uint64(b[18:]))
	copy(m.boot[:], b[26:])
	return m
}

// closed is how long it was from last to m.
func (m moment) closed(last moment) time.Duration {
	if m.boot == last.boot && m.boot != [16]byte{} && last.up >= 0 && m.up >= last.up {
		return time.Duration(m.up - last.up)
	}
	if m.wall < last.wall || last.wall < 0 || m.wall-last.wall > int64(maxAbsence) {
		return 0
	}
	return time.Duration(m.wall - last.wall)
}

// ahead is how far the store's clock is now ahead of what it would have been
// without an end, 0 for next to nothing.
func (m moment) ahead(last moment) time.Duration {
	d := m.store - last.store
	if last.store < 0 || d == math.MinInt64 {
		return 0
	}
	by := time.Duration(d) - m.closed(last)
	if by.Abs() < clockJitter {
		return 0
	}
	return by
}

// shift moves all ends of leases.
func (t *leaseTable) shift(by time.Duration) {
	for i, s := range t.slots {
		if s.rec == "" || s.rec.expires() == 0 {
			continue
		}
		e := int64(min(s.rec.expires(), math.MaxInt64))
		switch {
		case by > 0 && e > math.MaxInt64-int64(by):
			e = math.MaxInt64
		default:
			e = max(1, e+int64(by))
		}
		b := []byte(s.rec)
		binary.BigEndian.PutUint64(b[2:], uint64(e))
		t.slots[i].rec = record(b)
	}
}
