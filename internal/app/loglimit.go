package app

import (
	"context"
	"log/slog"
	"sync"
	"unicode/utf8"

	"golang.org/x/time/rate"
)

// What a stranger does may be logged, but not so often that the log fills the
// disk: each message has its own allowance, a generous one for the lines of
// boots, a small one for warnings.
const (
	infoPerSecond, infoBurst = 500, 10000
	warnPerSecond, warnBurst = 10, 100
	maxLogMessages           = 256 // distinct texts; more share one allowance
	maxLogValue              = 256 // bytes of a value, which a client may have chosen
)

// LimitLog returns a handler that passes records on to h within limits, and
// says how many it has held back.
func LimitLog(h slog.Handler) slog.Handler {
	return &limitedLog{next: h, shared: &logBudget{by: map[string]*allowance{}}}
}

type limitedLog struct {
	next   slog.Handler
	shared *logBudget
}

type logBudget struct {
	mu sync.Mutex
	by map[string]*allowance
}

type allowance struct {
	*rate.Limiter
	held int64
}

// take reports whether a record may pass, and how many were held back before.
func (b *logBudget) take(r slog.Record) (held int64, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := r.Level.String() + r.Message
	a := b.by[key]
	if a == nil {
		if len(b.by) >= maxLogMessages {
			key = r.Level.String()
			a = b.by[key]
		}
		if a == nil {
			limiter := rate.NewLimiter(infoPerSecond, infoBurst)
			if r.Level >= slog.LevelWarn {
				limiter = rate.NewLimiter(warnPerSecond, warnBurst)
			}
			a = &allowance{Limiter: limiter}
			b.by[key] = a
		}
	}
	if !a.AllowN(r.Time, 1) {
		a.held++
		return 0, false
	}
	held, a.held = a.held, 0
	return held, true
}

// Enabled implements slog.Handler.
func (l *limitedLog) Enabled(ctx context.Context, level slog.Level) bool {
	return l.next.Enabled(ctx, level)
}

// Handle implements slog.Handler. Debug is for somebody who looks on.
func (l *limitedLog) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelInfo {
		return l.next.Handle(ctx, r)
	}
	held, ok := l.shared.take(r)
	if !ok {
		return nil
	}
	short := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		short.AddAttrs(shorten(a))
		return true
	})
	if held > 0 {
		short.AddAttrs(slog.Int64("unlogged", held))
	}
	return l.next.Handle(ctx, short)
}

func shorten(a slog.Attr) slog.Attr {
	v := a.Value.Resolve()
	if v.Kind() != slog.KindString && v.Kind() != slog.KindAny {
		return a
	}
	s := v.String()
	if len(s) <= maxLogValue {
		return a
	}
	s = s[:maxLogValue]
	for len(s) > 0 && !utf8.ValidString(s[len(s)-min(len(s), utf8.UTFMax):]) {
		s = s[:len(s)-1]
	}
	return slog.String(a.Key, s+"...")
}

// WithAttrs implements slog.Handler.
func (l *limitedLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &limitedLog{l.next.WithAttrs(attrs), l.shared}
}

// WithGroup implements slog.Handler.
func (l *limitedLog) WithGroup(name string) slog.Handler {
	return &limitedLog{l.next.WithGroup(name), l.shared}
}
