package app

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/dhcp/dhcp6"
	"github.com/seed-3ec230fa/diskless/internal/config"
	"github.com/seed-3ec230fa/diskless/internal/timeline"
	"github.com/seed-3ec230fa/diskless/pxecfg"
)

// openDHCP6 makes what DHCPv6 is answered from.
func (a *App) openDHCP6() error {
	d := a.cfg.DHCP.V6
	var domains []string
	if d.Domain != "" {
		domains = []string{d.Domain}
	}
	var dns []netip.Addr
	for _, s := range d.DNS {
		dns = append(dns, s.Addr)
	}
	if d.Stateless {
		a.stateless6 = &dhcp6.Stateless{ServerID: a.serverID6(), DNS: dns, Domains: domains}
		if err := a.stateless6.Validate(); err != nil {
			return fmt.Errorf("dhcp.v6: %w", err)
		}
		return nil
	}
	p := &dhcp6.Pool{
		Prefix: d.Subnet.Prefix, ServerID: a.serverID6(), LeaseTime: d.Lease.Duration, DNS: dns, Domains: domains, Logger: a.log,
		Exclude: []dhcp.Range{{First: d.Address.Addr, Last: d.Address.Addr}},
	}
	if a.leases != nil {
		p.Store = a.leases
	}
	for _, r := range d.Ranges {
		p.Ranges = append(p.Ranges, dhcp.Range{First: r.From, Last: r.To})
	}
	for _, m := range a.cfg.Machines {
		if m.MAC.HardwareAddr != nil {
			p.Reservations = append(p.Reservations, dhcp6.Reservation{
				HardwareAddr: m.MAC.HardwareAddr, Addr: m.Address6.Addr, Hostname: m.Name,
			})
		}
	}
	if err := p.Validate(); err != nil {
		return fmt.Errorf("dhcp.v6: %w", err)
	}
	a.pool6 = p
	return nil
}

// serverID6 is the server's DUID: the same after a restart, on whatever card.
func (a *App) serverID6() dhcpv6.DUID {
	id := &dhcpv6.DUIDUUID{}
	sum := sha256.Sum256([]byte("diskless dhcp.v6 " + a.cfg.DHCP.V6.Address.String()))
	copy(id.UUID[:], sum[:])
	id.UUID[6] = id.UUID[6]&0x0f | 0x80 // RFC 9562 section 5.8: made our own way
	id.UUID[8] = id.UUID[8]&0x3f | 0x80
	return id
}

// lease6 is the lease of an IPv6 address. A machine may use one that it has made
// itself besides, or alone, of its hardware address (RFC 4291 appendix A); on
// our link that is as good as an address that was given to it.
func (a *App) lease6(ctx context.Context, addr netip.Addr) (dhcp.Lease, error) {
	if !a.cfg.ServesDHCPv6() {
		return dhcp.Lease{}, fs.ErrNotExist
	}
	d := a.cfg.DHCP.V6
	link := d.Subnet.Prefix
	if a.pool6 != nil {
		if l, err := a.pool6.LeaseByAddr(ctx, addr); !errors.Is(err, fs.ErrNotExist) {
			return l, err
		}
	} else {
		link = netip.PrefixFrom(d.Address.Addr, 64).Masked()
	}
	if b := addr.As16(); link.Contains(addr.WithZone("")) && b[11] == 0xff && b[12] == 0xfe {
		l := dhcp.Lease{Addr: addr, HardwareAddr: net.HardwareAddr{b[8] ^ 2, b[9], b[10], b[13], b[14], b[15]}}
		if m := a.machine(pxecfg.Client{MAC: l.HardwareAddr}); m != nil {
			l.Hostname = m.Name
		}
		return l, nil
	}
	return dhcp.Lease{}, fs.ErrNotExist
}

func (a *App) dhcp6Server() *dhcp6.Server {
	policy := &dhcp6.BootPolicy{Next: a.pool6, Boot: a.bootFile6, Logger: a.log}
	if a.stateless6 != nil {
		policy.Next = a.stateless6
	}
	return &dhcp6.Server{
		Interfaces: []string{a.cfg.DHCP.Interface}, Handler: policy, Logger: a.log, Trace: &dhcp6.Trace{Reply: a.dhcp6Replied},
	}
}

func (a *App) dhcp6Replied(r *dhcp6.Request, reply *dhcpv6.Message, _ netip.AddrPort) {
	if reply.MessageType != dhcpv6.MessageTypeReply || r.MessageType == dhcpv6.MessageTypeRelease || r.MessageType == dhcpv6.MessageTypeDecline {
		return
	}
	what := "options"
	var addr netip.Addr
	if ia := reply.Options.OneIANA(); ia != nil && ia.Options.OneAddress() != nil {
		addr, _ = netip.AddrFromSlice(ia.Options.OneAddress().IPv6Addr)
		what = addr.String()
	}
	if file := reply.Options.BootFileURL(); file != "" {
		what += " -> " + file
	}
	a.Timeline.Add(timeline.Event{
		Who:   a.who(pxecfg.Client{MAC: r.HardwareAddr(), UUID: r.UUID(), IP: addr}),
		Stage: "dhcp6", What: what,
	})
}

// bootFile6 says what a client loads next over IPv6: iPXE, whatever loader is
// configured, for the others find their configuration over IPv4 only.
func (a *App) bootFile6(ctx context.Context, r *dhcp6.Request) (dhcp6.Boot, error) {
	c := pxecfg.Client{UUID: r.UUID(), MAC: r.HardwareAddr()}
	c.Arch, c.ArchKnown = r.Arch()
	_, file, err := a.loader(ctx, c, r.Platform())
	if err != nil || file == "" {
		return dhcp6.Boot{}, err
	}
	file, err = a.loaderFor(config.LoaderIPXE, r.Platform(), c.Arch)
	return dhcp6.Boot{URL: a.url6(file)}, err
}

// url6 is the URL over IPv6 of what loaderFor names.
func (a *App) url6(file string) string {
	if a.cfg.HTTP != nil {
		if path, ok := strings.CutPrefix(file, a.cfg.HTTP.URL+"/"); ok {
			return a.httpURL6() + "/" + path
		}
	}
	return (&url.URL{Scheme: "tftp", Host: "[" + a.cfg.DHCP.V6.Address.String() + "]", Path: "/" + file}).String()
}

// httpURL6 is http.url for clients over IPv6: with this server's address in
// place of one of IPv4. A name is for both.
func (a *App) httpURL6() string {
	u, err := url.Parse(a.cfg.HTTP.URL)
	if err != nil {
		return a.cfg.HTTP.URL // it was checked
	}
	if addr, err := netip.ParseAddr(u.Hostname()); err != nil || !addr.Is4() {
		return a.cfg.HTTP.URL
	}
	host := "[" + a.cfg.DHCP.V6.Address.String() + "]"
	if port := u.Port(); port != "" {
		host += ":" + port
	}
	u.Host = host
	return u.String()
}

// byFamily serves the tree whose scripts name this server as the client
// reaches it.
func (a *App) byFamily() http.Handler {
	if a.tree6 == nil {
		return a.tree
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); ok && local.IP.To4() == nil {
			a.tree6.ServeHTTP(w, r)
			return
		}
		a.tree.ServeHTTP(w, r)
	})
}

// treeFor is the same for a peer.
func (a *App) treeFor(peer netip.Addr) *pxecfg.Tree {
	if a.tree6 != nil && !peer.Unmap().Is4() {
		return a.tree6
	}
	return a.tree
}

// check6 is Check for dhcp.v6.
func check6(ctx context.Context, cfg *config.Config) error {
	a := &App{cfg: cfg}
	boot := func(_ context.Context, r *dhcp6.Request) (dhcp6.Boot, error) {
		arch, _ := r.Arch()
		file, err := a.loaderFor(config.LoaderIPXE, r.Platform(), arch)
		return dhcp6.Boot{URL: a.url6(file)}, err
	}
	err := (&dhcp6.BootPolicy{Boot: boot, Logger: slog.New(slog.DiscardHandler)}).Check(ctx)
	if err == nil {
		return nil
	}
	fields := []any{cfg.DHCP.V6, cfg.DHCP}
	if cfg.HTTP != nil {
		fields = append([]any{&cfg.HTTP.URL}, fields...)
	}
	return cfg.Mistake(strings.TrimSuffix(err.Error(), ": invalid argument"), fields...)
}
