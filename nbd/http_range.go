package nbd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// retryError is one that may pass.
type retryError struct {
	error
	after time.Duration // what the origin asks for
}

func (e *retryError) Unwrap() error { return e.error }

func backoff(try int) time.Duration {
	d := min(100*time.Millisecond<<max(min(try, 10), 0), 5*time.Second)
	return d/2 + rand.N(d/2) // so that many do not come back together
}

// attempt makes one request, for all of p, and returns how much of it came.
// Nothing is taken from a reply that is not about what was opened.
func (d *HTTPDevice) attempt(ctx context.Context, p []byte, off int64) (int, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := &watchdog{after: limit(d.opts.Timeout, 30*time.Second, 0)}
	if silence.after > 0 {
		silence.timer = time.AfterFunc(silence.after, func() { cancel(errSilent) })
		defer silence.timer.Stop()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url, nil)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errors.New("the URL cannot be asked for"), fs.ErrInvalid)
	}
	for name, values := range d.opts.Header {
		req.Header[name] = values
	}
	last := off + int64(len(p)) - 1
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, last))
	req.Header.Set("Accept-Encoding", "identity") // ranges are of the bytes themselves
	switch {
	case d.size < 0:
	case d.etag != "" && !strings.HasPrefix(d.etag, "W/"):
		req.Header.Set("If-Match", d.etag)
	case d.modTime != "":
		req.Header.Set("If-Unmodified-Since", d.modTime)
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return 0, &retryError{error: redact(ctx, err)}
	}
	// What is left of the body is not waited for: closing it ends the
	// connection where there is more than a little.
	defer resp.Body.Close()
	silence.feed()
	if done, err := d.checkReply(resp, off, last); done || err != nil {
		return 0, err
	}
	n, err := io.ReadFull(feeding{resp.Body, silence}, p)
	if err != nil {
		return n, &retryError{error: redact(ctx, fmt.Errorf("the reply ends early: %w", err))}
	}
	return n, nil
}

var errSilent = errors.New("the origin is silent")

// redact takes the URL out of an error: its query may hold a secret.
func redact(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, errSilent) {
		return cause
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		return ue.Err
	}
	return err
}

type watchdog struct {
	after time.Duration
	timer *time.Timer
}

func (w *watchdog) feed() {
	if w.timer != nil {
		w.timer.Reset(w.after)
	}
}

type feeding struct {
	r io.Reader
	w *watchdog
}

func (f feeding) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if n > 0 {
		f.w.feed()
	}
	return n, err
}

// checkReply decides whether a reply's body may be read. The first reply says
// what is opened; done is true when that is empty.
func (d *HTTPDevice) checkReply(resp *http.Response, off, last int64) (done bool, err error) {
	opening := d.size < 0
	status := resp.StatusCode
	switch {
	case status == http.StatusPartialContent:
	case status == http.StatusOK && opening:
		return false, fmt.Errorf("the origin sends the whole file when asked for a part of it: it has to serve ranges (RFC 9110 section 14): %w", errors.ErrUnsupported)
	case status == http.StatusRequestedRangeNotSatisfiable && opening:
		first, _, size, ok := parseContentRange(resp.Header.Get("Content-Range"))
		if !ok || first >= 0 || size != 0 {
			return false, fmt.Errorf("the origin refuses to send the first byte (status %d)", status)
		}
		return true, d.pin(resp, 0)
	case !opening && (status == http.StatusPreconditionFailed || status == http.StatusOK ||
		status == http.StatusRequestedRangeNotSatisfiable):
		return false, d.differs(fmt.Sprintf("it answers with status %d", status))
	case status == http.StatusRequestTimeout || status == http.StatusTooManyRequests || status >= 500:
		return false, &retryError{fmt.Errorf("the origin answers with status %d", status), retryAfter(resp.Header.Get("Retry-After"))}
	case opening && (status == http.StatusNotFound || status == http.StatusGone):
		return false, fmt.Errorf("the origin does not have it (status %d): %w", status, fs.ErrNotExist)
	case opening && (status == http.StatusUnauthorized || status == http.StatusForbidden):
		return false, fmt.Errorf("the origin does not let us have it (status %d): %w", status, fs.ErrPermission)
	default:
		return false, fmt.Errorf("the origin answers with status %d", status)
	}
	if e := resp.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return false, fmt.Errorf("the origin sends the content encoded (%.20q): it has to send it as it is: %w", e, errors.ErrUnsupported)
	}
	first, to, size, ok := parseContentRange(resp.Header.Get("Content-Range"))
	if ok && !opening && size >= 0 && size != d.size {
		return false, d.differs(fmt.Sprintf("it has %d bytes instead of %d", size, d.size))
	}
	if !ok || first != off || to != last || size < 0 {
		return false, fmt.Errorf("the origin answers with the range %.60q where %d to %d was asked for: %w",
			resp.Header.Get("Content-Range"), off, last, errors.ErrUnsupported)
	}
	if opening {
		return false, d.pin(resp, size)
	}
	switch {
	case resp.Header.Get("ETag") != d.etag:
		return false, d.differs("its entity tag differs")
	case d.etag == "" && resp.Header.Get("Last-Modified") != d.modTime:
		return false, d.differs("its time stamp differs")
	}
	return false, nil
}

// pin takes what later replies are compared with.
func (d *HTTPDevice) pin(resp *http.Response, size int64) error {
	etag, modTime := resp.Header.Get("ETag"), resp.Header.Get("Last-Modified")
	if etag == "" && modTime == "" {
		return fmt.Errorf("the origin gives neither an ETag nor Last-Modified, so that a change would not be seen: %w", errors.ErrUnsupported)
	}
	if size > math.MaxInt64-sectorLen {
		return fmt.Errorf("the origin says that it has %d bytes: %w", size, errors.ErrUnsupported)
	}
	d.size, d.etag, d.modTime = size, etag, modTime
	return nil
}

// parseContentRange takes "bytes 0-99/1000" apart (RFC 9110 section 14.4). first
// and last are -1 for "*", as is size.
func parseContentRange(s string) (first, last, size int64, ok bool) {
	s, ok = strings.CutPrefix(s, "bytes ")
	if !ok {
		return 0, 0, 0, false
	}
	span, total, ok := strings.Cut(s, "/")
	if !ok {
		return 0, 0, 0, false
	}
	if size, ok = parseDigits(total); !ok {
		return 0, 0, 0, false
	}
	if span == "*" {
		return -1, -1, size, true
	}
	a, b, ok := strings.Cut(span, "-")
	if !ok || a == "*" || b == "*" {
		return 0, 0, 0, false
	}
	first, ok1 := parseDigits(a)
	last, ok2 := parseDigits(b)
	if !ok1 || !ok2 || last < first || size >= 0 && last >= size {
		return 0, 0, 0, false
	}
	return first, last, size, true
}

// parseDigits reads a number of digits only; "*" is -1.
func parseDigits(s string) (int64, bool) {
	if s == "*" {
		return -1, true
	}
	n, err := strconv.ParseUint(s, 10, 63) // takes no sign
	return int64(n), err == nil
}

func retryAfter(s string) time.Duration {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0
	}
	return min(time.Duration(n)*time.Second, 30*time.Second)
}
