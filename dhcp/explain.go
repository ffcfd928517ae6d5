package dhcp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// trail collects what [Explain] wants to know.
type trail struct{ steps []string }

// dry reports whether nothing may change on account of the request.
func (r *Request) dry() bool { return r.trail != nil }

// notef takes down a decision for [Explain]. It costs next to nothing when
// nobody asked for one.
func (r *Request) notef(format string, args ...any) {
	if r.trail != nil {
		r.trail.steps = append(r.trail.steps, fmt.Sprintf(format, args...))
	}
}

// Note adds a line to the explanation of the request, if [Explain] is asking
// for one: for handlers outside of this package.
func (r *Request) Note(format string, args ...any) { r.notef(format, args...) }

// Explanation is what a handler would do with a request, and why.
type Explanation struct {
	// Steps are the decisions in their order, one sentence each.
	Steps []string
	// Reply is what would be sent, nil for silence.
	Reply *dhcpv4.DHCPv4
	// Err is why there is no reply, nil when no handler took the request.
	Err error
}

// Explain asks the handler about a request without any effect: no address is
// held, no lease made. The handlers of this package tell which rule decided
// what. r is not changed.
func Explain(ctx context.Context, h Handler, r *Request) Explanation {
	asked := *r
	asked.trail = new(trail)
	asked.notef("%v of %v: platform %q, %s", r.MessageType(), r.machine(), r.Platform(), archText(r))
	reply, err := h.ServeDHCP(ctx, &asked)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	switch {
	case err != nil:
		asked.notef("no reply: %v", err)
	case reply == nil:
		asked.notef("no reply: nobody took the request")
	default:
		echo(&asked, reply)
		to, _ := destination(&asked, reply)
		asked.notef("reply %v to %v", reply.MessageType(), to)
	}
	return Explanation{Steps: asked.trail.steps, Reply: reply, Err: err}
}

func archText(r *Request) string {
	arch, ok := r.Arch()
	if !ok {
		return "no architecture"
	}
	return fmt.Sprintf("architecture %d (%v)", uint16(arch), arch)
}
