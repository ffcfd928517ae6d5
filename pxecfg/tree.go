package pxecfg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"path"
	"strings"
)

// Tree is the boot tree as each machine sees it: the configuration files of
// PXELINUX, GRUB and iPXE, rendered for the machine when it opens them, above
// a common file system with kernels, initrds and loaders. It is served over
// TFTP through [Tree.For] and over HTTP as an [net/http.Handler].
//
// These names are rendered, in any directory, and hide those of Files while
// Source has a configuration for the machine:
//
//	pxelinux.cfg/...          the names of Client.Names
//	grub.cfg, grub.cfg-...    the names of Client.GRUBNames and GRUBAliases
//	boot.ipxe, autoexec.ipxe  and mac-<address>.ipxe, uuid-<uuid>.ipxe
//
// A machine that is known (by a lease, or an HTTP query) gets its own
// configuration at every name of its own, and names of other machines do not
// exist for it. A machine of which only the address is known is who the
// requested name says. At a name that says nothing it gets what Source has for
// its address; failing that, iPXE and GRUB get a dispatcher, a script that
// comes back with a name that has the hardware address in it, and PXELINUX,
// which has asked for all names that have one before, gets what unknown
// machines get.
//
// The fields are not changed by the Tree and must not be changed by others
// while it is in use. All methods may be called concurrently.
type Tree struct {
	// Source decides what a machine boots. It is asked at most once for each
	// file opened, and what was rendered is the same for a size probe and the
	// read that follows. nil renders nothing.
	Source Source
	// Lookup tells who has an address: the leases of a DHCP server. nil, or
	// an fs.ErrNotExist, means that it is not known. A Client without a MAC
	// counts as not known.
	Lookup func(ctx context.Context, addr netip.Addr) (Client, error)
	// Files is what lies beneath the rendered names. nil is an empty tree.
	Files fs.FS
	// BaseURL is where the tree is served over HTTP ("http://192.0.2.1/boot").
	// Scripts for iPXE then load everything from there, also when they came
	// over TFTP themselves. Empty: from the server that the script came from,
	// whose root must be the tree's.
	BaseURL string
	// Extra holds further rendered files, such as an lts.conf for each
	// machine. The key is a path in the tree, or a name without a slash,
	// which then is found in every directory. A function with nothing for
	// this machine returns fs.ErrNotExist, or no bytes.
	Extra map[string]func(ctx context.Context, c Client) ([]byte, error)
	// TrustQuery lets the query of an HTTP request name another machine than
	// the one that has a lease for the peer's address. Needed where the peer
	// is a proxy; otherwise a machine may read what belongs to another.
	TrustQuery bool
	// KnownOnly renders files only for machines that Lookup knows: neither
	// the name that a peer asks for nor its query says who it is. Set it
	// where every machine has a lease that Lookup sees; a rendered file can
	// hold a boot token or a secret, which any other peer could ask for by
	// its owner's name. Files are for everybody.
	KnownOnly bool
	// Trace watches. nil watches nothing.
	Trace *Trace
	// Logger gets each rendered file at Debug, and failures and refusals at
	// Warn. nil means slog.Default().
	Logger *slog.Logger
}

// Trace is a set of functions that are called as a [Tree] works; any may be
// nil. They may be called concurrently and should return quickly.
type Trace struct {
	// Rendered is called when a file was rendered for a machine. dispatcher
	// says that it only asks the machine who it is.
	Rendered func(ctx context.Context, c Client, name string, size int64, dispatcher bool)
	// Failed is called when a file exists but could not be rendered.
	Failed func(ctx context.Context, c Client, name string, err error)
	// Sent is called at the end of each HTTP request.
	Sent func(ctx context.Context, s Sent)
}

// For returns the tree as the client sees it. Only a client with a MAC counts
// as known; of any other the IP is used, as the address that it asks from.
//
// Each Open renders anew and the file opened stays as it is. Rendered names
// are not listed by directories, which are those of Files.
func (t *Tree) For(ctx context.Context, c Client) fs.FS {
	return &view{tree: t, ctx: ctx, client: c, known: len(c.MAC) > 0}
}

// ForAddr is For for the machine that has this address, according to Lookup.
func (t *Tree) ForAddr(ctx context.Context, addr netip.Addr) (fs.FS, error) {
	c, _, err := t.lookup(ctx, addr)
	if err != nil {
		return nil, err
	}
	return t.For(ctx, c), nil
}

// lookup never returns an error for an address that is not known.
func (t *Tree) lookup(ctx context.Context, addr netip.Addr) (c Client, known bool, err error) {
	addr = addr.Unmap()
	if t.Lookup != nil && addr.IsValid() {
		c, err = t.Lookup(ctx, addr)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			// Not knowing who asks must not open another machine's files.
			return Client{}, false, fmt.Errorf("who has %s: %w", addr, err)
		}
		if err == nil && len(c.MAC) > 0 {
			if !c.IP.IsValid() {
				c.IP = addr
			}
			return c, true, nil
		}
	}
	return Client{IP: addr}, false, nil
}

// view is a Tree for one client.
type view struct {
	tree   *Tree
	ctx    context.Context
	client Client
	known  bool
	http   bool
	host   string // of an HTTP request: http://host:port
	root   string // of an HTTP request: path of the tree
}

// Open implements fs.FS.
func (v *view) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	f, c, err := v.render(name)
	switch {
	case err != nil:
		v.tree.failed(v.ctx, c, name, err)
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	case f != nil:
		v.tree.rendered(v.ctx, c, f)
		return f, nil
	case v.tree.Files == nil:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return v.tree.Files.Open(name)
}

// render returns no file if the name is not a rendered one or there is nothing
// for the client there. An error is a failure whatever it wraps, so that a
// missing image does not pass for a missing file.
func (v *view) render(name string) (*file, Client, error) {
	c := v.client
	if v.tree.KnownOnly && !v.known {
		return nil, c, nil
	}
	extra := v.tree.Extra[name]
	if extra == nil {
		extra = v.tree.Extra[path.Base(name)]
	}
	if extra != nil {
		data, err := extra(v.ctx, c)
		if errors.Is(err, fs.ErrNotExist) || err == nil && len(data) == 0 {
			return nil, c, nil // PXELINUX, for one, takes empty for missing
		}
		return newFile(name, data, false), c, err
	}
	r, ok := parseRequest(name)
	if !ok || v.tree.Source == nil {
		return nil, c, nil
	}
	if !v.known {
		c = r.client(c.IP)
	}
	c.Loader = r.format.loader(c.Loader)
	if (v.known || r.ladder != "") && !r.belongsTo(c) {
		return nil, c, nil
	}
	cfg, err := ask(v.ctx, v.tree.Source, c)
	absent := errors.Is(err, fs.ErrNotExist)
	if err != nil && !absent {
		return nil, c, err
	}
	var b bytes.Buffer
	switch generic := !r.specific() && r.ladder == ""; {
	case !v.known && generic && r.format != formatPXELINUX && (absent || cfg.Fallback):
		if err := v.writeDispatcher(&b, &r, cfg, c); err != nil {
			return nil, c, err
		}
		return newFile(name, b.Bytes(), true), c, nil
	case absent, !v.known && !generic && cfg.Fallback: // a later name may say more
		return nil, c, nil
	}
	if err := v.write(&b, &r, cfg, c); err != nil {
		return nil, c, err
	}
	return newFile(name, b.Bytes(), false), c, nil
}

func (v *view) write(w io.Writer, r *request, cfg *Config, c Client) error {
	target := v.target(r, c)
	switch r.format {
	case formatPXELINUX:
		return cfg.WritePXELINUX(w, target)
	case formatGRUB:
		return cfg.WriteGRUB(w, target)
	}
	return cfg.WriteIPXE(w, target)
}

func (v *view) target(r *request, c Client) Target {
	target := Target{Prefix: r.prefix, Client: c}
	switch {
	case r.format == formatIPXE && v.tree.BaseURL != "":
		target.BaseURL = v.tree.BaseURL
	case r.format == formatPXELINUX && v.http:
		target.BaseURL = v.tree.BaseURL
		if target.BaseURL == "" {
			target.BaseURL = v.host + v.root
		}
	case v.http:
		target.BaseURL = v.root
	}
	return target
}

// client returns whom a name speaks of when nothing but the address is known
// of who asks.
func (r *request) client(peer netip.Addr) Client {
	if !r.specific() {
		return Client{IP: peer}
	}
	c := r.named
	c.Peer = peer
	return c
}

// belongsTo tells whether a name is one of a known client's own.
func (r *request) belongsTo(c Client) bool {
	switch n := &r.named; {
	case len(n.MAC) > 0:
		// GRUB and U-Boot write 01 whatever the network is.
		return sameMAC(n.MAC, c.MAC) && (n.HardwareType <= 1 || n.HardwareType == c.hardwareType())
	case n.UUID != "":
		return sameUUID(n.UUID, c.UUID)
	case n.IP.IsValid():
		return n.IP == c.IP.Unmap()
	case r.ladder != "":
		h, ok := c.hexIP()
		return ok && strings.HasPrefix(h, r.ladder)
	}
	return true
}

func (t *Tree) rendered(ctx context.Context, c Client, f *file) {
	t.logger().Debug("rendered", "name", f.path, "client", c.String(), "bytes", len(f.data), "dispatcher", f.dispatcher)
	if t.Trace != nil && t.Trace.Rendered != nil {
		t.Trace.Rendered(ctx, c, f.path, int64(len(f.data)), f.dispatcher)
	}
}

func (t *Tree) failed(ctx context.Context, c Client, name string, err error) {
	t.logger().Warn("cannot render a boot configuration", "name", name, "client", c.String(), "err", err)
	if t.Trace != nil && t.Trace.Failed != nil {
		t.Trace.Failed(ctx, c, name, err)
	}
}

func (t *Tree) logger() *slog.Logger {
	if t.Logger != nil {
		return t.Logger
	}
	return slog.Default()
}
