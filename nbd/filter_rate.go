package nbd

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// RateLimit is a [Handler] that slows the devices of Handler down, so that each
// client gets no more than its share: requests wait, none is refused. All
// devices that a client has open draw on the same allowance, and reconnecting
// does not renew it. A wait ends with an error when the connection is cut. Its
// fields must not change while it serves.
type RateLimit struct {
	// Handler opens the devices.
	Handler Handler
	// Read and Write are how many bytes a client may read and write per
	// second, Requests how many requests it may make; 0 or less is no limit.
	// A Trim or Zero is a request, and no bytes; what a Cache has read ahead
	// counts as read.
	Read, Write, Requests int64
	// Burst is how many seconds' worth of each may pass at once after a time
	// of rest; 0 or less is 1.
	Burst float64
	// Key says which client a request is of; nil goes by its IP address.
	Key func(*Request) string

	mu      sync.Mutex
	clients map[string]*clientRate
	swept   time.Time
}

// clientRate is a client's allowance. A nil limiter does not limit.
type clientRate struct {
	read, write, requests *rate.Limiter
	open                  int
}

// OpenNBD opens the Handler's device, slowed down.
func (l *RateLimit) OpenNBD(ctx context.Context, r *Request) (Device, error) {
	dev, err := l.Handler.OpenNBD(ctx, r)
	if err != nil || dev == nil || r.Purpose == PurposeInfo {
		return dev, err
	}
	key := clientKey(r)
	if l.Key != nil {
		key = l.Key(r)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweep()
	c := l.clients[key]
	if c == nil {
		c = &clientRate{read: l.limiter(l.Read), write: l.limiter(l.Write), requests: l.limiter(l.Requests)}
		if l.clients == nil {
			l.clients = make(map[string]*clientRate)
		}
		l.clients[key] = c
	}
	c.open++
	return &filtered{Pass{dev}, &rateDevice{ctx: ctx, limits: l, client: c}}, nil
}

// ListNBD lists what the Handler lists.
func (l *RateLimit) ListNBD(ctx context.Context, r *Request) ([]ExportInfo, error) {
	return listOf(ctx, l.Handler, r)
}

func (l *RateLimit) burst() float64 {
	if l.Burst > 0 {
		return l.Burst
	}
	return 1
}

func (l *RateLimit) limiter(perSecond int64) *rate.Limiter {
	if perSecond <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(perSecond), int(min(max(float64(perSecond)*l.burst(), 1), 1<<30)))
}

// sweep forgets, now and then, the clients that are gone and whose allowance
// is whole again; l.mu is held.
func (l *RateLimit) sweep() {
	now := time.Now()
	if now.Sub(l.swept) < 10*time.Second {
		return
	}
	l.swept = now
	for key, c := range l.clients {
		if c.open == 0 && rested(c.read) && rested(c.write) && rested(c.requests) {
			delete(l.clients, key)
		}
	}
}

func rested(l *rate.Limiter) bool { return l == nil || l.Tokens() >= float64(l.Burst()) }

// rateDevice is one device of a client.
type rateDevice struct {
	ctx    context.Context // the connection's
	limits *RateLimit
	client *clientRate
	once   sync.Once
}

func (d *rateDevice) slow() bool { return true }

func (d *rateDevice) before(op Op, _, n int64) error {
	if err := wait(d.ctx, d.client.requests, 1); err != nil {
		return err
	}
	switch op {
	case OpRead, OpCache:
		return wait(d.ctx, d.client.read, n)
	case OpWrite:
		return wait(d.ctx, d.client.write, n)
	}
	return nil
}

// wait takes n from the limiter, in pieces that it can give at once.
func wait(ctx context.Context, l *rate.Limiter, n int64) error {
	if l == nil {
		return nil
	}
	for n > 0 {
		piece := min(n, int64(l.Burst()))
		if err := l.WaitN(ctx, int(piece)); err != nil {
			return err
		}
		n -= piece
	}
	return nil
}

func (d *rateDevice) after(Op, int64, time.Duration, error) {}

func (d *rateDevice) closed() {
	d.once.Do(func() {
		d.limits.mu.Lock()
		d.client.open--
		d.limits.mu.Unlock()
	})
}
