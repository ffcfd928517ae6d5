package nbd

import (
	"context"
	"sync"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// workers answer the requests of one connection whose device is slow, several
// at a time.
type workers struct {
	slots chan struct{} // one for each request that is worked on
	wg    sync.WaitGroup

	mu   sync.Mutex
	idle []*worker
}

// worker has a goroutine while it has a request. It is kept for the next one
// with what it has allocated.
type worker struct {
	replier
	run func() // w.work, made once

	r    command
	data *[readBufLen]byte // of a write
}

// streams says whether a request is worked on while it comes in: a long write
// would take much memory otherwise, and a wrong one is soon answered.
func (c *conn) streams(r command) bool {
	return r.typ == protocol.TRANSMISSION_TYPE_REQUEST_WRITE &&
		(r.length > readBufLen || c.writeError(r) != 0)
}

// delegate gives a request to a worker. It waits for one when all are busy.
// Nobody waits for a worker or a buffer while holding a buffer.
func (c *conn) delegate(r command) error {
	if err := c.flush(); err != nil {
		return err
	}
	var p []byte
	write := r.typ == protocol.TRANSMISSION_TYPE_REQUEST_WRITE
	if write {
		c.armed = false
		var err error
		if p, err = c.next(int(r.length)); err != nil {
			return err
		}
	}
	if c.workers == nil {
		c.workers = &workers{slots: make(chan struct{}, maxWorkers)}
	}
	select {
	case c.workers.slots <- struct{}{}:
	case <-c.ctx.Done():
		return context.Cause(c.ctx)
	}
	var data *[readBufLen]byte
	if write {
		if err := c.srv.budget.take(c.ctx, &c.share, readBufLen); err != nil {
			return err
		}
		var ok bool
		if data, ok = c.srv.bufs.read.Get().(*[readBufLen]byte); !ok {
			data = new([readBufLen]byte)
		}
		copy(data[:], p)
	}
	w := c.takeWorker()
	w.r, w.data = r, data
	c.workers.wg.Add(1)
	go w.run() // ends with the request: end waits for it
	return nil
}

func (c *conn) takeWorker() *worker {
	ws := c.workers
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if last := len(ws.idle) - 1; last >= 0 {
		w := ws.idle[last]
		ws.idle = ws.idle[:last]
		return w
	}
	w := &worker{replier: c.newReplier()}
	w.run = w.work
	w.out.send.init(c.rw)
	w.out.send.setTimeout(c.timeout)
	w.out.least, w.out.extra = smallBufLen, c.out.extra
	return w
}

// work answers one request.
func (w *worker) work() {
	ws := w.c.workers
	defer ws.wg.Done()
	err := w.answer()
	if err == nil {
		err = w.flush()
	}
	w.out.release()
	if err != nil {
		w.c.cut(err)
	}
	ws.mu.Lock()
	ws.idle = append(ws.idle, w)
	ws.mu.Unlock()
	<-ws.slots
}

func (w *worker) answer() error {
	if w.data == nil {
		return w.respond(w.r)
	}
	code := uint32(0)
	if w.r.length > 0 {
		if err := w.c.writeAt(w.data[:w.r.length], int64(w.r.offset)); err != nil {
			code = w.c.wireError(err, "write")
		} else {
			w.sums.written += uint64(w.r.length)
		}
	}
	// Before there is a buffer for the reply.
	w.c.srv.bufs.read.Put(w.data)
	w.c.srv.budget.give(&w.c.share, readBufLen)
	w.data = nil
	if code == 0 {
		code = w.c.persist(w.r)
	}
	return w.done(w.r, code)
}

// end waits for the requests that are being worked on to be answered, and
// returns what was counted.
func (ws *workers) end() (sums replySums) {
	ws.wg.Wait()
	for _, w := range ws.idle {
		sums.add(w.sums)
	}
	return sums
}

func (s *replySums) add(o replySums) {
	s.errors += o.errors
	s.read += o.read
	s.written += o.written
}
