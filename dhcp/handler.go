package dhcp

import (
	"context"
	"errors"
	"io/fs"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// ErrDrop is what a [Handler] returns to keep silent: no reply is sent and no
// other handler is asked.
var ErrDrop = errors.New("dhcp: request dropped")

// ErrServerClosed is returned by [Server.Serve] and [Server.ListenAndServe]
// after [Server.Shutdown] or [Server.Close].
var ErrServerClosed = errors.New("dhcp: server closed")

// Handler decides what a client is told. The server calls it concurrently,
// also for one and the same client, and sends what it returns.
//
//   - A message is the reply. [NewReply] makes one to start from. The caller
//     of ServeDHCP owns the reply and may change it, which is how decorators
//     such as [BootPolicy] work.
//   - nil, nil and [fs.ErrNotExist] mean "not mine": [First] asks the next
//     handler, the server stays silent.
//   - [ErrDrop] is silence, and nobody else is asked.
//   - Any other error is a failure: nobody else is asked, the server stays
//     silent and logs it.
//
// The context is cancelled when the server is closed (not when it is shut
// down). The request is shared by all handlers that are asked; none changes it.
type Handler interface {
	ServeDHCP(ctx context.Context, r *Request) (*dhcpv4.DHCPv4, error)
}

// HandlerFunc makes a function a [Handler].
type HandlerFunc func(ctx context.Context, r *Request) (*dhcpv4.DHCPv4, error)

// ServeDHCP calls f.
func (f HandlerFunc) ServeDHCP(ctx context.Context, r *Request) (*dhcpv4.DHCPv4, error) {
	return f(ctx, r)
}

// First returns a handler that asks each of the handlers in turn; the first
// reply, or the first error other than [fs.ErrNotExist], is the answer.
func First(handlers ...Handler) Handler {
	return HandlerFunc(func(ctx context.Context, r *Request) (*dhcpv4.DHCPv4, error) {
		for _, h := range handlers {
			reply, err := h.ServeDHCP(ctx, r)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if reply != nil || err != nil {
				return reply, err
			}
		}
		return nil, nil
	})
}
