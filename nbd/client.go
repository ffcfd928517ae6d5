package nbd

import (
	"bufio"
	"context"
	"crypto/tls"
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
// Its methods may be called concurrently: each call has its request under way,
// those of all share the connection, and the server may answer them in any order.
// A read or write of more than the server's largest request (32 MiB) is several,
// one after the other. An error of the connection ends the Client: every call
// under way and every later one returns it. An error that the server sends does
// not: the call that it is for returns it, a [syscall.Errno] (EIO, ENOSPC, EPERM
// ...), and the next one may succeed. There is no timeout: Close ends calls that
// wait.
type Client struct {
	nc         net.Conn
	size       int64
	flags      uint16
	simple     bool // wants simple replies only
	structured bool
	metaID     uint32 // of base:allocation
	meta       bool   // it was selected
	minBlock   int
	preferred  int
	maxReq     int // bytes, of one read or write

	sending sync.Mutex // requests, one as a whole after the other
	out     [requestHeaderLen]byte

	mu      sync.Mutex // guards what follows, but for rd and in
	cookie  uint64     // of the last request
	err     error      // what ended the connection
	calls   map[uint64]*call
	idle    []*call       // for use again
	reading bool          // one of the calls takes replies
	rd      *bufio.Reader // that one's
	in      [replyHeaderLen]byte
}

// clientBufLen is for the headers of replies, and for short ones as a whole.
const clientBufLen = 16 << 10

var errClientClosed = fmt.Errorf("nbd: the client is closed: %w", net.ErrClosed)

// A Dialer opens exports. The zero value does so without encryption.
type Dialer struct {
	// TLS makes the client encrypt (NBD_OPT_STARTTLS), and fail where the
	// server does not. Dial fills in a ServerName that is missing.
	TLS *tls.Config
}

// Dial connects to a server ("tcp", "192.0.2.1:10809" or "unix", "/run/x") and
// opens an export. The context counts for connecting and the handshake.
//
// A refusal is [fs.ErrNotExist] (the server does not know the export),
// [fs.ErrPermission] (policy), [ErrTLSRequired] or [fs.ErrInvalid] (a malformed
// name).
func (d *Dialer) Dial(ctx context.Context, network, addr, export string) (*Client, error) {
	var nd net.Dialer
	nc, err := nd.DialContext(ctx, network, addr)
	if err != nil {
		return nil, fmt.Errorf("nbd: %w", err)
	}
	if d.TLS != nil && d.TLS.ServerName == "" {
		if host, _, err := net.SplitHostPort(addr); err == nil {
			cfg := d.TLS.Clone()
			cfg.ServerName = host
			d = &Dialer{TLS: cfg}
		}
	}
	return d.NewClient(ctx, nc, export)
}

// NewClient opens an export over a connection, which from then on belongs to
// the Client; on an error it is closed. The context counts for the handshake.
func (d *Dialer) NewClient(ctx context.Context, nc net.Conn, export string) (*Client, error) {
	c := &Client{nc: nc, size: -1, maxReq: 32 << 20}
	if err := withContext(ctx, nc, func() error { return c.open(ctx, export, d.TLS) }); err != nil {
		nc.Close()
		return nil, fmt.Errorf("nbd: opening the export %q: %w", export, err)
	}
	c.rd, c.calls = bufio.NewReaderSize(c.nc, clientBufLen), make(map[uint64]*call)
	return c, nil
}

// List returns what the server lists, over a connection that it closes.
func (d *Dialer) List(ctx context.Context, nc net.Conn) ([]ExportInfo, error) {
	defer nc.Close()
	var list []ExportInfo
	err := withContext(ctx, nc, func() (err error) {
		list, err = listExports(ctx, nc, d.TLS)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("nbd: listing exports: %w", err)
	}
	return list, nil
}

// Dial is that of the zero [Dialer].
func Dial(ctx context.Context, network, addr, export string) (*Client, error) {
	return new(Dialer).Dial(ctx, network, addr, export)
}

// NewClient is that of the zero [Dialer].
func NewClient(ctx context.Context, nc net.Conn, export string) (*Client, error) {
	return new(Dialer).NewClient(ctx, nc, export)
}

// List is that of the zero [Dialer].
func List(ctx context.Context, nc net.Conn) ([]ExportInfo, error) {
	return new(Dialer).List(ctx, nc)
}

// Size returns the export's size in bytes.
func (c *Client) Size() int64 { return c.size }

// ReadOnly says whether the server refuses writes.
func (c *Client) ReadOnly() bool { return c.flags&transReadOnly != 0 }

// Features returns what the server announced, and Slow: what serves the export
// again has several requests under way.
func (c *Client) Features() Features {
	has := func(flag uint16) bool { return c.flags&flag != 0 }
	return Features{
		Write:          !c.ReadOnly(),
		Flush:          has(transSendFlush),
		Trim:           has(transSendTrim) && !c.ReadOnly(),
		Zero:           has(transSendZeroes) && !c.ReadOnly(),
		FastZero:       has(transSendZeroes) && has(transSendFastZero) && !c.ReadOnly(),
		Cache:          has(transSendCache),
		Extents:        c.meta,
		Slow:           true,
		MultiConn:      has(protocol.NEGOTIATION_REPLY_FLAGS_CAN_MULTI_CONN),
		MinBlock:       c.minBlock,
		PreferredBlock: c.preferred,
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
	_, err := c.do(exchange{typ: cmdFlush})
	return err
}

// Close takes leave of the server, unless requests are under way, and closes the
// connection. Calls that wait fail, with an error that wraps [net.ErrClosed].
func (c *Client) Close() error {
	c.mu.Lock()
	if errors.Is(c.err, errClientClosed) {
		c.mu.Unlock()
		return nil
	}
	failed, busy := c.err != nil, len(c.calls) > 0
	c.err = errClientClosed
	c.mu.Unlock()
	if !failed && !busy {
		// The server may be gone or not reading; closing is what counts.
		_ = c.nc.SetDeadline(time.Now().Add(time.Second))
		_ = c.send(&exchange{typ: protocol.TRANSMISSION_TYPE_REQUEST_DISC}, 0)
	}
	if err := c.nc.Close(); !failed {
		return err
	}
	return nil
}

func (c *Client) inPieces(typ uint16, p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n := min(len(p)-done, c.maxReq)
		if _, err := c.do(exchange{typ: typ, off: off + int64(done), n: uint32(n), data: p[done : done+n]}); err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
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
