package nbd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Kind says what a boot does to a root.
type Kind int

const (
	// Ephemeral roots are fresh on each boot, on the newest generation of
	// their image.
	Ephemeral Kind = iota
	// Kept roots stay, with their data and on the generation they began with,
	// until they are reset, committed, rebased or deleted.
	Kept
)

// String returns "ephemeral" or "kept".
func (k Kind) String() string {
	if k == Kept {
		return "kept"
	}
	return "ephemeral"
}

// MarshalText implements [encoding.TextMarshaler].
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (k *Kind) UnmarshalText(text []byte) error {
	switch string(text) {
	case "ephemeral":
		*k = Ephemeral
	case "kept":
		*k = Kept
	default:
		return fmt.Errorf("nbd: %q is no kind of root, \"ephemeral\" and \"kept\" are: %w", text, fs.ErrInvalid)
	}
	return nil
}

// ErrFenced is in the error of every operation and every opening of a boot
// whose root has been taken by a newer boot, reset or deleted. A refused
// opening wraps [fs.ErrPermission] too.
var ErrFenced = errors.New("a newer boot or a reset has taken this root")

// Roots keeps named, writable roots over shared images: one [Overlay] each,
// owned by one boot of one machine at a time.
//
// [Roots.Boot], called when a machine's boot configuration is rendered, gives
// the export name with the exact generation, the root and a token for this
// boot. The token stays the same until a device has been opened with it, so
// that a size probe, a retry or an administrator's look changes nothing; the
// next call then mints the next one.
//
// As a [Handler] Roots serves
//
//   - IMAGE~GENERATION@ROOT.TOKEN, for the boot that the token belongs to. The
//     first opening with a newer token fences the older boot off: its
//     operations in flight end, all later ones fail, its connections are cut,
//     and only then does the newer boot get the root, clean when it is
//     ephemeral and as it was when it is kept. From then on older tokens are
//     refused. The same token gets the same overlay over any number of
//     connections and reconnects and, with Dir set, over restarts;
//   - IMAGE@ROOT, the root as it is, for maintenance and for machines whose
//     configuration is static: the root must exist, and is refused while a
//     boot or another client's address has it open. Clients without an address
//     (Unix sockets) count as one. A boot that was cut off and comes back is
//     refused while such a connection is open; a newer boot fences it. Nothing
//     here can know that a machine without a connection is off: who writes
//     must;
//   - IMAGE and IMAGE~GENERATION, as [Images] does.
//
// A token is a sequence number and a MAC over it, the image, the generation,
// the root and the kind: it cannot be guessed, moved to another root, or used
// to turn a kept root into an ephemeral one.
//
// With Dir set everything is in plain files, and what a machine has flushed
// survives a loss of power. What it has not flushed survives a server that is
// killed, as long as the host stays up (Linux): the machine reconnects and goes
// on. When the host restarts, those writes may be gone, and a machine that still
// runs must not go on beneath them: a boot that has written, and whose
// connections had not ended before, is refused with [fs.ErrPermission] then,
// which a Warn tells; its machine's next boot finds what was flushed. A machine
// that opens IMAGE@ROOT without a token is let in: nothing says that it is not
// a new boot.
//
// The files:
//
//	secret                 the key of the tokens, mode 0600; replicas may share it
//	deleted.json           the newest token of all deleted and renamed roots
//	images/GENERATION.img  hard links that keep generations in use
//	roots/ROOT/root.json   image, generation, kind, newest token opened
//	roots/ROOT/TOKEN/      the overlay that began with that boot: data, map, and,
//	                       while it is written to, live, and then live.old
//	layers/ID/             overlays that Clone froze: several roots are over them
//
// For the hard links the images must be in the same file system as Dir, and be
// owned by (or writable for) the server's user. Where they are not, replacing
// an image and restarting the server leaves its kept roots without their base:
// they are refused until the old image is published again. A warning says so
// when such a root is made. An ephemeral root keeps its link until the next
// boot, too.
//
// All methods may be called concurrently.
type Roots struct {
	// Images has the images under the roots. It must be set, and stay open
	// for as long as Roots is in use.
	Images *Images
	// Dir is the directory for state and overlays, made when it is missing.
	// "" keeps everything in memory: a restart then ends all roots, and the
	// tokens of boots before it are refused.
	Dir string
	// Quota limits the bytes stored per overlay; a machine that needs more
	// gets ENOSPC. 0 is 1 GiB in memory and no limit in Dir, -1 no limit.
	Quota int64
	// MaxRoots limits how many roots there may be, those of boots that never
	// opened a device included. 0 is 4096, -1 no limit.
	MaxRoots int
	// PendingFor is how long a token that was not opened stays on its
	// generation after a newer one was published. 0 is 10 minutes, -1 moves
	// it at once.
	PendingFor time.Duration
	// Logger gets a Warn for what an operator must see, Info for fencing and
	// Debug per token and opening. nil is slog.Default().
	Logger *slog.Logger
	// Trace is called at the stages of a boot.
	Trace *RootsTrace
	// Now is the clock of tokens and records. nil is time.Now.
	Now func() time.Time

	disk disk

	loadMu sync.Mutex
	loaded bool
	closed bool
	lock   *os.File
	secret []byte

	mu    sync.Mutex
	roots map[string]*root
	pins  map[string]int // users of each digest
	floor int64          // tokens up to here open only roots that exist
	bad   bool           // a root could not be read: no link is removed, it may need it

	loadedAt  time.Time
	layerMu   sync.Mutex
	layers    map[string]*layer // open ones
	layerRefs map[string]int    // roots that are over each
}

// RootsTrace has hooks for the stages of a boot; any may be nil. They are
// called synchronously, possibly at the same time, and must not call Roots.
type RootsTrace struct {
	// Minted is called when Boot made a new token.
	Minted func(n Name, k Kind)
	// Opened is called when a device was opened on a root. first: it is the
	// first of a boot, and fresh: the root began clean with it. Both are
	// false for further connections and for those without a token.
	Opened func(n Name, client netip.AddrPort, first, fresh bool)
	// Fenced is called when a root was taken from whoever had connections to
	// it; they are cut right after.
	Fenced func(root string, connections int, cause error)
	// Changed is called when a command was done to a root: "created",
	// "cloned", "renamed", "rebased", "committed", "attached", "reset",
	// "deleted" or "expired".
	Changed func(root, what string)
}

// root is one root. Its lock is a channel, so that waiting for it ends with
// the context.
type root struct {
	name string
	sem  chan struct{}

	// shown is state as it was when sem was last given back; nil: the root is
	// empty or cannot be used.
	shown atomic.Pointer[rootState]

	// Guarded by sem.
	gone    bool      // not in Roots.roots any more
	bad     error     // its files cannot be used
	state   rootState // Image is "" before the first opening
	minted  int64     // the newest token
	pending *pendingBoot
	base    *imageFile
	overlay *Overlay
	holder  *rootHolder
	used    time.Time // when connections were last fenced
}

type pendingBoot struct {
	name   Name
	kind   Kind
	digest string
	seq    int64
	at     time.Time
}

func (rs *Roots) logger() *slog.Logger {
	if rs.Logger != nil {
		return rs.Logger
	}
	return slog.Default()
}

func (rs *Roots) now() time.Time {
	if rs.Now != nil {
		return rs.Now()
	}
	return time.Now()
}

func (r *root) lock(ctx context.Context) error {
	select {
	case r.sem <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

var errRootsClosed = fmt.Errorf("nbd: roots: %w", fs.ErrClosed)

// get returns a root, locked. The caller must call put.
func (rs *Roots) get(ctx context.Context, name string, create bool) (*root, error) {
	for {
		rs.mu.Lock()
		if rs.roots == nil {
			rs.mu.Unlock()
			return nil, errRootsClosed
		}
		r := rs.roots[name]
		if r == nil && create {
			if len(rs.roots) >= limit(rs.MaxRoots, 4096, math.MaxInt) && !rs.evict() {
				rs.mu.Unlock()
				return nil, fmt.Errorf("nbd: root %s: there are %d roots already: delete some or raise the limit: %w", name, len(rs.roots), syscall.ENOSPC)
			}
			r = &root{name: name, sem: make(chan struct{}, 1)}
			rs.roots[name] = r
		}
		rs.mu.Unlock()
		if r == nil {
			return nil, fmt.Errorf("nbd: no root %q: boot its machine once: %w", name, fs.ErrNotExist)
		}
		if err := r.lock(ctx); err != nil {
			return nil, err
		}
		if !r.gone {
			return r, nil
		}
		<-r.sem
	}
}

// put unlocks a root, and forgets it when there is nothing to remember.
func (rs *Roots) put(r *root) {
	if !r.gone && r.bad == nil && r.state.Image == "" && r.pending == nil {
		rs.mu.Lock()
		rs.forget(r)
		rs.mu.Unlock()
	}
	r.show()
	<-r.sem
}

// show lets others see the state that a root is left in.
func (r *root) show() {
	if r.bad != nil || r.state.Generation == "" {
		r.shown.Store(nil)
		return
	}
	state := r.state
	r.shown.Store(&state)
}

func (rs *Roots) forget(r *root) {
	r.gone = true
	delete(rs.roots, r.name)
}

// evict forgets a root whose boot never came. rs.mu is held, so it takes only
// what is not locked.
func (rs *Roots) evict() bool {
	for _, r := range rs.roots {
		select {
		case r.sem <- struct{}{}:
		default:
			continue
		}
		stale := r.bad == nil && r.state.Image == "" && (r.pending == nil || rs.now().Sub(r.pending.at) > rs.pendingFor())
		if stale {
			if r.pending != nil {
				rs.unpinLocked(r.pending.digest)
			}
			rs.forget(r)
		}
		<-r.sem
		if stale {
			return true
		}
	}
	return false
}

func (rs *Roots) pendingFor() time.Duration { return limit(rs.PendingFor, 10*time.Minute, 0) }

// Boot returns the export name for the next boot of a root: the pending one
// when no device was opened with it yet, a new one otherwise. A pending boot
// stays on its generation for PendingFor after a newer one was published, so
// that a machine gets one and the same through all stages of its boot.
//
// Before the first opening nothing is made on disk but the image's link.
// Errors: [fs.ErrInvalid]
// for names that cannot be; [fs.ErrNotExist] when there is no such image, or
// the generation of a kept root is gone; [fs.ErrPermission] when the root is
// kept and kind is Ephemeral, or the kept root is over another image: reset or
// delete it first, Boot never destroys kept data; [syscall.ENOSPC] when there
// are too many roots.
func (rs *Roots) Boot(ctx context.Context, image, rootName string, kind Kind) (Name, error) {
	n := Name{Image: image, Root: rootName}
	if err := n.Valid(); err != nil {
		return Name{}, err
	}
	if rootName == "" {
		return Name{}, nameError(n.String(), "a boot needs a root")
	}
	if err := rs.load(); err != nil {
		return Name{}, err
	}
	r, err := rs.get(ctx, rootName, true)
	if err != nil {
		return Name{}, err
	}
	defer rs.put(r)
	if r.bad != nil {
		return Name{}, r.bad
	}
	var base *imageFile
	if r.state.kept() {
		if err := r.state.conflict(rootName, image, kind); err != nil {
			return Name{}, err
		}
		base, err = rs.acquireBase(ctx, image, r.state.Generation)
	} else {
		base, err = rs.Images.current(ctx, image)
	}
	if err != nil {
		return Name{}, err
	}
	defer base.release()
	if p := r.pending; p != nil && p.kind == kind && p.name.Image == image {
		if p.digest == base.digest {
			return p.name, nil
		}
		if rs.now().Sub(p.at) < rs.pendingFor() && !r.state.kept() {
			if former, err := rs.acquireBase(ctx, image, p.digest); err == nil {
				former.release()
				return p.name, nil
			}
		}
	}
	return rs.mint(r, n, kind, base), nil
}

// mint makes the next token the pending one. The generation is linked already
// now, because at the opening its file may have lost its name.
func (rs *Roots) mint(r *root, n Name, kind Kind, base *imageFile) Name {
	if err := rs.pin(base); err != nil {
		rs.logger().Debug("nbd: image cannot be linked", "root", r.name, "err", err)
	}
	rs.dropPending(r)
	rs.nextSeq(r)
	n.Generation = base.generation()
	n.Boot = makeToken(rs.secret, n, kind, r.minted)
	r.pending = &pendingBoot{name: n, kind: kind, digest: base.digest, seq: r.minted, at: rs.now()}
	rs.logger().Debug("nbd: boot token minted", "root", r.name, "kind", kind, "image", n.Image, "generation", n.Generation)
	if t := rs.Trace; t != nil && t.Minted != nil {
		t.Minted(n, kind)
	}
	return n
}

// nextSeq takes a sequence number above all that were given out for the root,
// and above the floor.
func (rs *Roots) nextSeq(r *root) int64 {
	rs.mu.Lock()
	floor := rs.floor
	rs.mu.Unlock()
	r.minted = max(rs.now().UnixMilli(), r.minted+1, r.state.opened()+1, floor+1)
	return r.minted
}

func (rs *Roots) dropPending(r *root) {
	if r.pending != nil {
		rs.unpin(r.pending.digest)
		r.pending = nil
	}
}
