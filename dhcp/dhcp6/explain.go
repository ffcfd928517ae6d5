package dhcp6

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/insomniacslk/dhcp/dhcpv6"
)

// trail collects what [Explain] wants to know.
type trail struct{ steps []string }

// dry reports whether nothing may change on account of the request.
func (r *Request) dry() bool { return r.trail != nil }

// Note adds a line to the explanation of the request, if [Explain] is asking
// for one.
func (r *Request) Note(format string, args ...any) {
	if r.trail != nil {
		r.trail.steps = append(r.trail.steps, fmt.Sprintf(format, args...))
	}
}

// Explanation is what a handler would do with a request, and why.
type Explanation struct {
	// Steps are the decisions in their order, one sentence each.
	Steps []string
	// Reply is what would be sent, nil for silence.
	Reply *dhcpv6.Message
	// Err is why there is no reply, nil when no handler took the request.
	Err error
}

// Explain asks the handler about a request without any effect: no lease is
// made. The handlers of this package tell which rule decided what. r is not
// changed.
func Explain(ctx context.Context, h Handler, r *Request) Explanation {
	asked := *r
	asked.trail = new(trail)
	arch := "no architecture"
	if a, ok := r.Arch(); ok {
		arch = fmt.Sprintf("architecture %d (%v)", uint16(a), a)
	}
	asked.Note("%v of %v: platform %q, %s", r.MessageType, r.who(), r.Platform(), arch)
	reply, err := h.ServeDHCP(ctx, &asked)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	switch {
	case err != nil:
		asked.Note("no reply: %v", err)
	case reply == nil:
		asked.Note("no reply: nobody took the request")
	default:
		asked.Note("reply %v", reply.MessageType)
	}
	return Explanation{Steps: asked.trail.steps, Reply: reply, Err: err}
}

// who names the client for people.
func (r *Request) who() string {
	if hw := r.HardwareAddr(); hw != nil {
		return hw.String()
	}
	return fmt.Sprintf("duid %x", r.DUID())
}
