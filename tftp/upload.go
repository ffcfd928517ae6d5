package tftp

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"runtime/debug"
	"time"
)

// Uploader is a [Handler] that takes files, too. Without one the server refuses
// all write requests.
type Uploader interface {
	Handler
	// CreateTFTP decides about a write request (RFC 1350 section 4). What is
	// said of errors at [Handler] is so here: [fs.ErrExist] is code 6 and
	// [syscall.ENOSPC] code 3 besides. r.UploadSize is the length that the client
	// announced, -1 when it did not.
	CreateTFTP(ctx context.Context, r *Request) (Upload, error)
}

// Upload is a file on its way from a client. The server calls its methods one
// after the other: Write with what came, in order, then Commit when that was
// all, and Close exactly once, whatever came of it.
type Upload interface {
	io.Writer
	// Commit makes the file permanent. The client hears of its success only
	// after that.
	Commit() error
	// Close releases the upload; one that was not committed is discarded.
	Close() error
}

// maxUploadWindow bounds, in bytes, what a client may send ahead.
const maxUploadWindow = 64 << 10

// dally is how long the end of an upload stays known, to repeat its last
// acknowledgement (RFC 1350 section 6).
const dally = time.Second

// upload is one file on its way here: the receiver of RFC 7440.
type upload struct {
	task
	link    link
	file    Upload
	w       io.Writer // file, perhaps behind a conversion
	opts    options
	timeout time.Duration
	longest time.Duration // wait
	retries int
	done    func(err error) // called once, with the loop's lock held

	last    []byte // what to repeat when nothing comes
	want    int64  // the next block
	buf     []byte // of the window
	count   int    // blocks in it
	gap     bool   // was acknowledged
	writing bool
	final   bool // the last block has come
	whole   bool // and is written
	n       int64
	seen    bool
	wait    time.Duration
	tries   int
	resent  int
	leaving error // ended while it was being written
}

func (u *upload) start(now instant) {
	u.want, u.wait = 1, u.timeout
	if u.last == nil {
		u.last = ackPacket(0)
	}
	u.send(now)
}

func (u *upload) send(now instant) {
	if _, err := u.link.send(u.last, len(u.last)); err == errRefused {
		u.refused(now)
		return
	}
	u.loop.arm(&u.task, now+u.wait)
}

func (u *upload) packet(now instant, b []byte) {
	if len(b) < 4 {
		return
	}
	switch arg := binary.BigEndian.Uint16(b[2:]); binary.BigEndian.Uint16(b) {
	case opERROR:
		switch {
		case u.whole:
			u.end(nil)
		case !u.writing:
			u.end(&Error{Code(arg), printable(cutNUL(b[4:]))})
		}
	case opDATA:
		u.data(now, arg, b[4:])
	}
}

func (u *upload) data(now instant, arg uint16, b []byte) {
	if u.writing || len(b) > u.opts.blksize {
		return
	}
	switch ahead := int16(arg - uint16(u.want)); {
	case ahead == -1 && u.count == 0 && u.want > 1: // the acknowledgement is lost
		u.resent++
		u.send(now)
		return
	case u.whole || ahead < 0:
		return
	case ahead > 0: // something is lost: the window begins there (RFC 7440 section 4)
		if !u.gap {
			u.gap = true
			u.write()
		}
		return
	}
	u.seen, u.gap, u.tries, u.wait = true, false, 0, u.timeout
	u.confirmed(now)
	u.buf = append(u.buf, b...)
	u.want++
	u.count++
	u.loop.arm(&u.task, now+u.wait)
	if u.final = len(b) < u.opts.blksize; u.final || u.count >= u.opts.window {
		u.write()
	}
}

// write hands over what has come, and acknowledges it after that.
func (u *upload) write() {
	u.writing, u.deadline = true, 0
	go func() { // ends with the handler's call; the request is counted until then
		err := u.store()
		u.loop.mu.Lock()
		defer u.loop.mu.Unlock()
		u.written(u.loop.now(), err)
	}()
}

func (u *upload) store() (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("tftp: taking the file panicked: %v\n%s", v, debug.Stack())
		}
	}()
	n, err := u.w.Write(u.buf)
	if err == nil && n < len(u.buf) {
		err = io.ErrShortWrite
	}
	if a, ok := u.w.(*fromNetascii); ok && err == nil && u.final {
		err = a.end()
	}
	if err == nil && u.final {
		err = u.file.Commit()
	}
	return err
}

func (u *upload) written(now instant, err error) {
	u.writing = false
	if err == nil && !u.final {
		err = u.leaving
	}
	if err != nil {
		u.abort(now, err)
		return
	}
	u.n += int64(len(u.buf))
	u.buf, u.count = u.buf[:0], 0
	u.last = ackPacket(uint16(u.want - 1))
	if u.whole = u.final; u.whole {
		u.wait = dally
	}
	u.send(now)
}

func (u *upload) expire(now instant) {
	if u.whole {
		u.end(nil)
		return
	}
	u.tries++
	switch {
	case !u.seen && u.tries > min(u.retries, 2):
		u.end(errUnseen)
		return
	case u.tries > u.retries:
		u.end(errGone)
		return
	}
	u.wait = min(2*u.wait, u.longest)
	if u.gap = false; u.count > 0 { // acknowledge what there is
		u.write()
		return
	}
	u.resent++
	u.send(now)
}

func (u *upload) resume(instant) {}
func (u *upload) answered() bool { return u.seen }
func (u *upload) unseen() bool   { return !u.seen && u.tries > 0 }
func (u *upload) drop(instant) {
	if u.seen {
		u.leave(errGone)
		return
	}
	u.leave(errUnseen)
}
func (u *upload) refused(instant) { u.leave(errRefused) }
func (u *upload) abort(_ instant, err error) {
	if !u.over && !u.whole && !u.writing {
		b := wireError(err).encode()
		_, _ = u.link.send(b, len(b))
	}
	u.leave(err)
}

// leave ends the upload, unless it is complete; one that is being written goes
// on until it can be ended.
func (u *upload) leave(err error) {
	switch {
	case u.whole:
		u.end(nil)
	case u.writing:
		u.leaving = err
	default:
		u.end(err)
	}
}

func (u *upload) end(err error) {
	if u.over {
		return
	}
	u.link.close()
	u.loop.remove(&u.task)
	u.done(err)
}

// take starts an upload, which the transport then drives.
func (x *exchange) take(file Upload, way link, fits int, on *loop) {
	granted := x.s.grant(x.q.opts, fits)
	u := &upload{link: way, file: file, w: file, opts: granted, last: granted.oack(), timeout: x.s.timeout(), retries: x.s.retries()}
	if u.opts.blksize == 0 {
		u.opts.blksize = defaultBlock
	}
	if u.opts.window != 0 {
		u.opts.window = max(1, min(u.opts.window, maxUploadWindow/u.opts.blksize))
		granted.window = u.opts.window
		u.last = granted.oack()
	} else {
		u.opts.window = 1
	}
	if granted.timeout != 0 {
		u.timeout = granted.timeout
	}
	u.longest = x.s.longest(u.timeout)
	if x.q.netascii {
		u.w = &fromNetascii{w: file}
	}
	x.res.Size, x.res.TSize, x.res.Timeout = max(0, x.r.UploadSize), granted.hasSize, granted.timeout
	x.res.BlockSize, x.res.WindowSize = u.opts.blksize, u.opts.window
	u.done = func(err error) { go x.taken(u, err) } // files may block
	x.start(on, way, &u.task, u)
}

// taken is the end of an upload.
func (x *exchange) taken(u *upload, err error) {
	if cerr := u.file.Close(); err == nil {
		err = cerr
	}
	x.res.Bytes, x.res.Resent = u.n, u.resent
	if err == nil {
		x.res.Size = u.n
	}
	x.end(err)
}
