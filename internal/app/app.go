// Package app composes the packages of this module into the server that the
// diskless binary runs: it turns a configuration into handlers, listens, and
// ties what the servers see to the machine it happened to.
package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/dhcp/dhcp6"
	"github.com/seed-3ec230fa/diskless/internal/config"
	"github.com/seed-3ec230fa/diskless/internal/timeline"
	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/pxecfg"
	"github.com/seed-3ec230fa/diskless/tftp"
)

// App is a configured server. Make it with New, run it once with Run.
type App struct {
	// Timeline gets an event for each stage of each machine's boot.
	Timeline timeline.Timeline
	// Roots are the writable roots, for commands. Nil without the NBD role.
	Roots *nbd.Roots
	// Ready, when set, is called once all roles accept requests.
	Ready func()

	cfg      *config.Config
	log      *slog.Logger
	machines *pxecfg.Machines
	rules    *pxecfg.Rules // nil without any
	booted   pxecfg.BootState
	images   *nbd.Images
	pool     *dhcp.Pool // nil where we give no addresses
	leases   leaseStore // nil without server.state and dhcp.etcd
	loaders  loaderFS
	dirs     []*tftp.DirFS
	uploads  *os.Root // nil where none are taken
	tree     *pxecfg.Tree
	addons   *addons

	// Nil without dhcp.v6; one of pool6 and stateless6.
	pool6      *dhcp6.Pool
	stateless6 *dhcp6.Stateless
	tree6      *pxecfg.Tree // tree, for clients over IPv6
}

// Sockets are listeners made elsewhere: by a test, a demo or a service
// manager. What is nil is opened as the configuration says.
type Sockets struct {
	DHCP, TFTP net.PacketConn
	ProxyDHCP  net.PacketConn // port 4011, with dhcp.proxy
	DHCPv6     net.PacketConn // with dhcp.v6
	HTTP, NBD  net.Listener
	Admin      net.Listener
}

const shutdownTime = 10 * time.Second // for what is in flight

// New makes a server from a configuration. It reads every image once, which
// takes about a second per gigabyte the first time.
func New(ctx context.Context, cfg *config.Config, log *slog.Logger) (_ *App, err error) {
	log = slog.New(LimitLog(log.Handler()))
	a := &App{cfg: cfg, log: log, loaders: findLoaders("/")}
	a.Timeline.Logger = log
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	if err := a.openTree(); err != nil {
		return nil, err
	}
	if err := a.openUploads(); err != nil {
		return nil, err
	}
	if err := a.openImages(ctx); err != nil {
		return nil, err
	}
	if err := a.openMachines(); err != nil {
		return nil, err
	}
	if a.addons, err = newAddons(a); err != nil {
		return nil, err
	}
	if cfg.ServesDHCP() {
		if err := a.openDHCP(ctx); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// Run serves until ctx is done, then lets what is in flight end. It returns
// nil after an orderly end, and the error of the first role that fails.
func (a *App) Run(ctx context.Context, s Sockets) error {
	defer a.close()
	watch := s.DHCP == nil && a.cfg.GivesAddresses() && a.cfg.DHCP.OtherServer == "refuse"
	if err := a.listen(ctx, &s); err != nil {
		s.close()
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	role := func(name string, serve func() error, shutdown func(context.Context) error) {
		group.Go(func() error {
			if err := serve(); !isClosed(err) {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
		group.Go(func() error {
			<-ctx.Done()
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
			defer cancel()
			if err := shutdown(stop); err != nil {
				a.log.Warn("did not end in time; connections were cut", "role", name, "err", err)
			}
			return nil
		})
	}
	if s.DHCP != nil {
		srv := a.dhcpServer()
		role("dhcp", func() error { return srv.Serve(s.DHCP) }, closeAfter(srv.Shutdown, srv.Close))
		if s.ProxyDHCP != nil {
			role("proxydhcp", func() error { return srv.Serve(s.ProxyDHCP) }, srv.Shutdown)
		}
	}
	if watch { // as before the start, so afterwards
		group.Go(func() error {
			err := (&dhcp.Watch{Interface: a.cfg.DHCP.Interface, Known: a.peers(), Logger: a.log}).Run(ctx)
			if err != nil {
				a.log.Warn("no look-out for other DHCP servers", "err", err)
			}
			return nil
		})
	}
	if s.DHCPv6 != nil {
		srv := a.dhcp6Server()
		role("dhcp.v6", func() error { return srv.Serve(s.DHCPv6) }, closeAfter(srv.Shutdown, srv.Close))
	}
	if s.TFTP != nil {
		srv := a.tftpServer()
		role("tftp", func() error { return srv.Serve(s.TFTP) }, closeAfter(srv.Shutdown, srv.Close))
	}
	if s.HTTP != nil {
		srv := a.httpServer()
		role("http", func() error { return srv.Serve(limitConns(s.HTTP, httpConns, httpConnsPerAddr)) }, closeAfter(srv.Shutdown, srv.Close))
	}
	if s.NBD != nil {
		srv := a.nbdServer()
		role("nbd", func() error { return srv.Serve(s.NBD) }, closeAfter(srv.Shutdown, srv.Close))
	}
	if s.Admin != nil {
		srv := &http.Server{Handler: a.adminHandler(), ReadHeaderTimeout: 10 * time.Second}
		role("admin", func() error { return srv.Serve(s.Admin) }, closeAfter(srv.Shutdown, srv.Close))
	}
	if a.Ready != nil {
		a.Ready()
	}
	return group.Wait()
}

// closeAfter cuts what a graceful end did not end in time.
func closeAfter(shutdown func(context.Context) error, cut func() error) func(context.Context) error {
	return func(ctx context.Context) error {
		err := shutdown(ctx)
		if err != nil {
			_ = cut()
		}
		return err
	}
}

func isClosed(err error) bool {
	return err == nil || errors.Is(err, dhcp.ErrServerClosed) || errors.Is(err, dhcp6.ErrServerClosed) || errors.Is(err, tftp.ErrServerClosed) ||
		errors.Is(err, nbd.ErrServerClosed) || errors.Is(err, http.ErrServerClosed)
}

// openImages registers the images, and the roots over them.
func (a *App) openImages(ctx context.Context) error {
	if !a.cfg.ServesNBD() {
		return nil
	}
	a.images = &nbd.Images{Check: wholeImage, Logger: a.log}
	a.Roots = &nbd.Roots{Images: a.images, Quota: a.cfg.NBD.Quota.Bytes, Logger: a.log}
	if state := a.cfg.Server.State; state != "" {
		if err := os.MkdirAll(state, 0o700); err != nil {
			return fmt.Errorf("server.state: %w", err)
		}
		a.images.Cache = filepath.Join(state, "digests.json")
		a.images.Dir = filepath.Join(state, "images")
		if keep := a.cfg.NBD.Keep; keep != nil {
			a.images.Keep = *keep
			if *keep == 0 {
				a.images.Keep = -1
			}
		}
		a.Roots.Dir = filepath.Join(state, "nbd")
	}
	if a.images.Dir != "" {
		if err := a.images.Load(ctx); err != nil {
			return err
		}
	}
	for _, i := range a.cfg.Images {
		if err := a.images.Add(ctx, i.Name, i.File); err != nil {
			return fmt.Errorf("image %s: %w", i.Name, err)
		}
	}
	if err := a.openSwap(ctx); err != nil {
		return err
	}
	gone, err := a.images.Prune()
	if err != nil {
		return fmt.Errorf("server.state: %w", err)
	}
	if len(gone) > 0 {
		a.log.Info("former generations are removed: their images are not in the configuration any more, or nbd.keep is smaller", "images", gone)
	}
	if _, err := a.Roots.List(ctx); err != nil {
		return err // a broken state directory, or another server's
	}
	if a.cfg.Server.State == "" {
		for _, e := range a.cfg.Entries {
			if e.Root == config.RootKept {
				a.log.Warn("kept roots are in memory and will be gone when this server stops; set server.state", "entry", e.Name)
				break
			}
		}
	}
	return nil
}

func (a *App) close() {
	for _, d := range a.dirs {
		_ = d.Close()
	}
	if a.uploads != nil {
		_ = a.uploads.Close()
	}
	if a.Roots != nil {
		if err := a.Roots.Close(); err != nil {
			a.log.Error("roots were not closed in order; what machines had not flushed may be lost", "err", err)
		}
	}
	if a.images != nil {
		_ = a.images.Close()
	}
	if a.leases != nil {
		_ = a.leases.Close() // what was acknowledged is on disk
	}
}

// client says who is at an address: the machine that has the lease. Without a
// lease nothing but the address is known.
func (a *App) client(ctx context.Context, addr netip.Addr) (pxecfg.Client, error) {
	find := a.lease6
	if addr.Unmap().Is4() {
		if a.pool == nil {
			return pxecfg.Client{}, fs.ErrNotExist
		}
		find = a.pool.LeaseByAddr
	}
	lease, err := find(ctx, addr)
	if err != nil {
		return pxecfg.Client{}, err
	}
	c := pxecfg.Client{UUID: lease.UUID, MAC: lease.HardwareAddr, IP: addr, Hostname: lease.Hostname}
	if len(lease.Archs) > 0 {
		c.Arch, c.ArchKnown = lease.Archs[0], true
	}
	if m := a.machine(c); isUBoot(c.Arch) || m != nil && m.Loader == config.LoaderUBoot {
		c.Loader = pxecfg.LoaderUBoot // nothing in what it asks for tells
	}
	return c, nil
}

// who is the client as the timeline names it.
func (a *App) who(c pxecfg.Client) timeline.Who {
	w := timeline.Who{MAC: c.MAC.String(), Addr: c.IP}
	if m := a.machine(c); m != nil {
		w.Name = m.Name
		if w.MAC == "" {
			w.MAC = m.MAC.String()
		}
	}
	return w
}

// peer is who for an address.
func (a *App) peer(ctx context.Context, addr netip.Addr) timeline.Who {
	c, err := a.client(ctx, addr)
	if err != nil {
		c = pxecfg.Client{IP: addr}
	}
	return a.who(c)
}
