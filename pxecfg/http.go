package pxecfg

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/iana"
)

// Sent describes an HTTP request that has been answered.
type Sent struct {
	Peer     netip.Addr
	Client   Client // as far as it is known
	Method   string
	Name     string // path in the tree
	Status   int
	Bytes    int64 // of the body
	Duration time.Duration
}

// ServeHTTP serves the tree: GET and HEAD, with ranges, no listings. The client
// is who has a lease for the peer's address; without one, who the query names:
//
//	mac=52-54-00-12-34-56&uuid=...&hostname=...&arch=x86_64&platform=efi
//
// as iPXE fills it from ${netX/mac:hexhyp}, ${uuid}, ${hostname}, ${buildarch}
// and ${platform}; failing that, who the path names, as over TFTP. A query that
// names another machine than the lease is answered with 403, unless TrustQuery
// is set. What is missing is 404, and 500 is a failure that the log explains.
func (t *Tree) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	s := Sent{Method: r.Method, Status: http.StatusOK}
	if ap, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		s.Peer = ap.Addr().Unmap().WithZone("")
	}
	cw := &countingWriter{ResponseWriter: w, sent: &s}
	t.serve(cw, r, &s)
	s.Duration = time.Since(start)
	t.logger().Debug("http", "peer", s.Peer, "client", s.Client.String(), "method", s.Method, "name", s.Name,
		"status", s.Status, "bytes", s.Bytes)
	if t.Trace != nil && t.Trace.Sent != nil {
		t.Trace.Sent(r.Context(), s)
	}
}

func (t *Tree) serve(w http.ResponseWriter, r *http.Request, s *Sent) {
	s.Name = strings.TrimPrefix(path.Clean("/"+r.URL.Path), "/")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "the boot tree is read-only", http.StatusMethodNotAllowed)
		return
	}
	v, err := t.viewHTTP(r.Context(), s.Peer, r.URL.Query())
	if v != nil {
		s.Client = v.client
		if named, ok := ParseName(s.Name); ok && !v.known {
			named.Peer = s.Peer
			s.Client = named
		}
	}
	if err != nil {
		t.logger().Warn("boot request refused", "peer", s.Peer, "url", r.URL.String(), "err", err)
		httpError(w, err)
		return
	}
	v.host, v.root = requestRoot(r)
	if s.Name == "" || !fs.ValidPath(s.Name) {
		httpError(w, fs.ErrNotExist)
		return
	}
	f, err := v.Open(s.Name)
	if err != nil {
		httpError(w, err)
		return
	}
	defer f.Close()
	serveFile(w, r, f)
}

var errNotYours = errors.New("the query names another machine than the one that has a lease for this address; set TrustQuery if the peer is a proxy")

var errNotKnown = errors.New("the query names a machine, but this address has no lease, and KnownOnly wants one")

// viewHTTP finds out who asks. With an error it returns a view as far as the
// client is known, or nil.
func (t *Tree) viewHTTP(ctx context.Context, peer netip.Addr, q url.Values) (*view, error) {
	lease, known, err := t.lookup(ctx, peer)
	if err != nil {
		return nil, err
	}
	v := &view{tree: t, ctx: ctx, client: lease, known: known, http: true}
	if !q.Has("mac") && !q.Has("uuid") {
		return v, nil
	}
	if t.KnownOnly && !known {
		return v, &refusal{errNotKnown}
	}
	asked, err := parseQuery(q)
	if err != nil {
		return v, err
	}
	// The UUID decides only in the absence of a MAC: firmware exists that has
	// one for DHCP and another for SMBIOS.
	same := sameMAC(asked.MAC, lease.MAC) || len(asked.MAC) == 0 && sameUUID(asked.UUID, lease.UUID)
	other := len(asked.MAC) > 0 || asked.UUID != "" && lease.UUID != ""
	switch {
	case known && (same || !other && !t.TrustQuery):
		if !t.TrustQuery {
			asked.Hostname = "" // a name may be the key to what is another's
		}
		asked = merge(lease, asked)
	case known && !t.TrustQuery:
		return v, &refusal{errNotYours}
	case t.TrustQuery:
		asked.Peer = peer
	default:
		asked.IP = peer
	}
	// Also with empty values: the client then gets what unknown machines get,
	// and never a dispatcher again.
	v.known = true
	v.client = asked
	return v, nil
}

// parseQuery reads what a dispatcher makes iPXE send. The UUID is in iPXE's
// spelling.
func parseQuery(q url.Values) (Client, error) {
	var c Client
	if s := q.Get("mac"); s != "" {
		mac, ok := parseMAC(s)
		if !ok {
			return c, badQuery("mac", s)
		}
		c.MAC = mac
	}
	if s := q.Get("uuid"); s != "" {
		if _, ok := parseUUID(s); !ok {
			return c, badQuery("uuid", s)
		}
		c.UUID = SwapUUID(strings.ToLower(s))
	}
	c.Hostname = q.Get("hostname")
	c.Platform = q.Get("platform")
	c.Arch, c.ArchKnown = archOf(q.Get("arch"), c.Platform)
	return c, nil
}

// archOf turns iPXE's ${buildarch} and ${platform} into a DHCP client
// architecture.
func archOf(buildarch, platform string) (iana.Arch, bool) {
	switch platform + "/" + buildarch {
	case "pcbios/i386", "pcbios/x86_64":
		return iana.INTEL_X86PC, true
	case "efi/i386":
		return iana.EFI_IA32, true
	case "efi/x86_64":
		return iana.EFI_X86_64, true
	case "efi/arm32":
		return iana.EFI_ARM32, true
	case "efi/arm64":
		return iana.EFI_ARM64, true
	case "efi/riscv64":
		return iana.EFI_RISCV64, true
	}
	return 0, false
}

// serveFile sends an open file. Rendered files differ from machine to machine
// under one name, so they are not to be cached, but their bytes have a tag, so
// that ranges of one rendering are never joined with those of another.
func serveFile(w http.ResponseWriter, r *http.Request, f fs.File) {
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = fs.ErrNotExist
	}
	if err != nil {
		httpError(w, err)
		return
	}
	h := w.Header()
	if rf, ok := f.(*file); ok {
		sum := sha256.Sum256(rf.data)
		h.Set("ETag", `"`+hex.EncodeToString(sum[:16])+`"`)
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Type", "text/plain; charset=utf-8")
	} else {
		// By the name only: looking into each kernel would cost a read.
		h.Set("Content-Type", "application/octet-stream")
		if ct := mime.TypeByExtension(path.Ext(info.Name())); ct != "" {
			h.Set("Content-Type", ct)
		}
	}
	var rs io.ReadSeeker
	switch x := f.(type) {
	case io.ReadSeeker:
		rs = x
	case io.ReaderAt:
		rs = io.NewSectionReader(x, 0, info.Size())
	default:
		httpError(w, errors.New("the file system's files cannot seek"))
		return
	}
	http.ServeContent(w, r, info.Name(), info.ModTime(), rs)
}

// requestRoot is where the tree is as this request has it: the host, and the
// path that a handler in front (http.StripPrefix) took away.
func requestRoot(r *http.Request) (host, root string) {
	if r.Host != "" {
		scheme := "http"
		if r.TLS != nil {
			scheme = "https"
		}
		host = scheme + "://" + r.Host
	}
	if orig, err := url.ParseRequestURI(r.RequestURI); err == nil {
		if p, ok := strings.CutSuffix(orig.Path, "/"+strings.TrimPrefix(r.URL.Path, "/")); ok {
			root = (&url.URL{Path: p}).EscapedPath()
		}
	}
	return host, root
}

type refusal struct{ error }

func (r *refusal) Is(target error) bool { return target == fs.ErrPermission }

func badQuery(name, value string) error {
	return &RenderError{Field: "query " + name, Value: value, Reason: "it cannot be read"}
}

// httpError says no more than the status: the log has the rest.
func httpError(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	var query *RenderError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		status = http.StatusNotFound
	case errors.Is(err, fs.ErrPermission):
		status = http.StatusForbidden
	case errors.As(err, &query) && strings.HasPrefix(query.Field, "query "):
		status = http.StatusBadRequest
	}
	http.Error(w, http.StatusText(status), status)
}

// countingWriter counts what is sent, and keeps the way open for sendfile.
type countingWriter struct {
	http.ResponseWriter
	sent *Sent
}

func (w *countingWriter) WriteHeader(status int) {
	w.sent.Status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *countingWriter) Write(b []byte) (int, error) {
	n, err := w.ResponseWriter.Write(b)
	w.sent.Bytes += int64(n)
	return n, err
}

func (w *countingWriter) ReadFrom(r io.Reader) (int64, error) {
	n, err := io.Copy(w.ResponseWriter, r)
	w.sent.Bytes += n
	return n, err
}

func (w *countingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
