package nbd

import (
	"math"
	"time"
)

const (
	readBufLen  = 64 << 10         // of one connection, while it has data in it
	headBufLen  = 16 << 10         // headers, and data that is not copied
	smallBufLen = 128<<10 + 4<<10  // replies: a kernel's largest read and more than one small one
	pieceLen    = 1 << 20          // the most of a read that is held at once
	largeBufLen = pieceLen + 4<<10 // replies: one piece and its header
	blockLen    = 4 << 10          // pieces of a write end at its multiples
	maxDrained  = 1 << 20          // of an option that is too long
	zeroesLen   = 64 << 10         // of zeroes in memory, to be sent over and over
	maxVecs     = 1024             // in one system call (IOV_MAX)
	maxWorkers  = 16               // on the requests of one connection
	aloneAfter  = 16               // requests in a row
	lameDuck    = 100 * time.Millisecond
	minBuffered = int64(2 * largeBufLen)
)

// limit is v, the default for 0, none for less.
func limit[T int | int64 | time.Duration](v, def, none T) T {
	switch {
	case v == 0:
		return def
	case v < 0:
		return none
	default:
		return v
	}
}

func (s *Server) maxConns() int        { return limit(s.MaxConns, 4096, math.MaxInt) }
func (s *Server) maxConnsPerAddr() int { return limit(s.MaxConnsPerAddr, 256, math.MaxInt) }
func (s *Server) maxOptions() int      { return limit(s.MaxOptions, 64, math.MaxInt) }

func (s *Server) maxOptionLength() int {
	// An option has to fit the read buffer, so there is no "none".
	return min(limit(s.MaxOptionLength, readBufLen, readBufLen), readBufLen)
}

func (s *Server) maxRequest() int64 {
	return min(limit(s.MaxRequest, 32<<20, math.MaxUint32), math.MaxUint32)
}

func (s *Server) maxBuffered() int64 {
	return max(limit(s.MaxBuffered, 256<<20, math.MaxInt64), minBuffered)
}

// handshakeTimeout and ioTimeout are 0 for none.
func (s *Server) handshakeTimeout() time.Duration {
	return limit(s.HandshakeTimeout, 10*time.Second, 0)
}
func (s *Server) ioTimeout() time.Duration { return limit(s.IOTimeout, time.Minute, 0) }
