package tftp

import (
	"sync"
	"time"
)

// burst is how much of a rate may be spent at once.
const burst = 50 * time.Millisecond

// pacer bounds a rate. It counts what has been sent, and tells how long to
// wait before more is.
type pacer struct {
	mu   sync.Mutex
	rate int64   // bytes per second
	paid instant // until when all that was sent is covered
}

func (p *pacer) spend(now instant, n int) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paid = max(p.paid, now) + time.Duration(float64(n)/float64(p.rate)*float64(time.Second))
	return p.paid - now - burst
}

// newPacer returns nil for a limit field that means no limit.
func newPacer(rate int64) *pacer {
	if rate <= 0 {
		return nil
	}
	return &pacer{rate: rate}
}
