package dhcp6

import (
	"context"
	"sync"

	"github.com/seed-3ec230fa/diskless/dhcp/internal/inorder"
)

const defaultInFlight = 1024

// workers handle the requests of one socket, each in a goroutine of its own for
// the time it takes, since handlers wait for disks. Those of one client are
// handled in the order in which they came, one after another.
type workers struct {
	s    *Server
	ctx  context.Context
	sock *socket

	slots chan struct{} // nil for no limit
	lines inorder.Lines[string, received]
	wg    sync.WaitGroup
}

// received is a request, and where it came from.
type received struct {
	*Request
	from source
}

func newWorkers(s *Server, sock *socket) *workers {
	w := &workers{s: s, ctx: s.life.Context(), sock: sock}
	if n := s.MaxInFlight; n >= 0 {
		if n == 0 {
			n = defaultInFlight
		}
		w.slots = make(chan struct{}, n)
	}
	return w
}

// give has the request handled; it waits while as many are at work as may be.
func (w *workers) give(r received) {
	if w.slots != nil {
		w.slots <- struct{}{}
	}
	client := r.line()
	now, ok := w.lines.Enter(client, r)
	if !ok {
		w.s.logger().Debug("dhcp6: too many requests of one client at a time, one is dropped", "client", r.who(), "peer", r.Peer)
		w.done()
	}
	if now {
		w.wg.Go(func() { w.run(client, r) }) // ends with the last request of the client's that waits
	}
}

func (w *workers) run(client string, r received) {
	for more := true; more; r, more = w.lines.Leave(client) {
		w.s.handle(w.ctx, w.sock, r.Request, r.from)
		w.done()
	}
}

// done gives back what a request took.
func (w *workers) done() {
	if w.slots != nil {
		<-w.slots
	}
}

// line is what tells the client from others. As for leases that is its hardware
// address, which firmware and system have in common, or its DUID; and without
// either where it is.
func (r *Request) line() string {
	if hw := r.HardwareAddr(); hw != nil {
		return "mac=" + string(hw)
	}
	if id := r.DUID(); id != nil {
		return "duid=" + string(id)
	}
	return r.clientAddr().String() + " " + r.Peer.Addr().String()
}
