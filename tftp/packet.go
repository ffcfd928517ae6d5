package tftp

import (
	"encoding/binary"
	"strconv"
	"strings"
	"time"
)

const (
	opRRQ   = 1
	opWRQ   = 2
	opDATA  = 3
	opACK   = 4
	opERROR = 5
	opOACK  = 6

	// maxRequest is the largest request that RFC 2347 allows.
	maxRequest = 512
	// defaultBlock is the block size without the blksize option.
	defaultBlock = 512
	minBlock     = 8
	maxBlock     = 65464
	maxWindow    = 1 << 14 // well below half of the block numbers
)

// query is a decoded request to read or, with write, to send a file.
type query struct {
	write    bool
	name     string
	netascii bool
	opts     options
}

// options are those of RFC 2347: what a client asks for, and then what it is
// granted. Zero means not given.
type options struct {
	blksize int           // RFC 2348
	timeout time.Duration // RFC 2349, whole seconds
	hasSize bool          // RFC 2349
	size    int64
	window  int // RFC 7440
}

// parseRequest decodes a request (RFC 1350 section 5, RFC 2347). ok is false
// for a datagram that deserves no answer: answering what is not a request, an
// ERROR packet above all, would let two servers talk for ever.
func parseRequest(b []byte) (q query, ok bool, refusal *Error) {
	if len(b) < 2 {
		return q, false, nil
	}
	switch binary.BigEndian.Uint16(b) {
	case opRRQ:
	case opWRQ:
		q.write = true
	default:
		return q, false, nil
	}
	if len(b) > maxRequest {
		return q, true, &Error{CodeIllegal, "request longer than 512 bytes"}
	}
	rest := string(b[2:])
	name, rest, ok1 := strings.Cut(rest, "\x00")
	mode, rest, ok2 := strings.Cut(rest, "\x00")
	if !ok1 || !ok2 {
		return q, true, &Error{CodeIllegal, "malformed request"}
	}
	q.name = name
	switch {
	case strings.EqualFold(mode, "octet"):
	case strings.EqualFold(mode, "netascii"):
		q.netascii = true
	default:
		return q, true, &Error{CodeIllegal, "unsupported transfer mode"}
	}
	q.opts.parse(rest)
	return q, true, nil
}

// parse reads options. What is unknown or makes no sense counts as not given;
// of two, the first counts.
func (o *options) parse(rest string) {
	for rest != "" {
		var opt, val string
		opt, rest, _ = strings.Cut(rest, "\x00")
		val, rest, _ = strings.Cut(rest, "\x00")
		n, err := strconv.ParseInt(val, 10, 64)
		switch {
		case strings.EqualFold(opt, "tsize"):
			if !o.hasSize {
				o.hasSize, o.size = true, max(n, 0)
			}
		case err != nil:
		case strings.EqualFold(opt, "blksize"):
			if n >= minBlock && o.blksize == 0 {
				o.blksize = int(min(n, maxBlock))
			}
		case strings.EqualFold(opt, "timeout"):
			if n >= 1 && n <= 255 && o.timeout == 0 {
				o.timeout = time.Duration(n) * time.Second
			}
		case strings.EqualFold(opt, "windowsize"):
			if n >= 1 && n <= 65535 && o.window == 0 {
				o.window = int(n)
			}
		}
	}
}

// encode appends the options, each a name and a value.
func (o *options) encode(b []byte) []byte {
	add := func(name string, n int64) {
		b = append(append(b, name...), 0)
		b = append(strconv.AppendInt(b, n, 10), 0)
	}
	if o.hasSize {
		add("tsize", o.size)
	}
	if o.blksize != 0 {
		add("blksize", int64(o.blksize))
	}
	if o.timeout != 0 {
		add("timeout", int64(o.timeout/time.Second))
	}
	if o.window != 0 {
		add("windowsize", int64(o.window))
	}
	return b
}

// oack returns the OACK packet, nil when there is nothing to grant.
func (o *options) oack() []byte {
	if *o == (options{}) {
		return nil
	}
	return o.encode([]byte{0, opOACK})
}

// encode writes the request.
func (q *query) encode() []byte {
	op, mode := byte(opRRQ), "octet"
	if q.write {
		op = opWRQ
	}
	if q.netascii {
		mode = "netascii"
	}
	b := append(append([]byte{0, op}, q.name...), 0)
	return q.opts.encode(append(append(b, mode...), 0))
}

// grant decides about the options that were asked for. Only those may be in
// the answer: PXELINUX ends a transfer over any other. fits is the largest
// block that does not have to be fragmented on the way.
func (s *Server) grant(asked options, fits int) (granted options) {
	granted = asked
	if asked.blksize != 0 {
		granted.blksize = max(minBlock, min(asked.blksize, fits))
		if s.MaxBlockSize > 0 {
			granted.blksize = min(granted.blksize, max(minBlock, s.MaxBlockSize))
		}
	}
	limit := s.MaxWindowSize
	switch {
	case limit == 0:
		limit = defaultMaxWindow
	case limit < 0:
		limit = maxWindow
	}
	granted.window = min(asked.window, limit, maxWindow)
	return granted
}
