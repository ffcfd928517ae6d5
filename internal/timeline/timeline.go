// Package timeline follows each machine through its boot: one event a stage,
// from the first DHCP packet to the opened root, logged as one line each and
// handed to whoever wants to follow.
package timeline

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// Who is the machine that an event belongs to, as far as it is known. Name is
// from the configuration; a machine nobody configured has only the rest.
type Who struct {
	Name string
	MAC  string
	Addr netip.Addr
}

// key is what ties the events of one machine together.
func (w Who) key() string {
	switch {
	case w.MAC != "":
		return w.MAC
	case w.Name != "":
		return w.Name
	default:
		return w.Addr.String()
	}
}

// Event is one stage that a machine has passed.
type Event struct {
	Who
	Time  time.Time
	Since time.Duration // since the first event of this boot
	Stage string        // "dhcp", "tftp", "http" or "nbd"
	What  string        // what it got there: an address, a file, an export
	Bytes int64
	Took  time.Duration
	Err   error
}

// Timeline collects events. Its methods may be called concurrently. The zero
// value is ready for use.
type Timeline struct {
	Logger  *slog.Logger     // nil: slog.Default()
	OnEvent func(Event)      // called for each event, one at a time
	Now     func() time.Time // nil: time.Now

	mu    sync.Mutex
	boots map[string]*boot
}

type boot struct {
	start, last time.Time
	rooted      bool
}

const (
	pause      = 5 * time.Minute // silence after which the next event is another boot
	maxTracked = 1 << 16         // machines; a stranger can invent hardware addresses
)

// Add records that a machine has passed a stage. Stage, What, Bytes, Took, Err
// and Who are the caller's; the times are filled in.
func (t *Timeline) Add(e Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e.Time = time.Now()
	if t.Now != nil {
		e.Time = t.Now()
	}
	b := t.boots[e.key()]
	// DHCP after the root was opened is a reboot, unless it is the booted
	// system renewing its address, which starts nothing new that matters.
	if b == nil || e.Time.Sub(b.last) > pause || (b.rooted && e.Stage == "dhcp") {
		if t.boots == nil || len(t.boots) >= maxTracked {
			t.boots = map[string]*boot{}
		}
		b = &boot{start: e.Time}
		t.boots[e.key()] = b
	}
	b.last = e.Time
	if e.Stage == "nbd" && e.Err == nil {
		b.rooted = true
	}
	e.Since = e.Time.Sub(b.start)
	t.log(e)
	if t.OnEvent != nil {
		t.OnEvent(e)
	}
}

func (t *Timeline) log(e Event) {
	logger := t.Logger
	if logger == nil {
		logger = slog.Default()
	}
	name := e.Name
	if name == "" {
		name = "unknown"
	}
	attrs := []slog.Attr{slog.String("machine", name), slog.String("stage", e.Stage), slog.String("what", e.What),
		slog.String("since", e.Since.Round(time.Millisecond).String())}
	if e.MAC != "" {
		attrs = append(attrs, slog.String("mac", e.MAC))
	}
	if e.Addr.IsValid() {
		attrs = append(attrs, slog.String("addr", e.Addr.String()))
	}
	if e.Bytes > 0 {
		attrs = append(attrs, slog.Int64("bytes", e.Bytes))
	}
	if e.Took > 0 {
		attrs = append(attrs, slog.String("took", e.Took.Round(time.Millisecond).String()))
	}
	level := slog.LevelInfo
	if e.Err != nil {
		level = slog.LevelWarn
		attrs = append(attrs, slog.String("err", e.Err.Error()))
	}
	logger.LogAttrs(context.Background(), level, "boot", attrs...)
}
