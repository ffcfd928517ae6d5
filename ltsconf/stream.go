package ltsconf

// The block sizes of getltscfg's generated lexer. They show when a file
// includes another: what is already in the buffer is parsed first, then the
// included file, and the rest of the first is never read.
const (
	readSize   = 8192
	bufferSize = 16384
)

// stream is the sequence of bytes that the scanner sees: the file, and from
// an include on another one.
type stream struct {
	buf     []byte // loaded, from all files
	rest    []byte // of the current file, not loaded yet
	starts  []int  // where each file starts in buf
	inPlace bool   // rest follows buf in memory: loading is re-slicing
	bufSize int
	eof     bool // a read found nothing: no file is opened any more
}

func newStream(src []byte) stream {
	return stream{buf: src[:0], rest: src, starts: []int{0}, inPlace: true, bufSize: bufferSize}
}

// has reports whether there is a byte at offset i, loading what is needed.
// start is where the current token starts: the lexer keeps that much.
func (s *stream) has(i, start int) bool {
	for i >= len(s.buf) {
		if s.eof {
			return false
		}
		kept := len(s.buf) - start
		for s.bufSize-kept-1 <= 0 {
			s.bufSize *= 2
		}
		n := min(s.bufSize-kept-1, readSize, len(s.rest))
		if n == 0 {
			s.eof = true
			return false
		}
		if s.inPlace {
			s.buf = s.buf[:len(s.buf)+n]
		} else {
			s.buf = append(s.buf, s.rest[:n]...)
		}
		s.rest = s.rest[n:]
	}
	return true
}

// divert goes on reading in another file, when anything is read at all.
func (s *stream) divert(src []byte) {
	s.rest = src
	s.starts = append(s.starts, len(s.buf))
	if s.inPlace {
		s.buf, s.inPlace = s.buf[:len(s.buf):len(s.buf)], false
	}
}
