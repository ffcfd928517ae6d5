package dhcp6

import (
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// onceEach remembers names, to say something once for each of them. It forgets
// all of them when it has maxOnce, since a stranger can make them up.
type onceEach struct {
	mu   sync.Mutex
	seen map[string]struct{}
}

const maxOnce = 1024

// first reports whether name is new, and remembers it.
func (o *onceEach) first(name string) bool {
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

// perMinute counts newcomers per source in buckets that fill up within a
// minute. The zero value is ready to use.
type perMinute struct {
	mu      sync.Mutex
	buckets map[string]*rate.Limiter
}

// maxSources bounds the memory: relays may be made up too. A table that is
// full is begun anew.
const maxSources = 1 << 12

func (p *perMinute) allow(source string, n int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.buckets[source]
	if b == nil {
		if p.buckets == nil || len(p.buckets) >= maxSources {
			p.buckets = make(map[string]*rate.Limiter)
		}
		b = rate.NewLimiter(rate.Limit(float64(n)/60), n)
		p.buckets[source] = b
	}
	return b.Allow()
}

// seldom thins out a log line, or work, to once in a time. The zero value is
// ready to use.
type seldom struct {
	mu   sync.Mutex
	next time.Time
}

func (s *seldom) due(every time.Duration) bool {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Before(s.next) {
		return false
	}
	s.next = now.Add(every)
	return true
}

func orDefault(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.Default()
	}
	return l
}
