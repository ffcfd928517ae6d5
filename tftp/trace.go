package tftp

import (
	"net/netip"
	"time"
)

// Trace is a set of hooks that see what a [Server] does. Any of them may be
// nil. They are called synchronously and concurrently, so they must be quick
// and safe for that.
type Trace struct {
	// Request is called for each request, before the handler.
	Request func(r *Request)

	// Done is called once for each Request, when all is over.
	Done func(r *Request, res Result)

	// Refused is called for a datagram that reaches no handler, and says why:
	// [ErrLimit], [ErrDuplicate], an [*Error] (malformed, or a write request
	// where nobody takes uploads) or fs.ErrPermission (a name that leads out of
	// the tree).
	Refused func(peer netip.AddrPort, err error)
}

// Result is how a request ended.
type Result struct {
	// Err is nil when the client has acknowledged the whole file, and for a
	// size probe. Otherwise it is the handler's error, an [*Error] with which
	// the client ended the transfer, [os.ErrDeadlineExceeded] (in a chain) when
	// the client no longer answered, [syscall.ECONNREFUSED] when nobody listens
	// on its port any more, or [ErrServerClosed]. A client that has closed its
	// port after the last block was sent has got the file; that its last
	// acknowledgement was lost is no error.
	Err error
	// Probe: the client asked for the size, got it and ended the transfer
	// before the first block, as PXE firmware does ahead of the real one.
	Probe bool
	// Size is the length of the file, and Bytes how much of it was sent.
	Size, Bytes int64
	// BlockSize is the negotiated blksize (RFC 2348) in bytes, 512 without.
	BlockSize int
	// WindowSize is the negotiated windowsize (RFC 7440) in blocks, 1 without.
	WindowSize int
	// TSize: the client was told the size (RFC 2349).
	TSize bool
	// Timeout is the negotiated timeout (RFC 2349), 0 without.
	Timeout time.Duration
	// Resent counts the datagrams that had to be sent again.
	Resent int
	// RTT is the smoothed round trip time to the client, 0 when there was
	// nothing to measure. It includes what the client does with a block.
	RTT time.Duration
	// Duration is the time since the request was received.
	Duration time.Duration
}

func (s *Server) traceRequest(r *Request) {
	if s.Trace != nil && s.Trace.Request != nil {
		s.Trace.Request(r)
	}
}

func (s *Server) traceDone(r *Request, res Result) {
	if s.Trace != nil && s.Trace.Done != nil {
		s.Trace.Done(r, res)
	}
}

func (s *Server) traceRefused(peer netip.AddrPort, err error) {
	if s.Trace != nil && s.Trace.Refused != nil {
		s.Trace.Refused(peer, err)
	}
}
