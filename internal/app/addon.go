package app

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/seed-3ec230fa/diskless/internal/config"
	"github.com/seed-3ec230fa/diskless/internal/timeline"
	"github.com/seed-3ec230fa/diskless/ltsconf/initrd"
	"github.com/seed-3ec230fa/diskless/pxecfg"
)

// Names of the add-on in the boot tree. A machine's archive holds its secrets,
// and beside another DHCP server nothing says who asks: so its name has a part
// that only those know who could read the machine's boot configuration.
const (
	addonDir     = "diskless/"
	addonMachine = addonDir + "machine-" // machine-NAME-TAG.img
	addonAnybody = addonDir + "any-"     // any-TAG.img
	addonModules = addonDir + "modules-" // modules-DIGEST.img
	addonUp      = addonDir + "up/"      // up/NAME-TAG, up/-TAG of any other
)

// addons makes the second initramfs of each machine.
type addons struct {
	app    *App
	secret []byte

	mu         sync.Mutex
	identities map[string]*identity // of machines, without server.state
	modules    map[moduleKey]string // names
	archives   map[string][]byte    // by name
	order      []string             // of archives, oldest first
}

func newAddons(a *App) (*addons, error) {
	d := &addons{app: a, identities: map[string]*identity{}, modules: map[moduleKey]string{}, archives: map[string][]byte{}}
	secret := make([]byte, 32)
	_, _ = rand.Read(secret)
	if a.cfg.Server.State == "" {
		d.secret = secret
		return d, nil
	}
	// Kept, so that a machine that has read its boot configuration before the
	// server was started anew finds what that names.
	err := os.MkdirAll(a.cfg.Server.State, 0o700)
	if err == nil {
		d.secret, err = keepFile(filepath.Join(a.cfg.Server.State, "addon.secret"), func() ([]byte, error) { return secret, nil })
	}
	if err == nil && len(d.secret) < 16 {
		err = errors.New("addon.secret is damaged; remove it")
	}
	if err != nil {
		return nil, fmt.Errorf("server.state: %w", err)
	}
	return d, nil
}

func (d *addons) tag(name string) string {
	h := hmac.New(sha256.New, d.secret)
	h.Write([]byte(name))
	return strings.ToLower(base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString(h.Sum(nil)[:15]))
}

// files are what a machine loads behind an entry's own.
func (d *addons) files(e config.Entry, m *config.Machine) []string {
	if !d.app.cfg.HasAddon(e) {
		return nil
	}
	var names []string
	if modules := d.modulesFor(e); modules != "" {
		names = append(names, modules)
	}
	if m == nil {
		return append(names, addonAnybody+d.tag(anybody)+".img")
	}
	return append(names, addonMachine+m.Name+"-"+d.tag(m.Name)+".img")
}

// anybody's tag is that of no machine's name.
const anybody = ""

// owner returns the machine that an archive is for. ok says that the name is
// one that was given out; a nil machine is any that nobody configured.
func (d *addons) owner(name string) (m *config.Machine, ok bool) {
	if tag, found := strings.CutPrefix(name, addonAnybody); found {
		return nil, hmac.Equal([]byte(tag), []byte(d.tag(anybody)))
	}
	if name, ok = strings.CutPrefix(name, addonMachine); !ok {
		return nil, false
	}
	m = d.named(name)
	return m, m != nil
}

// named returns the machine of NAME-TAG, or nil.
func (d *addons) named(name string) *config.Machine {
	i := strings.LastIndexByte(name, '-')
	if i <= 0 || !hmac.Equal([]byte(name[i+1:]), []byte(d.tag(name[:i]))) {
		return nil
	}
	for j := range d.app.cfg.Machines {
		if m := &d.app.cfg.Machines[j]; m.Name == name[:i] {
			return m
		}
	}
	return nil
}

// allowed returns who asks, if that may be the machine.
func (d *addons) allowed(ctx context.Context, peer netip.Addr, m *config.Machine) (pxecfg.Client, error) {
	c, err := d.app.client(ctx, peer)
	if errors.Is(err, fs.ErrNotExist) {
		if d.app.treeFor(peer).KnownOnly {
			return c, fmt.Errorf("%s has no lease: %w", peer, fs.ErrPermission)
		}
		c = pxecfg.Client{IP: peer}
		if m != nil {
			c.MAC, c.UUID = m.MAC.HardwareAddr, m.UUID
		}
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("whose address %s is: %w", peer, err)
	}
	if m != nil && d.app.machine(c) != m {
		return c, fmt.Errorf("%s has the lease of %s, who is not %s: %w", peer, c, m.Name, fs.ErrPermission)
	}
	return c, nil
}

// open returns the add-on's file of that name for whoever asks from an address.
func (d *addons) open(ctx context.Context, peer netip.Addr, name string) (fs.File, error) {
	f, err := d.reader(ctx, peer.Unmap(), name)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			d.app.log.Warn("an add-on was not given", "name", name, "peer", peer, "err", err)
		}
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return f, nil
}

// addonReader is a file of the add-on, of a size that is known before it is read.
type addonReader interface {
	fs.File
	io.ReadSeeker
	Size() int64
}

func (d *addons) reader(ctx context.Context, peer netip.Addr, name string) (addonReader, error) {
	if strings.HasPrefix(name, addonJoined) {
		return d.openJoined(ctx, peer, name)
	}
	data, err := d.read(ctx, peer, name)
	if err != nil {
		return nil, err
	}
	return &addonFile{Reader: bytes.NewReader(data), name: name}, nil
}

func (d *addons) read(ctx context.Context, peer netip.Addr, name string) ([]byte, error) {
	if strings.HasPrefix(name, addonModules) {
		d.mu.Lock()
		defer d.mu.Unlock()
		if data, ok := d.archives[name]; ok {
			return data, nil
		}
		return nil, fs.ErrNotExist
	}
	base, ok := strings.CutSuffix(name, ".img")
	if !ok {
		return nil, fs.ErrNotExist
	}
	m, ok := d.owner(base)
	if !ok {
		return nil, fs.ErrNotExist
	}
	c, err := d.allowed(ctx, peer, m)
	if err != nil {
		return nil, err
	}
	return d.build(ctx, c, m)
}

// build makes the archive: some 30 KiB in a fraction of a millisecond, so that
// nothing is gained by keeping it.
func (d *addons) build(ctx context.Context, c pxecfg.Client, m *config.Machine) ([]byte, error) {
	settings, err := d.app.settings(c, m)
	if err != nil {
		// The machine boots without settings rather than not at all.
		d.app.log.Error("a machine boots without its settings", "client", c.String(), "err", err)
		settings = []initrd.Setting{{Name: "its settings", Value: ""}}
	}
	o := d.app.cfg.InitrdOptions()
	if m != nil {
		o.Hostname = m.Name
		id, err := d.identity(m.Name)
		if err != nil {
			return nil, fmt.Errorf("machine-id and host key of %s: %w", m.Name, err)
		}
		o.MachineID, o.HostKeys = id.MachineID, map[string][]byte{"ssh_host_ed25519_key": []byte(id.HostKey)}
		if o.Swap, err = d.app.swap(ctx, m); err != nil {
			d.app.log.Error("a machine boots without its swap area", "machine", m.Name, "err", err)
			o.Swap = initrd.Swap{}
		}
	}
	if h := d.app.cfg.HTTP; h != nil && d.app.cfg.ServesHTTP() && strings.HasPrefix(h.URL, "http://") {
		name := anybody
		if m != nil {
			name = m.Name
		}
		o.Report = strings.TrimSuffix(h.URL, "/") + "/" + addonUp + name + "-" + d.tag(name)
	}
	return initrd.Build(settings, nil, &o)
}

// serveHTTP serves what is below addonDir.
func (d *addons) serveHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	var peer netip.Addr
	if ap, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		peer = ap.Addr().Unmap().WithZone("")
	}
	name := strings.TrimPrefix(r.URL.Path, "/")
	if up, ok := strings.CutPrefix(name, addonUp); ok {
		d.up(w, r, peer, up)
		return
	}
	f, err := d.open(r.Context(), peer, name)
	switch {
	case errors.Is(err, fs.ErrNotExist): // or a file
		d.app.byFamily().ServeHTTP(w, r)
		return
	case errors.Is(err, fs.ErrPermission):
		http.Error(w, http.StatusText(http.StatusForbidden), http.StatusForbidden)
		return
	case err != nil:
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	defer f.Close()
	file := f.(addonReader)
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Cache-Control", "no-store")
	http.ServeContent(w, r, "", time.Time{}, file)
	if r.Method == http.MethodGet {
		c, _ := d.app.client(r.Context(), peer)
		if c.MAC == nil {
			c.IP = peer
		}
		d.app.Timeline.Add(timeline.Event{Who: d.app.who(c), Stage: "http", What: name, Bytes: file.Size(), Took: time.Since(start)})
	}
}

const maxFailed = 32 // names of settings in a report

// settingName is what a report names.
var settingName = regexp.MustCompile(`^[A-Za-z0-9_/.-]{1,255}$`)

// reportTimes says when a machine was up, if it has told that.
func reportTimes(began, ended, up string) string {
	var seconds [3]float64
	for i, s := range []string{began, ended, up} {
		n, err := strconv.ParseFloat(s, 64)
		if err != nil || !(n >= 0 && n < 1e9) || i > 0 && n < seconds[i-1] {
			return "up"
		}
		seconds[i] = n
	}
	return fmt.Sprintf("up %.1fs after its kernel, root ready in %.1fs", seconds[2], seconds[1]-seconds[0])
}

// up takes a machine's word that it is up.
func (d *addons) up(w http.ResponseWriter, r *http.Request, peer netip.Addr, name string) {
	m := d.named(name)
	if m == nil && !hmac.Equal([]byte(name), []byte(anybody+"-"+d.tag(anybody))) {
		http.NotFound(w, r)
		return
	}
	c, err := d.allowed(r.Context(), peer, m)
	if err != nil {
		d.app.log.Warn("a report was not taken", "peer", peer, "err", err)
		http.Error(w, http.StatusText(http.StatusForbidden), http.StatusForbidden)
		return
	}
	q := r.URL.Query()
	failed := q["failed"]
	failed = failed[:min(len(failed), maxFailed)]
	for i := range failed {
		if !settingName.MatchString(failed[i]) {
			failed[i] = "OTHER"
		}
	}
	what := reportTimes(q.Get("began"), q.Get("ended"), q.Get("up"))
	if len(failed) > 0 {
		d.app.log.Warn("settings have failed; the machine's console and journal say why", "client", c.String(), "settings", failed)
		what += fmt.Sprintf(", %d settings failed", len(failed))
	}
	who := d.app.who(c)
	if m != nil {
		who = timeline.Who{Name: m.Name, MAC: m.MAC.String()}
	}
	who.Addr = peer
	d.app.Timeline.Add(timeline.Event{Who: who, Stage: "booted", What: what})
	w.WriteHeader(http.StatusNoContent)
}

// view is the boot tree with the add-on in it, as a peer sees it.
func (d *addons) view(ctx context.Context, peer netip.Addr, tree fs.FS) fs.FS {
	return &addonView{tree, d, ctx, peer}
}

type addonView struct {
	fs.FS
	addons *addons
	ctx    context.Context
	peer   netip.Addr
}

// Open implements fs.FS. What the add-on does not have may be a file.
func (v *addonView) Open(name string) (fs.File, error) {
	if strings.HasPrefix(name, addonDir) {
		f, err := v.addons.open(v.ctx, v.peer, name)
		if !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	}
	return v.FS.Open(name)
}

// addonFile has no time, so that nobody keeps it by its name and time.
type addonFile struct {
	*bytes.Reader
	name string
}

func (f *addonFile) Stat() (fs.FileInfo, error) { return f, nil }
func (f *addonFile) Close() error               { return nil }
func (f *addonFile) Name() string               { return f.name[strings.LastIndexByte(f.name, '/')+1:] }
func (f *addonFile) Mode() fs.FileMode          { return 0o444 }
func (f *addonFile) ModTime() time.Time         { return time.Time{} }
func (f *addonFile) IsDir() bool                { return false }
func (f *addonFile) Sys() any                   { return nil }
