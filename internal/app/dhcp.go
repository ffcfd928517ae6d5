package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/internal/config"
	"github.com/seed-3ec230fa/diskless/internal/timeline"
	"github.com/seed-3ec230fa/diskless/pxecfg"
)

// leasesFile is in server.state.
const leasesFile = "leases.journal"

// leaseStore is where the leases are.
type leaseStore interface {
	dhcp.LeaseStore
	io.Closer
}

// peers are the servers that share our leases.
func (a *App) peers() []netip.Addr {
	var list []netip.Addr
	if e := a.cfg.DHCP.Etcd; e != nil {
		for _, s := range e.Servers {
			list = append(list, s.Addr)
		}
	}
	return list
}

// openDHCP makes what the DHCP role answers from.
func (a *App) openDHCP(ctx context.Context) error {
	if err := Check(ctx, a.cfg); err != nil {
		return err
	}
	if err := a.requireLoaders(); err != nil {
		return err
	}
	if !a.cfg.GivesAddresses() && !a.cfg.ServesDHCPv6() {
		return nil
	}
	if a.cfg.GivesAddresses() && a.cfg.DHCP.Etcd != nil {
		leases, err := openEtcd(ctx, a.cfg, a.log)
		if err != nil {
			return err
		}
		a.leases = leases
	} else if state := a.cfg.Server.State; state != "" {
		if err := os.MkdirAll(state, 0o700); err != nil {
			return fmt.Errorf("server.state: %w", err)
		}
		leases, err := dhcp.OpenFileStore(filepath.Join(state, leasesFile), &dhcp.FileStoreOptions{Logger: a.log})
		if err != nil {
			return fmt.Errorf("server.state: %w", err)
		}
		a.leases = leases
	}
	if a.cfg.ServesDHCPv6() {
		if err := a.openDHCP6(); err != nil {
			return err
		}
	}
	if !a.cfg.GivesAddresses() {
		return nil
	}
	a.pool = a.newPool()
	if err := a.pool.Validate(); err != nil {
		return fmt.Errorf("dhcp: %w", err)
	}
	return nil
}

// newPool is the pool of addresses, with a reservation for each machine.
func (a *App) newPool() *dhcp.Pool {
	d := a.cfg.DHCP
	p := &dhcp.Pool{
		Prefix: d.Subnet.Prefix, ServerID: a.cfg.Server.Address.Addr, Router: d.Router.Addr,
		Domain: d.Domain, LeaseTime: d.Lease.Duration, Peers: a.peers(), Logger: a.log,
	}
	if a.leases != nil {
		p.Store = a.leases
	}
	if d.Probe == nil || *d.Probe {
		p.InUse = new(dhcp.Prober).InUse
	}
	for _, r := range d.Ranges {
		p.Ranges = append(p.Ranges, dhcp.Range{First: r.From, Last: r.To})
	}
	for _, s := range d.DNS {
		p.DNS = append(p.DNS, s.Addr)
	}
	for _, m := range a.cfg.Machines {
		if m.MAC.HardwareAddr != nil {
			p.Reservations = append(p.Reservations, dhcp.Reservation{
				HardwareAddr: m.MAC.HardwareAddr, Addr: m.Address.Addr, Hostname: m.Name,
			})
		}
	}
	return p
}

// Check reports, as a mistake of the configuration, what firmware could not
// boot by: it is told what machines will be told. What config.Load checks is
// not checked again.
func Check(ctx context.Context, cfg *config.Config) error {
	if !cfg.ServesDHCP() {
		return nil
	}
	a := &App{cfg: cfg}
	var errs []error
	checked := map[config.Loader]bool{}
	check := func(field *config.Loader) {
		loader := *field
		if checked[loader] {
			return
		}
		checked[loader] = true
		boot := func(_ context.Context, r *dhcp.Request) (dhcp.Boot, error) {
			arch, _ := r.Arch()
			file, err := a.loaderFor(loader, r.Platform(), arch)
			return dhcp.Boot{NextServer: a.nextServer(), File: file}, err
		}
		// What there is no loader for is said when such a machine asks.
		quiet := slog.New(slog.DiscardHandler)
		var err error
		if cfg.DHCP.Proxy {
			err = (&dhcp.Proxy{ServerID: cfg.Server.Address.Addr, Boot: boot, Logger: quiet}).Check(ctx, true)
		} else {
			err = (&dhcp.BootPolicy{Boot: boot, Logger: quiet}).Check(ctx, false)
		}
		if err == nil {
			return
		}
		// Loaders have names of ours; the rest of an answer is the URL.
		fields := []any{field, cfg.DHCP}
		if cfg.HTTP != nil {
			fields = append([]any{&cfg.HTTP.URL}, fields...)
		}
		errs = append(errs, cfg.Mistake(strings.TrimSuffix(err.Error(), ": invalid argument"), fields...))
	}
	check(&cfg.Loader)
	for i := range cfg.Machines {
		check(&cfg.Machines[i].Loader)
	}
	if cfg.ServesDHCPv6() {
		errs = append(errs, check6(ctx, cfg))
	}
	return errors.Join(errs...)
}

func (a *App) dhcpServer() *dhcp.Server {
	s := &dhcp.Server{
		Interfaces: []string{a.cfg.DHCP.Interface},
		Logger:     a.log,
		Trace:      &dhcp.Trace{Reply: a.dhcpReplied},
	}
	if a.cfg.DHCP.Proxy {
		s.Handler = &dhcp.Proxy{ServerID: a.cfg.Server.Address.Addr, Boot: a.bootFile, Logger: a.log}
	} else {
		s.Handler = &dhcp.BootPolicy{Next: a.pool, Boot: a.bootFile, Logger: a.log}
	}
	return s
}

func (a *App) dhcpReplied(r *dhcp.Request, reply *dhcpv4.DHCPv4, _ netip.AddrPort) {
	file := bootFileName(reply)
	addr, _ := netip.AddrFromSlice(reply.YourIPAddr.To4())
	what := addr.String()
	switch {
	case a.cfg.DHCP.Proxy && file == "":
		return // it comes to port 4011 for that
	case a.cfg.DHCP.Proxy:
		addr, what = netip.Addr{}, "proxy"
	case reply.MessageType() != dhcpv4.MessageTypeAck:
		return
	}
	if file != "" {
		what += " -> " + file
	}
	a.Timeline.Add(timeline.Event{
		Who:   a.who(pxecfg.Client{MAC: r.ClientHWAddr, UUID: r.UUID(), IP: addr}),
		Stage: "dhcp", What: what,
	})
}

func bootFileName(m *dhcpv4.DHCPv4) string {
	if name := m.BootFileNameOption(); name != "" {
		return name
	}
	return m.BootFileName
}
