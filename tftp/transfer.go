package tftp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"syscall"
	"time"
)

const (
	// turn is how much a transfer sends before others get their turn.
	turn = 128 << 10
	// busyWait is how long a socket's full buffer gets to drain.
	busyWait = time.Millisecond
	// fullResends is how often in a row the whole window is repeated for a
	// client that is silent; after that, its first block has to do.
	fullResends = 3
)

// errRead is all that a client gets to know about a failing file.
var errRead = &Error{CodeUndefined, "read error, see the server's log"}

// errGone ends a transfer whose client no longer answers, errUnseen one whose
// client never did: perhaps a forged address.
var (
	errGone   = fmt.Errorf("tftp: the client stopped answering: %w", os.ErrDeadlineExceeded)
	errUnseen = fmt.Errorf("tftp: the client did not answer: %w", os.ErrDeadlineExceeded)
)

// Errors of a link.
var (
	errBusy    = errors.New("tftp: socket buffer full")
	errRefused = fmt.Errorf("tftp: the client closed its port: %w", syscall.ECONNREFUSED)
)

// link is the way to one client.
type link interface {
	// send sends b as datagrams of size bytes, the last one perhaps shorter,
	// and returns how many bytes are under way. errBusy and errRefused mean
	// what they say; what the network loses is no error.
	send(b []byte, size int) (int, error)
	// close gives up the link's socket or its place in one.
	close()
}

// transfer is one file on its way to one client: the sender of RFC 7440, which
// with a window of one block is that of RFC 1350.
type transfer struct {
	task
	link    link
	src     *source
	opts    options
	floor   time.Duration // of the time between repetitions
	timeout time.Duration
	longest time.Duration // wait
	retries int
	paces   []*pacer
	rtt     rtt
	done    func(err error) // called once, with the loop's lock held

	oack []byte   // until it is acknowledged
	seg  *segment // the one in use
	base int64    // the first block not acknowledged; blocks count from 1
	next int64    // the next one to be sent
	high int64    // the highest that was ever sent
	last int64    // the last of the file, as soon as that is known

	seen    bool          // the client has answered
	wait    time.Duration // for the acknowledgement; doubles
	tries   int           // repetitions that count for retries
	silent  int           // all repetitions since the last acknowledgement
	sentAt  instant       // the window
	clean   bool          // nothing in it is a repetition: fit for measuring
	held    bool          // the deadline is when sending may go on
	reading bool          // waits for a segment
	resent  int

	// A client may acknowledge every datagram that it did not expect, as EDK2
	// does, the repeated ones too.
	same      int     // acknowledgements of base-1 after the first
	partial   int     // those in a row that were for a part of the window
	chatty    bool    // it is one of those
	echoes    int     // acknowledgements that repeated datagrams may still cause
	echoUntil instant // and when that is over
}

// start sends the first datagrams. The loop's lock is held, as in all methods
// but filled.
func (t *transfer) start(now instant) {
	t.base, t.next, t.last = 1, 1, math.MaxInt64
	t.clean = true
	t.reset()
	if t.oack == nil {
		t.pump(now)
		return
	}
	t.sendOACK(now)
}

// reset begins to count a silence anew.
func (t *transfer) reset() {
	t.tries, t.silent = 0, 0
	t.wait = t.rtt.wait(t.floor, t.timeout)
	if t.retries == 0 {
		t.wait = t.timeout
	}
}

func (t *transfer) sendOACK(now instant) {
	if _, err := t.link.send(t.oack, len(t.oack)); err == errRefused {
		t.end(now, errUnseen)
		return
	}
	t.sentAt = now
	t.loop.arm(&t.task, now+t.wait)
}

// pump sends what the window allows.
func (t *transfer) pump(now instant) {
	t.deadline, t.held, t.reading = 0, false, false
	if t.next == t.base {
		t.sentAt = now
	}
	end := t.base + int64(t.opts.window)
	for budget := turn; t.next < end && t.next <= t.last; {
		if budget <= 0 {
			t.loop.later(&t.task)
			return
		}
		g := t.seg
		if g == nil || t.next < g.first || t.next >= g.first+g.blocks {
			if g = t.src.segment(t, t.next); g == nil {
				t.reading = true
				return
			}
			if !t.take(now, g) {
				return
			}
		}
		b := g.frames(t.next, min(end, g.first+g.blocks)-t.next)
		size := 4 + t.opts.blksize
		n, err := t.link.send(b, size)
		blocks := int64((n + size - 1) / size)
		t.next += blocks
		if again := int(min(t.next-1, t.high) - (t.next - 1 - blocks)); again > 0 {
			t.clean = false
			t.resent += again
			t.echoes += again
			t.echoUntil = now + 4*t.rtt.wait(t.floor, t.timeout)
		}
		t.high = max(t.high, t.next-1)
		switch {
		case err == errRefused:
			t.refused(now)
			return
		case err != nil: // the socket's buffer is full
			t.held = true
			t.loop.arm(&t.task, now+busyWait)
			return
		}
		budget -= n
		if len(t.paces) > 0 && t.slow(now, n) {
			return
		}
	}
	t.loop.arm(&t.task, now+t.wait)
}

// take makes g the segment in use. It is false when the file has failed.
func (t *transfer) take(now instant, g *segment) bool {
	t.seg = g
	t.src.cache.used(g)
	t.src.ahead(g)
	if g.final {
		t.last = g.first + g.blocks - 1
	}
	if g.err != nil && t.next >= g.first+g.blocks {
		t.fail(now, errRead, g.err)
		return false
	}
	return true
}

// slow puts the rest off when the client has had its share.
func (t *transfer) slow(now instant, n int) bool {
	var wait time.Duration
	for _, p := range t.paces {
		wait = max(wait, p.spend(now, n))
	}
	if wait <= 0 || t.next > t.last || t.next >= t.base+int64(t.opts.window) {
		// Nothing is left to hold back but the answer to the next
		// acknowledgement, which finds the account as it is.
		return false
	}
	t.held = true
	t.loop.arm(&t.task, now+wait)
	return true
}

// filled is called when a segment has been read that the transfer waited for.
func (t *transfer) filled(g *segment) {
	l := t.loop
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.over || !t.reading {
		return
	}
	now := l.now()
	t.reading = false
	if t.take(now, g) {
		t.pump(now)
	}
}

func (t *transfer) resume(now instant) { t.pump(now) }

func (t *transfer) packet(now instant, b []byte) {
	if len(b) < 4 {
		return
	}
	switch arg := binary.BigEndian.Uint16(b[2:]); binary.BigEndian.Uint16(b) {
	case opACK:
		t.ack(now, arg)
	case opERROR:
		t.end(now, &Error{Code(arg), printable(cutNUL(b[4:]))})
	}
}

// ack handles an acknowledgement. The number is that of the nearest block: 16
// bits begin again at 0.
func (t *transfer) ack(now instant, arg uint16) {
	if t.oack != nil {
		if arg != 0 {
			return
		}
		t.oack, t.seen = nil, true
		t.confirmed(now)
		if t.silent == 0 {
			t.rtt.sample(now - t.sentAt)
		}
		t.reset()
		t.pump(now)
		return
	}
	n := t.base - 1 + int64(int16(arg-uint16(t.base-1)))
	switch {
	case n > t.high || n < t.base-1:
		return // of the past, or of nobody
	case n == t.base-1:
		if t.same++; t.same > 1 && t.opts.window > 1 {
			t.chatty = true
		}
		if !t.echo(now) {
			t.again(now)
		}
		return
	}
	t.seen, t.same = true, 0
	t.confirmed(now)
	if t.clean && n == t.next-1 {
		t.rtt.sample(now - t.sentAt)
	}
	t.reset()
	if t.base = n + 1; n == t.last {
		t.end(now, nil)
		return
	}
	if t.partial++; n == t.next-1 {
		t.partial = 0
	}
	t.chatty = t.chatty || t.partial > 2
	if t.partial > 0 && t.echo(now) {
		t.clean = false
	} else {
		// A client that acknowledges less than was sent has lost what follows:
		// the window begins there (RFC 7440 section 4).
		t.next, t.clean = t.base, true
	}
	if t.reading { // it is on its way
		return
	}
	if wait := t.owed(now); wait > 0 {
		t.held = true
		t.loop.arm(&t.task, now+wait)
		return
	}
	t.pump(now)
}

// echo says that an acknowledgement can be a chatty client's word on a datagram
// that was repeated, which is no news of a loss: answering it would keep the
// repetitions going for ever. If a block is lost all the same, the wait for the
// client's acknowledgement tells.
func (t *transfer) echo(now instant) bool {
	if now >= t.echoUntil {
		t.echoes = 0
	}
	if !t.chatty || t.echoes == 0 {
		return false
	}
	t.echoes--
	return true
}

// owed is how long the client has to wait for the next window.
func (t *transfer) owed(now instant) (wait time.Duration) {
	for _, p := range t.paces {
		wait = max(wait, p.spend(now, 0))
	}
	return wait
}

// again handles a repeated acknowledgement. To answer each would double the
// traffic for the rest of the transfer (RFC 1123 section 4.2.3.1), so that a
// window is sent again only when the answer cannot be under way any more: for
// a gap at its beginning after half a round trip, at most once in that time;
// with a single block, when it is overdue.
func (t *transfer) again(now instant) {
	if t.reading || t.held || t.queued || t.next == t.base {
		return
	}
	patience := t.rtt.smooth / 2
	if t.opts.window == 1 || t.rtt.smooth == 0 {
		patience = t.rtt.wait(t.floor, t.timeout)
	}
	if !t.seen || now-t.sentAt < patience {
		return
	}
	t.next = t.base
	t.pump(now)
}

// expire is called when the acknowledgement is overdue, or sending may go on.
func (t *transfer) expire(now instant) {
	if t.held {
		t.pump(now)
		return
	}
	if t.reading {
		return
	}
	if !t.seen {
		t.tries++
		if t.tries > min(t.retries, 2) {
			t.end(now, errUnseen)
			return
		}
	} else if t.wait >= t.timeout {
		if t.tries++; t.tries > t.retries {
			t.end(now, errGone)
			return
		}
	}
	t.wait = min(2*t.wait, t.longest)
	t.silent++
	// Was it more than an echo, after all?
	t.chatty, t.same, t.partial = false, 0, 0
	if t.oack != nil {
		t.resent++
		t.sendOACK(now)
		return
	}
	if t.next = t.base; t.silent > fullResends {
		window := t.opts.window
		t.opts.window = 1
		t.pump(now)
		t.opts.window = window
		return
	}
	t.pump(now)
}

// refused is called when the client has closed its port. One that had nothing
// left to do but acknowledge the end has done so, and it was lost.
func (t *transfer) refused(now instant) {
	switch {
	case t.high >= t.last:
		t.end(now, nil)
	case t.seen:
		t.end(now, errRefused)
	default:
		t.end(now, errUnseen)
	}
}

// fail tells the client that it is over, and why as far as it may know.
func (t *transfer) fail(now instant, e *Error, err error) {
	b := e.encode()
	_, _ = t.link.send(b, len(b))
	t.end(now, err)
}

func (t *transfer) abort(now instant, err error) { t.fail(now, wireError(err), err) }

func (t *transfer) drop(now instant) {
	if t.seen {
		t.end(now, errGone)
		return
	}
	t.end(now, errUnseen)
}

func (t *transfer) end(_ instant, err error) {
	if t.over {
		return
	}
	t.link.close()
	t.loop.remove(&t.task)
	t.done(err)
}

// bytes is how much of the file has been sent.
func (t *transfer) bytes() int64 {
	return min(t.high*int64(t.opts.blksize), t.src.key.size)
}

func (t *transfer) answered() bool { return t.seen }
func (t *transfer) unseen() bool   { return !t.seen && t.silent > 0 }

func cutNUL(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
