package nbd

import (
	"crypto/tls"
	"errors"
	"net"
	"sync"
)

// cork is what an encrypted connection writes to. crypto/tls makes a system
// call of each record, of 16 KiB at most; this puts those of one Write
// together.
type cork struct {
	net.Conn
	pool *sync.Pool // of *[smallBufLen]byte

	mu  sync.Mutex // Read may write too
	buf *[smallBufLen]byte
	n   int
}

// write sends p through tc, whose connection c is.
func (c *cork) write(tc *tls.Conn, p []byte) error {
	c.mu.Lock()
	var ok bool
	if c.buf, ok = c.pool.Get().(*[smallBufLen]byte); !ok {
		c.buf = new([smallBufLen]byte)
	}
	c.mu.Unlock()

	_, err := tc.Write(p)

	c.mu.Lock()
	defer c.mu.Unlock()
	err = errors.Join(err, c.flush())
	c.pool.Put(c.buf)
	c.buf = nil
	return err
}

func (c *cork) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.buf == nil {
		return c.Conn.Write(p)
	}
	for left := p; len(left) > 0; {
		if c.n == len(c.buf) {
			if err := c.flush(); err != nil {
				return 0, err
			}
		}
		m := copy(c.buf[c.n:], left)
		left, c.n = left[m:], c.n+m
	}
	return len(p), nil
}

func (c *cork) flush() error {
	n := c.n
	c.n = 0
	if n == 0 {
		return nil
	}
	_, err := c.Conn.Write(c.buf[:n])
	return err
}
