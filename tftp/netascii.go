package tftp

import "io"

// fromNetascii writes what a client means by netascii (RFC 764): CR LF is the
// end of a line, CR NUL a CR. A CR before anything else stays one.
type fromNetascii struct {
	w   io.Writer
	cr  bool // the last byte was one
	buf []byte
}

func (a *fromNetascii) Write(p []byte) (int, error) {
	a.buf = a.buf[:0]
	for _, c := range p {
		switch {
		case a.cr && c == '\n':
			a.buf = append(a.buf, '\n')
		case a.cr && c == 0:
			a.buf = append(a.buf, '\r')
		default:
			if a.cr {
				a.buf = append(a.buf, '\r')
			}
			if c != '\r' {
				a.buf = append(a.buf, c)
			}
			a.cr = c == '\r'
			continue
		}
		a.cr = false
	}
	if err := a.flush(); err != nil {
		return 0, err
	}
	return len(p), nil
}

// end writes a CR that nothing follows.
func (a *fromNetascii) end() error {
	a.buf = a.buf[:0]
	if a.cr {
		a.buf, a.cr = append(a.buf, '\r'), false
	}
	return a.flush()
}

func (a *fromNetascii) flush() error {
	if len(a.buf) == 0 {
		return nil
	}
	n, err := a.w.Write(a.buf)
	if err == nil && n < len(a.buf) {
		err = io.ErrShortWrite
	}
	return err
}
