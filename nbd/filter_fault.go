package nbd

import (
	"fmt"
	"sync"
	"time"
)

// Fault says which requests to a device fail, and how.
type Fault struct {
	// Ops are the kinds of requests that it is about; none is all.
	Ops []Op
	// Off and Len are the bytes that a request must touch, if only one of
	// them; Len 0 is to the end. A Sync touches everything.
	Off, Len int64
	// Skip is how many such requests are let through first.
	Skip int
	// Count is how many then fail, after which the fault is over; 0 is all.
	Count int
	// Delay holds the request up before it fails or goes on.
	Delay time.Duration
	// Err is what the request fails with, as [syscall.EIO] or
	// [syscall.ENOSPC], without having reached the device. With nil it is
	// only held up.
	Err error
}

// Faults makes devices fail by rules, for tests. Its method Filter is a
// [Filter]; all devices that it made follow the same rules and count together.
// The zero value has no rules. Its methods may be called at any time,
// concurrently.
type Faults struct {
	mu    sync.Mutex
	rules []*faultRule
	hits  int
}

type faultRule struct {
	Fault
	seen, hit int
}

// Add adds rules. Of those that fit a request the first one added counts;
// one that skips the request still, or is over, does not fit.
func (f *Faults) Add(faults ...Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fault := range faults {
		f.rules = append(f.rules, &faultRule{Fault: fault})
	}
}

// Clear takes all rules away. Requests being held up stay so.
func (f *Faults) Clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = nil
}

// Hits returns how many requests a rule has been applied to.
func (f *Faults) Hits() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hits
}

// Filter returns dev, failing. It has dev's abilities.
func (f *Faults) Filter(dev Device) Device { return &filtered{Pass{dev}, f} }

func (f *Faults) before(op Op, off, n int64) error {
	delay, err := f.find(op, off, n)
	if delay > 0 {
		time.Sleep(delay)
	}
	if err != nil {
		return fmt.Errorf("nbd: injected into %v: %w", op, err)
	}
	return nil
}

func (f *Faults) find(op Op, off, n int64) (time.Duration, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.rules {
		if !r.fits(op, off, n) {
			continue
		}
		r.seen++
		if r.seen <= r.Skip || r.Count > 0 && r.hit >= r.Count {
			continue
		}
		r.hit++
		f.hits++
		return r.Delay, r.Err
	}
	return 0, nil
}

func (r *faultRule) fits(op Op, off, n int64) bool {
	if len(r.Ops) > 0 {
		found := false
		for _, o := range r.Ops {
			found = found || o == op
		}
		if !found {
			return false
		}
	}
	return op == OpSync || off+n > r.Off && (r.Len == 0 || off < r.Off+r.Len)
}

func (f *Faults) after(Op, int64, time.Duration, error) {}
func (f *Faults) slow() bool                            { return true }
func (f *Faults) closed()                               {}
