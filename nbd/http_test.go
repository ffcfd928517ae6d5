package nbd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// origin serves content as a web server does, unless before takes a request.
type origin struct {
	content  atomic.Pointer[[]byte]
	etag     atomic.Value
	requests atomic.Int64
	before   atomic.Value // func(w, r) bool
}

func newOrigin(t *testing.T, content []byte) (*origin, string) {
	o := &origin{}
	o.put(content, `"one"`)
	srv := httptest.NewServer(o)
	t.Cleanup(srv.Close)
	return o, srv.URL + "/image?token=secret"
}

func (o *origin) put(content []byte, etag string) {
	o.content.Store(&content)
	o.etag.Store(etag)
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.requests.Add(1)
	if f, ok := o.before.Load().(func(http.ResponseWriter, *http.Request) bool); ok && f(w, r) {
		return
	}
	if etag := o.etag.Load().(string); etag != "" {
		w.Header().Set("ETag", etag)
	}
	http.ServeContent(w, r, "", time.Unix(1e9, 0), bytes.NewReader(*o.content.Load()))
}

var quietHTTP = &HTTPOptions{Logger: slog.New(slog.DiscardHandler)}

func TestHTTPChangedOrigin(t *testing.T) {
	for name, change := range map[string]func(o *origin, old []byte){
		"tag":    func(o *origin, old []byte) { o.put(bytes.ToUpper(old), `"two"`) },
		"size":   func(o *origin, old []byte) { o.put(old[:6000], `"one"`) },
		"longer": func(o *origin, old []byte) { o.put(append(bytes.Clone(old), 1), `"one"`) },
		"no tag": func(o *origin, old []byte) { o.put(old, "") },
		"ignores If-Match": func(o *origin, old []byte) {
			o.before.Store(func(w http.ResponseWriter, r *http.Request) bool { r.Header.Del("If-Match"); return false })
			o.put(bytes.ToUpper(old), `"two"`)
		},
		"whole file": func(o *origin, old []byte) {
			o.before.Store(func(w http.ResponseWriter, r *http.Request) bool { r.Header.Del("Range"); return false })
		},
		"in the middle": func(o *origin, old []byte) {
			o.before.Store(func(w http.ResponseWriter, r *http.Request) bool {
				if o.etag.Load() == `"two"` {
					return false
				}
				w.Header().Set("ETag", `"one"`)
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %s/%d", strings.TrimPrefix(r.Header.Get("Range"), "bytes="), len(old)))
				w.WriteHeader(http.StatusPartialContent)
				_, _ = w.Write(old[:100])
				o.put(bytes.ToUpper(old), `"two"`)
				panic(http.ErrAbortHandler)
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			old := bytes.Repeat([]byte("abcdefgh"), 1000)
			o, url := newOrigin(t, old)
			d, err := OpenHTTP(t.Context(), url, quietHTTP)
			require.NoError(t, err)
			defer d.Close()
			p := make([]byte, 8000)
			_, err = d.ReadAt(p, 0)
			require.NoError(t, err)
			change(o, old)
			n, err := d.ReadAt(p, 0)
			require.ErrorIs(t, err, ErrOriginChanged)
			require.NotContains(t, err.Error(), "secret")
			require.Equal(t, old[:n], p[:n])
			o.before.Store(func(http.ResponseWriter, *http.Request) bool { return false })
			o.put(old, `"one"`)
			_, err = d.ReadAt(p, 0)
			require.ErrorIs(t, err, ErrOriginChanged, "clients may hold either content: it cannot be right again")
		})
	}
}

// TestHTTPChangedTime: an origin without entity tags, that heeds no condition,
// is known by its time stamp.
func TestHTTPChangedTime(t *testing.T) {
	var at atomic.Int64
	at.Store(1e9)
	content := randomBytes(1, 8000)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("If-Unmodified-Since")
		http.ServeContent(w, r, "", time.Unix(at.Load(), 0), bytes.NewReader(content))
	}))
	defer web.Close()
	d, err := OpenHTTP(t.Context(), web.URL, quietHTTP)
	require.NoError(t, err)
	defer d.Close()
	p := make([]byte, 4000)
	_, err = d.ReadAt(p, 0)
	require.NoError(t, err)
	at.Add(1)
	_, err = d.ReadAt(p, 4000)
	require.ErrorIs(t, err, ErrOriginChanged)
}

func TestHTTPRetries(t *testing.T) {
	content := randomBytes(1, 20000)
	o, url := newOrigin(t, content)
	var fails atomic.Int64
	o.before.Store(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") != "Bearer x" {
			w.WriteHeader(http.StatusForbidden)
			return true
		}
		switch fails.Add(-1) {
		case 2:
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		case 1:
			panic(http.ErrAbortHandler)
		case 0: // ends early
			w.Header().Set("ETag", `"one"`)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %s/%d", strings.TrimPrefix(r.Header.Get("Range"), "bytes="), len(content)))
			w.Header().Set("Content-Length", "20000")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(content[:5000])
			panic(http.ErrAbortHandler)
		}
		return false
	})
	_, err := OpenHTTP(t.Context(), url, quietHTTP)
	require.ErrorIs(t, err, fs.ErrPermission)
	opts := &HTTPOptions{Header: http.Header{"Authorization": {"Bearer x"}}, Logger: quietHTTP.Logger}
	d, err := OpenHTTP(t.Context(), url, opts)
	require.NoError(t, err)
	defer d.Close()
	fails.Store(3)
	p := make([]byte, 20000)
	_, err = d.ReadAt(p, 0)
	require.NoError(t, err)
	require.True(t, bytes.Equal(content, p))
	require.Negative(t, fails.Load(), "not all of it happened")

	opts.Retries = -1
	once, err := OpenHTTP(t.Context(), url, opts)
	require.NoError(t, err)
	defer once.Close()
	fails.Store(3)
	before := o.requests.Load()
	_, err = once.ReadAt(p, 0)
	require.ErrorContains(t, err, "503")
	require.EqualValues(t, 1, o.requests.Load()-before)
}

func TestHTTPRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		before func(w http.ResponseWriter, r *http.Request) bool
		want   error
	}{
		{"no ranges", func(w http.ResponseWriter, r *http.Request) bool { r.Header.Del("Range"); return false }, errors.ErrUnsupported},
		{"gone", func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(410); return true }, fs.ErrNotExist},
		{"no validator", func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Content-Range", "bytes 0-0/100")
			w.WriteHeader(206)
			_, _ = w.Write([]byte("x"))
			return true
		}, errors.ErrUnsupported},
		{"another range", func(w http.ResponseWriter, r *http.Request) bool {
			r.Header.Set("Range", "bytes=1-1")
			return false
		}, errors.ErrUnsupported},
		{"encoded", func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Content-Encoding", "gzip")
			return false
		}, errors.ErrUnsupported},
		{"no size for a device", func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("ETag", `"one"`)
			w.Header().Set("Content-Range", "bytes 0-0/9223372036854775807")
			w.WriteHeader(206)
			_, _ = w.Write([]byte("x"))
			return true
		}, errors.ErrUnsupported},
		{"size unknown", func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Content-Range", "bytes 0-0/*")
			w.WriteHeader(206)
			return true
		}, errors.ErrUnsupported},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, url := newOrigin(t, make([]byte, 100))
			o.before.Store(c.before)
			_, err := OpenHTTP(t.Context(), url, quietHTTP)
			require.ErrorIs(t, err, c.want)
		})
	}
	for _, url := range []string{"", "ftp://x/y", "http://", "::"} {
		_, err := OpenHTTP(t.Context(), url, nil)
		require.ErrorIs(t, err, fs.ErrInvalid, url)
	}
}

// roundTripper is what programs put around http.DefaultTransport.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestHTTPOtherDefaultTransport(t *testing.T) {
	_, url := newOrigin(t, make([]byte, 1024))
	former := http.DefaultTransport
	defer func() { http.DefaultTransport = former }()
	asked := atomic.Int64{}
	http.DefaultTransport = roundTripper(func(r *http.Request) (*http.Response, error) {
		asked.Add(1)
		return former.RoundTrip(r)
	})
	d, err := OpenHTTP(t.Context(), url, quietHTTP)
	require.NoError(t, err)
	require.EqualValues(t, 1, asked.Load())
	require.NoError(t, d.Close())
}

// TestHTTPClose: a read that waits for a silent origin ends.
func TestHTTPClose(t *testing.T) {
	o, url := newOrigin(t, make([]byte, 100))
	d, err := OpenHTTP(t.Context(), url, quietHTTP)
	require.NoError(t, err)
	asked := make(chan struct{}, 10)
	silent := func(w http.ResponseWriter, r *http.Request) bool {
		asked <- struct{}{}
		<-r.Context().Done()
		return true
	}
	o.before.Store(silent)
	go func() { <-asked; d.Close() }()
	_, err = d.ReadAt(make([]byte, 10), 0)
	require.ErrorIs(t, err, fs.ErrClosed)

	o.before.Store(func(http.ResponseWriter, *http.Request) bool { return false })
	d, err = OpenHTTP(t.Context(), url, &HTTPOptions{Timeout: 50 * time.Millisecond, Retries: -1, Logger: quietHTTP.Logger})
	require.NoError(t, err)
	defer d.Close()
	o.before.Store(silent)
	_, err = d.ReadAt(make([]byte, 10), 0)
	require.ErrorIs(t, err, errSilent)
}

func TestHTTPEmpty(t *testing.T) {
	o, url := newOrigin(t, nil)
	o.before.Store(func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("ETag", `"empty"`)
		w.Header().Set("Content-Range", "bytes */0")
		w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		return true
	})
	d, err := OpenHTTP(t.Context(), url, quietHTTP)
	require.NoError(t, err)
	defer d.Close()
	require.Zero(t, d.Size())
	_, err = d.ReadAt(make([]byte, 1), 0)
	require.ErrorIs(t, err, io.EOF)
}

func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-0/1", "bytes */0", "bytes 5-4/9", "bytes 0-9/*", "bytes -1-2/3", "bytes 0-9223372036854775807/9223372036854775807", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		first, last, size, ok := parseContentRange(s)
		if ok && first >= 0 {
			require.LessOrEqual(t, first, last)
			require.True(t, size == -1 || last < size)
		}
	})
}
