package tftp

import (
	"encoding/binary"
	"strconv"
	"strings"
)

const (
	opRRQ   = 1
	opWRQ   = 2
	opERROR = 5

	// maxRequest is the largest request that RFC 2347 allows.
	maxRequest = 512
	// defaultBlock is the block size without the blksize option, and the
	// smallest one that the engine can negotiate.
	defaultBlock = 512
	maxBlock     = 65464
)

// rrq is a decoded read request.
type rrq struct {
	name     string
	netascii bool
	tsize    bool
	blksize  int // 0: not asked for, or too small for the engine
}

// parseRRQ decodes a read request (RFC 1350 section 5, RFC 2347). ok is false
// for a datagram that deserves no answer: answering what is not a request, an
// ERROR packet above all, would let two servers talk for ever.
func parseRRQ(b []byte) (q rrq, ok bool, refusal *Error) {
	if len(b) < 2 {
		return q, false, nil
	}
	switch binary.BigEndian.Uint16(b) {
	case opRRQ:
	case opWRQ:
		return q, true, &Error{CodeAccessViolation, "this server accepts no uploads"}
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
	switch strings.ToLower(mode) {
	case "octet":
	case "netascii":
		q.netascii = true
	default:
		return q, true, &Error{CodeIllegal, "unsupported transfer mode"}
	}
	for rest != "" {
		var opt, val string
		opt, rest, _ = strings.Cut(rest, "\x00")
		val, rest, _ = strings.Cut(rest, "\x00")
		switch strings.ToLower(opt) {
		case "tsize":
			// The size of a netascii transfer is known only when it is over.
			q.tsize = !q.netascii
		case "blksize":
			if n, err := strconv.Atoi(val); err == nil && n >= defaultBlock && q.blksize == 0 {
				q.blksize = min(n, maxBlock)
			}
		}
	}
	return q, true, nil
}

// encode writes the request that the engine gets to see: the file is a key of
// ours, the options are those that we grant, with their final values.
func (q *rrq) encode(key string, size int64) []byte {
	b := append([]byte{0, opRRQ}, key...)
	if q.netascii {
		b = append(b, "\x00netascii\x00"...)
	} else {
		b = append(b, "\x00octet\x00"...)
	}
	if q.tsize {
		b = append(strconv.AppendInt(append(b, "tsize\x00"...), size, 10), 0)
	}
	if q.blksize != 0 {
		b = append(strconv.AppendInt(append(b, "blksize\x00"...), int64(q.blksize), 10), 0)
	}
	return b
}
