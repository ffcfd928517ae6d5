package dhcp

import (
	"net"
	"net/netip"
	"runtime"
	"sync"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// outgoing is a reply on its way.
type outgoing struct {
	s       *Server
	request *Request
	reply   *dhcpv4.DHCPv4
	from    source // of the request

	data []byte
	to   netip.AddrPort
	// hw, when it is set, is the client that to is the address of, but which
	// does not have that address yet.
	hw net.HardwareAddr
}

// replier sends a reply to where it belongs, and says so by its method sent: a
// socket, or a test.
type replier interface {
	send(o outgoing)
}

// maxQueued bounds the replies that wait for the socket.
const maxQueued = 1024

// outbox collects replies, so that those that are ready at the same time are
// sent by one call. Whoever comes first sends for all. The zero value is ready
// to use.
type outbox struct {
	mu    sync.Mutex
	room  sync.Cond // for more, when it is full; L is set by whoever waits
	queue []outgoing
	spare []outgoing
	busy  bool
}

// put adds a reply. It returns when write was called with it, or somebody else
// will do so before his put returns.
func (b *outbox) put(o outgoing, write func([]outgoing)) {
	b.mu.Lock()
	for b.busy && len(b.queue) >= maxQueued {
		b.room.L = &b.mu
		b.room.Wait()
	}
	b.queue = append(b.queue, o)
	if b.busy {
		b.mu.Unlock()
		return
	}
	b.busy = true
	b.mu.Unlock()
	runtime.Gosched() // for the others of the batch that was read together
	for {
		b.mu.Lock()
		list := b.queue
		b.queue, b.spare = b.spare[:0], nil
		b.busy = len(list) > 0
		b.room.Broadcast()
		b.mu.Unlock()
		if len(list) == 0 {
			return
		}
		write(list)
		clear(list)
		if cap(list) <= maxQueued {
			b.spare = list
		}
	}
}
