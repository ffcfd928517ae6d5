package squash

import (
	"log/slog"
	"sync"
)

// report is the progress of a build, which several goroutines contribute to.
type report struct {
	call   func(Progress)
	logger *slog.Logger

	mu       sync.Mutex
	p        Progress
	clamped  string // the first name whose time did not fit
	dropped  string // the first extended attribute that could not be kept
	droppedX string
}

// note changes the progress and, now and then, tells of it.
func (r *report) note(change func(*Progress)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	entries := r.p.Entries
	change(&r.p)
	if r.call != nil && (r.p.Entries == entries || r.p.Entries%256 == 0) {
		r.call(r.p)
	}
}

func (r *report) clamp(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.p.ClampedTimes++; r.p.ClampedTimes == 1 {
		r.clamped = name
	}
}

func (r *report) dropXattr(name, attr string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.p.DroppedXattrs++; r.p.DroppedXattrs == 1 {
		r.dropped, r.droppedX = name, attr
	}
}

// warn tells an operator once of each kind of thing that was changed.
func (r *report) warn() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := r.p.ClampedTimes; n > 0 {
		r.logger.Warn("squash: modification times do not fit (1970 to 2106-02-07) and were moved", "files", n, "first", r.clamped)
	}
	if n := r.p.DroppedXattrs; n > 0 {
		r.logger.Warn("squash: extended attributes outside of user., trusted. and security. (POSIX ACLs among them) cannot be kept and were left out",
			"attributes", n, "first", r.droppedX, "file", r.dropped)
	}
	if n := r.p.OmittedSockets; n > 0 {
		r.logger.Warn("squash: sockets were left out", "sockets", n)
	}
}
