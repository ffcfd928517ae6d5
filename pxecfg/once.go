package pxecfg

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"time"
)

// DefaultGrace is how long the requests of one boot may last when [Once.Grace]
// is 0.
const DefaultGrace = time.Minute

// Once is a [Source] that lets each machine boot what Source says one time,
// such as an installation, and from then on what Then says.
//
// A boot is not one request: a loader asks for sizes first, comes back with
// another protocol, and tries again when a file did not load. All that a
// machine asks for within Grace is one boot; the request that comes later is
// the next one. That is known only to State, so a State that outlives the
// server makes the server's restart no reason to install again.
//
// A machine is who it says it is here. Whoever can ask for its name can use its
// boot up; see [Tree.KnownOnly].
//
// The methods may be called concurrently.
type Once struct {
	// Source is what boots once. A machine that it has nothing for is not
	// Once's.
	Source Source
	// Then is what boots afterwards. nil means [LocalDisk].
	Then Source
	// State remembers who has booted. nil means one of this Once in memory.
	State BootState
	// Grace is how long a boot's requests last. 0 means [DefaultGrace]; a
	// negative value ends a boot by Done only.
	Grace time.Duration

	memory BootMemory
}

// BootState remembers when machines began the boot that they had. All methods
// may be called concurrently.
type BootState interface {
	// Begin returns when the machine's boot began: now, if it had not begun.
	// It is called before the machine is told anything, so that what was not
	// written down did not happen.
	Begin(ctx context.Context, machine string, now time.Time) (time.Time, error)
	// Begun returns when the boot began, and false if it did not.
	Begun(ctx context.Context, machine string) (time.Time, bool, error)
	// Set writes down that it began at that time, which is the zero time for
	// one that is over; Reset, that it did not begin.
	Set(ctx context.Context, machine string, began time.Time) error
	Reset(ctx context.Context, machine string) error
}

// Config implements [Source].
func (o *Once) Config(ctx context.Context, c Client) (*Config, error) {
	look, l := childLook(ctx)
	cfg, err := ask(look, o.Source, c)
	if err != nil {
		return nil, err
	}
	key := bootKey(c)
	if key == "" {
		lookOf(ctx).match("once, and the machine cannot be told from others")
		return o.then(ctx, c, cfg.Fallback)
	}
	began, begun, err := o.begin(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("whether %s has booted: %w", c, err)
	}
	switch {
	case !begun:
		lookOf(ctx).match("once, and not yet")
	case !o.over(began):
		lookOf(ctx).match("once, which is now")
	case began.IsZero():
		lookOf(ctx).match("once, which is done")
		return o.then(ctx, c, cfg.Fallback)
	default:
		lookOf(ctx).match("once, which was at " + began.UTC().Format(time.RFC3339))
		return o.then(ctx, c, cfg.Fallback)
	}
	lookOf(ctx).take(l)
	return cfg, nil
}

// begin returns the time of the boot, which begins unless somebody only looks.
func (o *Once) begin(ctx context.Context, key string) (time.Time, bool, error) {
	if isLook(ctx) {
		return o.state().Begun(ctx, key)
	}
	began, err := o.state().Begin(ctx, key, time.Now())
	return began, true, err
}

func (o *Once) over(began time.Time) bool {
	grace := o.Grace
	if grace == 0 {
		grace = DefaultGrace
	}
	return began.IsZero() || grace > 0 && time.Since(began) >= grace
}

// then answers for those whose boot is over; if that was a fallback, so is this.
func (o *Once) then(ctx context.Context, c Client, fallback bool) (*Config, error) {
	cfg, err := LocalDisk(), error(nil)
	if o.Then != nil {
		cfg, err = ask(ctx, o.Then, c)
	}
	if err == nil && fallback {
		cfg = cfg.asFallback()
	}
	return cfg, err
}

// Done ends a machine's boot: its next request gets Then, also within Grace.
func (o *Once) Done(ctx context.Context, c Client) error {
	if key := bootKey(c); key != "" {
		return o.state().Set(ctx, key, time.Time{})
	}
	return nil
}

// Again lets a machine boot once more.
func (o *Once) Again(ctx context.Context, c Client) error {
	if key := bootKey(c); key != "" {
		return o.state().Reset(ctx, key)
	}
	return nil
}

func (o *Once) state() BootState {
	if o.State != nil {
		return o.State
	}
	return &o.memory
}

// bootKey is what a machine is remembered by: the best that is known of it. A
// loader shows the same each time.
func bootKey(c Client) string {
	switch {
	case len(c.MAC) > 0:
		return "mac-" + c.MAC.String()
	case c.UUID != "":
		return "uuid-" + uuidKey(c.UUID)
	case c.IP.IsValid():
		return "ip-" + c.IP.Unmap().String()
	}
	return ""
}

// BootMemory is a [BootState] in memory. The zero value is ready for use.
type BootMemory struct {
	// Max is how many machines are remembered. One more is an error
	// (ENOSPC), since forgetting one would let it boot again. 0 means 65536,
	// -1 no limit.
	Max int

	mu    sync.Mutex
	began map[string]time.Time
}

// Begin implements [BootState].
func (m *BootMemory) Begin(_ context.Context, machine string, now time.Time) (time.Time, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if t, ok := m.began[machine]; ok {
		return t, nil
	}
	return now, m.set(machine, now)
}

// Begun implements [BootState].
func (m *BootMemory) Begun(_ context.Context, machine string) (time.Time, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, ok := m.began[machine]
	return t, ok, nil
}

// Set implements [BootState].
func (m *BootMemory) Set(_ context.Context, machine string, began time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.set(machine, began)
}

func (m *BootMemory) set(machine string, began time.Time) error {
	limit := m.Max
	if limit == 0 {
		limit = 1 << 16
	}
	if _, ok := m.began[machine]; !ok && limit > 0 && len(m.began) >= limit {
		return fmt.Errorf("%d machines are remembered already: raise Max or reset some: %w", limit, syscall.ENOSPC)
	}
	if m.began == nil {
		m.began = make(map[string]time.Time)
	}
	m.began[machine] = began
	return nil
}

// Reset implements [BootState].
func (m *BootMemory) Reset(_ context.Context, machine string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.began, machine)
	return nil
}
