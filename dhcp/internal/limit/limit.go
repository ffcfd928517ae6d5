// Package limit bounds what strangers can make a DHCP server log and give. All
// types are ready as zero values and safe for concurrent use.
package limit

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Seldom thins out a log line, or work.
type Seldom struct {
	mu     sync.Mutex
	last   time.Time
	missed int
}

// Due reports whether it is time again, and how many asked too early since it was.
func (s *Seldom) Due(every time.Duration) (due bool, missed int) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.last.IsZero() && now.Sub(s.last) < every {
		s.missed++
		return false, 0
	}
	missed, s.last, s.missed = s.missed, now, 0
	return true, missed
}

// Once remembers names, to say something once for each of them. It forgets
// all of them when it has 1024, since a stranger can make them up.
type Once struct {
	mu   sync.Mutex
	seen map[string]struct{}
}

const maxOnce = 1024

// First reports whether name is new, and remembers it.
func (o *Once) First(name string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.seen[name]; ok {
		return false
	}
	if o.seen == nil || len(o.seen) >= maxOnce {
		o.seen = make(map[string]struct{})
	}
	o.seen[name] = struct{}{}
	return true
}

// Sources counts what comes from each source, in buckets that fill up again.
type Sources struct {
	mu      sync.Mutex
	buckets map[string]*rate.Limiter
}

// MaxSources bounds the memory of [Sources], since they may be made up too. A
// table that is full is begun anew.
const MaxSources = 1 << 14

// Allow takes one from the source's bucket, which holds size and is filled
// within that time. Both are the same in all calls.
func (s *Sources) Allow(source string, size int, within time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.buckets[source]
	if b == nil {
		if s.buckets == nil || len(s.buckets) >= MaxSources {
			s.buckets = make(map[string]*rate.Limiter)
		}
		b = rate.NewLimiter(rate.Limit(float64(size)/within.Seconds()), size)
		s.buckets[source] = b
	}
	return b.Allow()
}
