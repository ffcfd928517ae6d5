package dhcp

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/seed-3ec230fa/diskless/dhcp/internal/inorder"
)

// datagram is one that was read. It has room for one byte more than is ever
// read, for decode to end the options.
type datagram struct {
	buf  [maxDatagram + 1]byte
	n    int
	from source

	machine [16]byte // its hardware address, or of its client identifier
}

// maxIdle is how many workers stay when there is nothing to do: each has a
// stack that has grown to what a request takes, so that it need not grow again.
const maxIdle = 256

// workers handle the datagrams of one socket, each in a goroutine of its own
// for the time it takes, since handlers wait for disks and probes. Those of
// one machine are handled in the order in which they came, one after another.
type workers struct {
	s    *Server
	ctx  context.Context
	sock *socket

	work  chan *datagram
	free  sync.Pool // of datagrams
	slots chan struct{}
	idle  atomic.Int32
	wg    sync.WaitGroup

	lines inorder.Lines[[16]byte, *datagram] // of each machine
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
	d.machine = machineKey(d.buf[:d.n])
	now, ok := w.lines.Enter(d.machine, d)
	if !ok {
		w.s.logger().Debug("dhcp: too many requests of one machine at a time, one is dropped", "peer", d.from.peer)
		w.done(d)
	}
	if !now {
		return
	}
	select {
	case w.work <- d:
	default:
		w.wg.Go(func() { w.run(d) }) // ends with close, or before when there are enough
	}
}

// machineKey tells the machines that messages come from apart before they are
// decoded: by the hardware address, or where the message has none by the end of
// its client identifier, which differs.
func machineKey(msg []byte) (key [16]byte) {
	if len(msg) < snameAt {
		return key
	}
	if msg[2] > 0 {
		copy(key[:], msg[28:snameAt])
		return key
	}
	for rest := msg[min(optionsAt, len(msg)):]; len(rest) >= 2 && rest[0] != dhcpv4.OptionEnd.Code(); {
		if rest[0] == dhcpv4.OptionPad.Code() {
			rest = rest[1:]
			continue
		}
		v := rest[2:]
		v = v[:min(int(rest[1]), len(v))]
		if rest[0] == dhcpv4.OptionClientIdentifier.Code() {
			copy(key[:], v[max(0, len(v)-len(key)):])
			return key
		}
		rest = rest[2+len(v):]
	}
	return key
}

// done gives back what the datagram took.
func (w *workers) done(d *datagram) {
	d.from = source{}
	w.free.Put(d)
	if w.slots != nil {
		<-w.slots
	}
}

func (w *workers) run(d *datagram) {
	for d != nil {
		w.s.handle(w.ctx, w.sock, d.buf[:d.n+1], d.from)
		next, more := w.lines.Leave(d.machine)
		w.done(d)
		if more {
			d = next
			continue
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
