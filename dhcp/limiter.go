package dhcp

import (
	"sync"
	"time"
)

// limiter thins out a log line. The zero value is ready; it is safe for
// concurrent use.
type limiter struct {
	mu     sync.Mutex
	last   time.Time
	missed int
}

// allow reports whether the line may be written now, and how many were not
// since the last one that was.
func (l *limiter) allow(every time.Duration) (ok bool, missed int) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.last.IsZero() && now.Sub(l.last) < every {
		l.missed++
		return false, 0
	}
	missed, l.last, l.missed = l.missed, now, 0
	return true, missed
}

// onceSet remembers names, to say something once for each of them. It forgets
// all of them when it has maxOnce, since a stranger can make them up.
type onceSet struct {
	mu   sync.Mutex
	seen map[string]struct{}
}

const maxOnce = 1024

// first reports whether name is new, and remembers it.
func (o *onceSet) first(name string) bool {
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
