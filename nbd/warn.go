package nbd

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"sync"
	"time"
)

const (
	warnPause = time.Second
	maxCauses = 256
)

// cause is what a warning is about: of one cause there is one in a second.
type cause struct {
	msg    string
	client netip.Addr // of a limit that all share, none
	export string
}

// warnings remembers which causes were warned of lately. More than maxCauses in
// a second, which a client can make up, share one.
type warnings struct {
	mu   sync.Mutex
	last map[cause]time.Time
}

func (w *warnings) may(c cause, now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, known := w.last[c]; !known && len(w.last) >= maxCauses {
		maps.DeleteFunc(w.last, func(_ cause, t time.Time) bool { return now.Sub(t) >= warnPause })
		if len(w.last) >= maxCauses {
			c = cause{}
		}
	}
	if t, known := w.last[c]; known && now.Sub(t) < warnPause {
		return false
	}
	if w.last == nil {
		w.last = make(map[cause]time.Time)
	}
	w.last[c] = now
	return true
}

// warn tells the operator, but not as often as a flood of connections would
// like: the rest is at level Debug.
func (s *Server) warn(c cause, args ...any) {
	level := slog.LevelDebug
	if s.warned.may(c, time.Now()) {
		level = slog.LevelWarn
	}
	s.log().Log(context.Background(), level, c.msg, args...)
}
