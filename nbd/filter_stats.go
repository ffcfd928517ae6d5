package nbd

import (
	"io"
	"math/bits"
	"sync/atomic"
	"syscall"
	"time"
)

// Stats counts what is asked of devices and what becomes of it. Its method
// Filter is a [Filter]; all devices that it made are counted together. The
// zero value is ready; [StatsByClient] keeps one for each client. Its methods
// may be called concurrently.
type Stats struct {
	opened, closedN atomic.Uint64
	ops             [numOps]opCounters
}

type opCounters struct {
	requests, bytes atomic.Uint64
	nanos           atomic.Uint64
	errors          [len(statErrnos)]atomic.Uint64
	latency         [LatencyBuckets]atomic.Uint64
}

// statErrnos are the errors that NBD knows; every error is one of them.
var statErrnos = [...]syscall.Errno{
	syscall.EIO, syscall.EPERM, syscall.EINVAL, syscall.ENOMEM, syscall.ENOSPC,
	syscall.EOVERFLOW, syscall.ENOTSUP, syscall.ESHUTDOWN,
}

// LatencyBuckets is how many buckets a latency histogram has.
const LatencyBuckets = 26

// LatencyBound returns the time below which requests in bucket i of a
// histogram took: 1 µs in bucket 0, twice as much in each further one. The
// last one, from 16.8 s on, has no bound; there it is the longest Duration.
func LatencyBound(i int) time.Duration {
	if i >= LatencyBuckets-1 {
		return 1<<63 - 1
	}
	return time.Microsecond << max(i, 0)
}

// StatsSnapshot is a Stats at one moment. Requests under way are not in it;
// its parts may be apart by what happened while it was made.
type StatsSnapshot struct {
	Opened uint64 // devices, those that were only looked at as well
	Open   int    // of them not closed
	// By kind of request.
	Ops [len(opNames)]OpStats
}

// OpStats is about the requests of one kind.
type OpStats struct {
	Requests uint64
	Bytes    uint64 // read or written; trimmed, zeroed or asked about
	// Errors by the number that a client gets, and how many those are. A
	// device's own errors are mapped as package nbd does.
	Errors map[syscall.Errno]uint64
	// Time is the sum of what the requests took, successful or not.
	Time time.Duration
	// Latency counts requests by what they took: see [LatencyBound].
	Latency [LatencyBuckets]uint64
}

// Failed returns the sum of Errors.
func (s OpStats) Failed() (n uint64) {
	for _, k := range s.Errors {
		n += k
	}
	return n
}

// Quantile returns a time that a share q of the requests, from 0 to 1, did not
// exceed, to within a factor of two; 0 when there were none.
func (s OpStats) Quantile(q float64) time.Duration {
	var all, below uint64
	for _, n := range s.Latency {
		all += n
	}
	if all == 0 {
		return 0
	}
	for i, n := range s.Latency {
		below += n
		if n > 0 && float64(below) >= q*float64(all) {
			return LatencyBound(i)
		}
	}
	return LatencyBound(LatencyBuckets - 1)
}

// Filter returns dev, counted until it is closed. It has dev's abilities.
func (s *Stats) Filter(dev Device) Device {
	s.opened.Add(1)
	return &filtered{Pass{dev}, &statsDevice{Stats: s}}
}

// statsDevice counts a device as closed once.
type statsDevice struct {
	*Stats
	done atomic.Bool
}

func (d *statsDevice) closed() {
	if !d.done.Swap(true) {
		d.closedN.Add(1)
	}
}

func (s *Stats) slow() bool { return false }

func (s *Stats) before(Op, int64, int64) error { return nil }

func (s *Stats) after(op Op, n int64, took time.Duration, err error) {
	c := &s.ops[op]
	c.requests.Add(1)
	c.nanos.Add(uint64(max(took, 0)))
	c.latency[min(bits.Len64(uint64(max(took, 0)/time.Microsecond)), LatencyBuckets-1)].Add(1)
	if err == nil || op == OpRead || op == OpWrite {
		c.bytes.Add(uint64(n))
	}
	if err == nil || err == io.EOF {
		return
	}
	errno, slot := errnoOf(wireError(err)), 0
	for i, e := range statErrnos {
		if e == errno {
			slot = i
		}
	}
	c.errors[slot].Add(1)
}

// Snapshot returns the counts as they are now.
func (s *Stats) Snapshot() StatsSnapshot {
	var out StatsSnapshot
	closed := s.closedN.Load()
	out.Opened = s.opened.Load()
	out.Open = int(out.Opened - closed)
	for op := range out.Ops {
		from, to := &s.ops[op], &out.Ops[op]
		to.Requests, to.Bytes = from.requests.Load(), from.bytes.Load()
		to.Time = time.Duration(from.nanos.Load())
		for i := range to.Latency {
			to.Latency[i] = from.latency[i].Load()
		}
		for i, errno := range statErrnos {
			if n := from.errors[i].Load(); n > 0 {
				if to.Errors == nil {
					to.Errors = make(map[syscall.Errno]uint64)
				}
				to.Errors[errno] = n
			}
		}
	}
	return out
}

// add adds what other has counted.
func (s *Stats) add(other *Stats) {
	s.opened.Add(other.opened.Load())
	s.closedN.Add(other.closedN.Load())
	for op := range s.ops {
		to, from := &s.ops[op], &other.ops[op]
		to.requests.Add(from.requests.Load())
		to.bytes.Add(from.bytes.Load())
		to.nanos.Add(from.nanos.Load())
		for i := range to.latency {
			to.latency[i].Add(from.latency[i].Load())
		}
		for i := range to.errors {
			to.errors[i].Add(from.errors[i].Load())
		}
	}
}
