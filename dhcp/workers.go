package dhcp

import (
	"context"
	"sync"
	"sync/atomic"
)

// datagram is one that was read. It has room for one byte more than is ever
// read, for decode to end the options.
type datagram struct {
	buf  [maxDatagram + 1]byte
	n    int
	from source
}

// maxIdle is how many workers stay when there is nothing to do: each has a
// stack that has grown to what a request takes, so that it need not grow again.
const maxIdle = 256

// workers handle the datagrams of one socket, each in a goroutine of its own
// for the time it takes, since handlers wait for disks and probes.
type workers struct {
	s    *Server
	ctx  context.Context
	sock *socket

	work  chan *datagram
	free  sync.Pool // of datagrams
	slots chan struct{}
	idle  atomic.Int32
	wg    sync.WaitGroup
}

func newWorkers(ctx context.Context, s *Server, sock *socket) *workers {
	w := &workers{s: s, ctx: ctx, sock: sock, work: make(chan *datagram), free: sync.Pool{New: func() any { return new(datagram) }}}
	if n := s.MaxInFlight; n >= 0 {
		if n == 0 {
			n = defaultInFlight
		}
		w.slots = make(chan struct{}, n)
	}
	return w
}

// give has the datagram handled; it waits while as many are at work as may be.
func (w *workers) give(d *datagram) {
	if w.slots != nil {
		w.slots <- struct{}{}
	}
	select {
	case w.work <- d:
	default:
		w.wg.Go(func() { w.run(d) }) // ends with close, or before when there are enough
	}
}

func (w *workers) run(d *datagram) {
	for d != nil {
		w.s.handle(w.ctx, w.sock, d.buf[:d.n+1], d.from)
		d.from = source{}
		w.free.Put(d)
		if w.slots != nil {
			<-w.slots
		}
		if w.idle.Add(1) > maxIdle {
			w.idle.Add(-1)
			return
		}
		d = <-w.work
		w.idle.Add(-1)
	}
}

// close returns when all that was given has been handled, and answered.
func (w *workers) close() {
	close(w.work)
	w.wg.Wait()
}
