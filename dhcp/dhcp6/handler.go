package dhcp6

import (
	"context"
	"errors"
	"io/fs"

	"github.com/insomniacslk/dhcp/dhcpv6"
)

// ErrServerClosed is returned by [Server.Serve] and [Server.ListenAndServe]
// after [Server.Shutdown] or [Server.Close].
var ErrServerClosed = errors.New("dhcp6: server closed")

// Handler decides what a client is told. The server calls it concurrently,
// also for one and the same client, and sends what it returns.
//
//   - A message is the reply. [NewReply] makes one to start from. The caller
//     owns it and may change it, which is how decorators work.
//   - nil, nil and [fs.ErrNotExist] mean "not mine": [First] asks the next.
//   - [dhcp.ErrDrop] is silence, and nobody else is asked.
//   - Any other error is a failure: the server stays silent and logs it.
//
// The context is cancelled when the server is closed (not when it is shut
// down). The request is shared by all handlers that are asked; none changes it.
type Handler interface {
	ServeDHCP(ctx context.Context, r *Request) (*dhcpv6.Message, error)
}

// HandlerFunc makes a function a [Handler].
type HandlerFunc func(ctx context.Context, r *Request) (*dhcpv6.Message, error)

// ServeDHCP calls f.
func (f HandlerFunc) ServeDHCP(ctx context.Context, r *Request) (*dhcpv6.Message, error) {
	return f(ctx, r)
}

// First returns a handler that asks each of the handlers in turn; the first
// reply, or the first error other than [fs.ErrNotExist], is the answer.
func First(handlers ...Handler) Handler {
	return HandlerFunc(func(ctx context.Context, r *Request) (*dhcpv6.Message, error) {
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

// NewReply returns an empty answer to r: its transaction and, as RFC 8415
// section 16 has it, the client's identifier beside the server's.
func NewReply(r *Request, t dhcpv6.MessageType, serverID dhcpv6.DUID) *dhcpv6.Message {
	m := &dhcpv6.Message{MessageType: t, TransactionID: r.TransactionID}
	if id := r.Options.GetOne(dhcpv6.OptionClientID); id != nil {
		m.AddOption(id)
	}
	if serverID != nil {
		m.AddOption(dhcpv6.OptServerID(serverID))
	}
	return m
}
