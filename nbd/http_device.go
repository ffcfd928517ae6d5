package nbd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// ErrOriginChanged is what reads fail with, from then on, when what an HTTP
// origin has under a URL is not any more what it was when it was opened.
var ErrOriginChanged = errors.New("nbd: the origin has other content now than when it was opened")

// HTTPOptions are options of [OpenHTTP]; nil is the zero value.
type HTTPOptions struct {
	// Client makes the requests; nil is one of the device's own, which uses
	// the proxies of the environment.
	Client *http.Client
	// Header is sent with each request, as for Authorization.
	Header http.Header
	// Retries is how often a request is tried again that failed for a reason
	// that may pass: the network, a reply that ends early, status 408, 429
	// and 5xx. 0 is 5, a negative value not at all. Between the tries there
	// are 100 ms, then twice as long each time, up to 5 s, or what the origin
	// asks for in Retry-After, up to 30 s.
	Retries int
	// Timeout is how long the origin may be silent; 0 is 30 s, a negative
	// value for ever.
	Timeout time.Duration
	// MaxRequests is how many requests are under way at once; further reads
	// wait. 0 is 16, a negative value no limit.
	MaxRequests int
	// Logger gets a Debug record for each retry and a Warn record when the
	// origin has changed; nil is slog.Default().
	Logger *slog.Logger
}

// HTTPDevice is a read-only [Device] over a file that a web server has, read by
// range requests (RFC 9110 section 14). Its size is the file's, padded with
// zeroes to a multiple of 512 bytes. It may be used concurrently. Each ReadAt
// is a request: put an [OpenCache] in front of it.
//
// The file's entity tag, or where there is none its time stamp, is taken when
// the device is opened; each request asks for it and each reply is checked
// against it, and against size and range. The first one that differs makes
// every read fail, with [ErrOriginChanged]: the bytes of two files are never
// mixed. That needs an origin whose files are replaced by rename: of one that
// is written to in place, a reply may hold both.
type HTTPDevice struct {
	url     string // as given, with what must not be logged
	name    string // for messages
	opts    HTTPOptions
	client  *http.Client
	own     bool // client is nobody else's
	slots   *semaphore.Weighted
	ctx     context.Context // ends with Close
	cancel  context.CancelCauseFunc
	size    int64
	etag    string
	modTime string // Last-Modified, as sent

	changed atomic.Pointer[error]
}

// OpenHTTP opens what is under an http or https URL, asking for its first byte.
// ctx is for the opening only. Errors wrap [fs.ErrNotExist] (404, 410),
// [fs.ErrPermission] (401, 403), [fs.ErrInvalid] for a URL of another kind, and
// [errors.ErrUnsupported] when the origin does not serve ranges, or gives
// neither a tag nor a time that a change could be seen by.
func OpenHTTP(ctx context.Context, rawURL string, opts *HTTPOptions) (*HTTPDevice, error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("nbd: the origin has to be an http or https URL with a host: %w", fs.ErrInvalid)
	}
	d := &HTTPDevice{url: rawURL, name: u.Scheme + "://" + u.Host + u.EscapedPath(), size: -1}
	if opts != nil {
		d.opts = *opts
	}
	if d.client = d.opts.Client; d.client == nil {
		d.client = &http.Client{}
		// A program may have put something else in its place, to be used.
		if tr, ok := http.DefaultTransport.(*http.Transport); ok {
			tr = tr.Clone()
			tr.MaxIdleConnsPerHost = 16
			d.client.Transport, d.own = tr, true
		}
	}
	d.slots = semaphore.NewWeighted(int64(limit(d.opts.MaxRequests, 16, 1<<30)))
	d.ctx, d.cancel = context.WithCancelCause(context.Background())
	if _, err := d.read(ctx, make([]byte, 1), 0); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// Size returns the padded size in bytes.
func (d *HTTPDevice) Size() int64 { return padded(d.size) }

// Features: an HTTPDevice can be read.
func (d *HTTPDevice) Features() Features { return Features{Slow: true, MultiConn: true} }

// ID identifies the content, for [OpenCache]: it is made of the URL without
// its query, the entity tag, the time stamp and the size.
func (d *HTTPDevice) ID() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%s\n%d\n", d.name, d.etag, d.modTime, d.size))
	return hex.EncodeToString(sum[:])
}

// ReadAt reads as [io.ReaderAt] says.
func (d *HTTPDevice) ReadAt(p []byte, off int64) (int, error) {
	return readPadded(httpReader{d}, p, off, d.size)
}

type httpReader struct{ *HTTPDevice }

func (r httpReader) ReadAt(p []byte, off int64) (int, error) { return r.read(r.ctx, p, off) }

// Close ends reads under way, with an error that wraps [fs.ErrClosed].
func (d *HTTPDevice) Close() error {
	d.abort()
	if d.own {
		d.client.CloseIdleConnections()
	}
	return nil
}

func (d *HTTPDevice) abort() { d.cancel(fmt.Errorf("nbd: %s: %w", d.name, fs.ErrClosed)) }

// read fills p from off, with as many tries as that takes and is allowed.
func (d *HTTPDevice) read(ctx context.Context, p []byte, off int64) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := d.slots.Acquire(ctx, 1); err != nil {
		return 0, context.Cause(ctx)
	}
	defer d.slots.Release(1)
	tries := limit(d.opts.Retries, 5, 0)
	for try := 0; ; try++ {
		if err := d.changed.Load(); err != nil {
			return n, *err
		}
		m, err := d.attempt(ctx, p[n:], off+int64(n))
		n += m
		if err == nil {
			return n, nil
		}
		if ctx.Err() != nil {
			return n, context.Cause(ctx)
		}
		var again *retryError
		if !errors.As(err, &again) || try >= tries {
			return n, fmt.Errorf("nbd: reading %s at %d: %w", d.name, off+int64(n), err)
		}
		if m > 0 {
			try = -1 // it goes on, if slowly
		}
		pause := max(backoff(try), again.after)
		d.log().Debug("nbd: trying an origin again", "origin", d.name, "err", err, "after", pause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return n, context.Cause(ctx)
		}
	}
}

func (d *HTTPDevice) log() *slog.Logger {
	if d.opts.Logger != nil {
		return d.opts.Logger
	}
	return slog.Default()
}

// differs notes that the origin has changed.
func (d *HTTPDevice) differs(what string) error {
	err := fmt.Errorf("%w (%s): open it anew, and give new content a URL of its own", ErrOriginChanged, what)
	if d.changed.CompareAndSwap(nil, &err) {
		d.log().Warn("nbd: an origin has changed, its device fails from now on", "origin", d.name, "what", what)
	}
	return err
}

var _ io.Closer = (*HTTPDevice)(nil)
