package nbd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"sync"
	"time"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// Client is an export of some server, opened over one connection. It is a
// [Device]: an export can be read, compared, or served again.
//
// Its methods may be called concurrently; they take turns, one request is
// under way at a time. An error of the connection ends the Client: every later
// call returns it. An error that the server sends does not: it is a
// [syscall.Errno] (EIO, ENOSPC, EPERM ...) and the next call may succeed. There
// is no timeout: Close ends a call that waits.
type Client struct {
	nc     net.Conn
	size   int64
	flags  uint16
	maxReq int // bytes, of one read or write

	mu     sync.Mutex
	cookie uint64
	err    error // what ended the connection
	hdr    [requestHeaderLen]byte
}

var errClientClosed = fmt.Errorf("nbd: the client is closed: %w", net.ErrClosed)

// Dial connects to a server ("tcp", "192.0.2.1:10809" or "unix", "/run/x") and
// opens an export. The context counts for connecting and the handshake.
//
// A refusal is [fs.ErrNotExist] (the server does not know the export),
// [fs.ErrPermission] (policy) or [fs.ErrInvalid] (a malformed name).
func Dial(ctx context.Context, network, addr, export string) (*Client, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, fmt.Errorf("nbd: %w", err)
	}
	return NewClient(ctx, nc, export)
}

// NewClient opens an export over a connection, which from then on belongs to
// the Client; on an error it is closed. The context counts for the handshake.
func NewClient(ctx context.Context, nc net.Conn, export string) (*Client, error) {
	c := &Client{nc: nc, size: -1, maxReq: 32 << 20}
	if err := withContext(ctx, nc, func() error { return c.open(export) }); err != nil {
		nc.Close()
		return nil, fmt.Errorf("nbd: opening the export %q: %w", export, err)
	}
	return c, nil
}

// List returns what the server lists, over a connection that it closes.
func List(ctx context.Context, nc net.Conn) ([]ExportInfo, error) {
	defer nc.Close()
	var list []ExportInfo
	err := withContext(ctx, nc, func() (err error) {
		list, err = listExports(nc)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("nbd: listing exports: %w", err)
	}
	return list, nil
}

// Size returns the export's size in bytes.
func (c *Client) Size() int64 { return c.size }

// ReadOnly says whether the server refuses writes.
func (c *Client) ReadOnly() bool { return c.flags&transReadOnly != 0 }

// Features returns what the server announced.
func (c *Client) Features() Features {
	return Features{
		Write:     !c.ReadOnly(),
		Flush:     c.flags&transSendFlush != 0,
		MultiConn: c.flags&protocol.NEGOTIATION_REPLY_FLAGS_CAN_MULTI_CONN != 0,
	}
}

// ReadAt reads as [io.ReaderAt] says.
func (c *Client) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("nbd: a read at %d: %w", off, fs.ErrInvalid)
	}
	if off >= c.size {
		return 0, io.EOF
	}
	var atEnd error
	if max := c.size - off; int64(len(p)) > max {
		p, atEnd = p[:max], io.EOF
	}
	n, err := c.inPieces(protocol.TRANSMISSION_TYPE_REQUEST_READ, p, off)
	if err == nil {
		err = atEnd
	}
	return n, err
}

// WriteAt writes as [io.WriterAt] says.
func (c *Client) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("nbd: a write at %d: %w", off, fs.ErrInvalid)
	}
	return c.inPieces(protocol.TRANSMISSION_TYPE_REQUEST_WRITE, p, off)
}

// Sync returns when all that was written is on the server's stable storage
// (NBD_CMD_FLUSH). It does nothing where the server does not offer that.
func (c *Client) Sync() error {
	if !c.Features().Flush {
		return nil
	}
	return c.do(cmdFlush, nil, 0)
}

// Close takes leave of the server and closes the connection.
func (c *Client) Close() error {
	if !c.mu.TryLock() {
		c.nc.Close() // ends the request under way
		c.mu.Lock()
	}
	defer c.mu.Unlock()
	if errors.Is(c.err, errClientClosed) {
		return nil
	}
	if c.err == nil {
		// The server may be gone or not reading; closing is what counts.
		_ = c.nc.SetDeadline(time.Now().Add(time.Second))
		_ = c.send(protocol.TRANSMISSION_TYPE_REQUEST_DISC, nil, 0, 0)
	}
	failed := c.err != nil
	c.err = errClientClosed
	if err := c.nc.Close(); !failed {
		return err
	}
	return nil
}

func (c *Client) inPieces(typ uint16, p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n := min(len(p)-done, c.maxReq)
		if err := c.do(typ, p[done:done+n], off+int64(done)); err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// do sends one request and takes its reply.
func (c *Client) do(typ uint16, p []byte, off int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	code, err := c.roundTrip(typ, p, off)
	if err != nil {
		c.err = fmt.Errorf("nbd: the connection failed: %w", err)
		c.nc.Close()
		return c.err
	}
	if code != 0 {
		return fmt.Errorf("nbd: the server answered: %w", errnoOf(code))
	}
	return nil
}

func (c *Client) roundTrip(typ uint16, p []byte, off int64) (code uint32, err error) {
	c.cookie++
	if err := c.send(typ, p, off, len(p)); err != nil {
		return 0, err
	}
	h := c.hdr[:replyHeaderLen]
	if _, err := io.ReadFull(c.nc, h); err != nil {
		return 0, unexpected(err)
	}
	if binary.BigEndian.Uint32(h) != protocol.TRANSMISSION_MAGIC_REPLY {
		return 0, errors.New("a reply without its magic number")
	}
	if got := binary.BigEndian.Uint64(h[8:]); got != c.cookie {
		return 0, fmt.Errorf("a reply to request %d, not %d", got, c.cookie)
	}
	code = binary.BigEndian.Uint32(h[4:])
	if code == 0 && typ == protocol.TRANSMISSION_TYPE_REQUEST_READ {
		_, err = io.ReadFull(c.nc, p)
	}
	return code, unexpected(err)
}

func (c *Client) send(typ uint16, p []byte, off int64, n int) error {
	h := c.hdr[:]
	binary.BigEndian.PutUint32(h, protocol.TRANSMISSION_MAGIC_REQUEST)
	binary.BigEndian.PutUint16(h[4:], 0)
	binary.BigEndian.PutUint16(h[6:], typ)
	binary.BigEndian.PutUint64(h[8:], c.cookie)
	binary.BigEndian.PutUint64(h[16:], uint64(off))
	binary.BigEndian.PutUint32(h[24:], uint32(n))
	if typ == protocol.TRANSMISSION_TYPE_REQUEST_WRITE {
		bufs := net.Buffers{h, p}
		_, err := bufs.WriteTo(c.nc)
		return err
	}
	_, err := c.nc.Write(h)
	return err
}

// withContext runs f, and ends f's reading and writing when ctx ends.
func withContext(ctx context.Context, nc net.Conn, f func() error) error {
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = nc.SetDeadline(time.Unix(1, 0))
		close(ended)
	})
	err := f()
	if !stop() {
		<-ended
		return context.Cause(ctx)
	}
	_ = nc.SetDeadline(time.Time{})
	return err
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
