package tftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// transfer is one file on its way to one client. It is the engine's io.Reader
// for the file and decides about repetitions.
type transfer struct {
	ctx     context.Context // ends when the server is closed
	file    File
	size    int64
	q       rrq
	peer    netip.AddrPort // as the engine sees it: the client, or a relay
	block   int
	timeout time.Duration
	retries int
	key     string // stands for the file in the engine

	off     atomic.Int64 // read so far
	reading atomic.Bool  // the first block was asked for

	// The fields below are written before finished is closed.
	readErr  error // of the file
	err      error // of the transfer
	resent   int
	unsent   bool // the engine could not begin
	finished chan struct{}
}

// errRead is all that a client gets to know about a failing file.
var errRead = errors.New("read error, see the server's log")

// errGone ends a transfer whose client no longer answers.
var errGone = fmt.Errorf("tftp: the client stopped answering: %w", os.ErrDeadlineExceeded)

// Read gives the engine the next bytes. It fills p as far as the file goes, so
// that one call is one block.
func (t *transfer) Read(p []byte) (n int, err error) {
	defer func() {
		if v := recover(); v != nil {
			n, t.readErr, err = 0, fmt.Errorf("tftp: reading the file panicked: %v\n%s", v, debug.Stack()), errRead
		}
	}()
	t.reading.Store(true)
	if cause := context.Cause(t.ctx); cause != nil {
		t.readErr = cause
		return 0, errors.New(wireError(cause).Message)
	}
	off := t.off.Load()
	if off >= t.size {
		return 0, io.EOF
	}
	if left := t.size - off; int64(len(p)) > left {
		p = p[:left]
	}
	n, err = t.file.ReadAt(p, off)
	t.off.Add(int64(n))
	switch {
	case n == len(p):
		return n, nil
	case err == nil || err == io.EOF:
		// A short file must not look like a complete one to the client.
		err = io.ErrUnexpectedEOF
	}
	t.readErr = fmt.Errorf("tftp: reading %q at %d of %d: %w", t.q.name, off+int64(n), t.size, err)
	return 0, errRead
}

// progressed says whether the client is known to be there: it has acknowledged
// the options or the first block.
func (t *transfer) progressed() bool {
	if t.q.tsize || t.q.blksize != 0 {
		return t.reading.Load()
	}
	first := t.block
	if t.q.netascii {
		first += 256 // read ahead by the conversion
	}
	return t.off.Load() > int64(first)
}

// giveUp is what backoff throws. The engine has no other way to end a transfer
// that waits for its client; its deferred calls release everything, and send
// catches the value on the same goroutine.
type giveUp struct{ err error }

// backoff is called when a datagram stayed unanswered for the timeout, before
// it is sent again, and waits some more. attempt counts from 0.
func (t *transfer) backoff(attempt int) time.Duration {
	if cause := context.Cause(t.ctx); cause != nil {
		panic(giveUp{cause})
	}
	limit := t.retries
	if !t.progressed() {
		limit = min(limit, 2)
	}
	if attempt >= limit {
		panic(giveUp{errGone})
	}
	// The timeouts double: 1, 2, 4, 8, 8 ... times the first, of which the
	// engine itself has waited one.
	select {
	case <-time.After(t.timeout * (1<<min(attempt, 3) - 1)):
		t.resent++
		return 0
	case <-t.ctx.Done():
		panic(giveUp{context.Cause(t.ctx)})
	}
}

// send runs the engine's data path for this transfer.
func (t *transfer) send(rf io.ReaderFrom) {
	defer func() {
		switch v := recover().(type) {
		case nil:
		case giveUp:
			t.err = v.err
		default:
			t.err = fmt.Errorf("tftp: engine panicked: %v\n%s", v, debug.Stack())
		}
	}()
	_, t.err = rf.ReadFrom(t)
}

// outcome classifies the end of the transfer.
func (t *transfer) outcome() (err error, probe bool) {
	if t.readErr != nil {
		return t.readErr, false
	}
	if t.err == nil {
		return nil, false
	}
	if e := peerError(t.err); e != nil {
		// Firmware uses code 8 here, or 0: the block says what it meant.
		if t.q.tsize && !t.reading.Load() {
			return nil, true
		}
		return e, false
	}
	return t.err, false
}

// peerError finds in an error of the engine the ERROR packet that caused it;
// the engine only has a text for it. nil: there was none.
func peerError(err error) *Error {
	_, s, ok := strings.Cut(err.Error(), "code")
	if !ok || len(s) < 2 { // "code=8, error: text" in the server, "code: 8, message: text" in the client
		return nil
	}
	num, text, ok := strings.Cut(strings.TrimLeft(s, "=: "), ", ")
	_, text, ok2 := strings.Cut(text, ": ")
	code, err := strconv.ParseUint(num, 10, 16)
	if !ok || !ok2 || err != nil {
		return nil
	}
	return &Error{Code(code), printable(text)}
}
