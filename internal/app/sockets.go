package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/dhcp/dhcp6"
)

// listen opens the sockets of the roles that are on and that nobody handed in.
func (a *App) listen(ctx context.Context, s *Sockets) (err error) {
	if a.cfg.ServesDHCP() && s.DHCP == nil {
		if err := a.checkOtherServers(ctx); err != nil {
			return err
		}
		if s.DHCP, err = dhcp.Listen(":67", a.cfg.DHCP.Interface); err != nil {
			return explain("dhcp", ":67", err)
		}
		if a.cfg.DHCP.Proxy && s.ProxyDHCP == nil {
			if s.ProxyDHCP, err = dhcp.Listen(":4011", a.cfg.DHCP.Interface); err != nil {
				return explain("dhcp", ":4011", err)
			}
		}
	}
	if a.cfg.ServesDHCPv6() && s.DHCPv6 == nil {
		if s.DHCPv6, err = dhcp6.Listen("", a.cfg.DHCP.Interface); err != nil {
			return explain("dhcp.v6", ":547", err)
		}
	}
	if a.cfg.ServesTFTP() && s.TFTP == nil {
		if s.TFTP, err = net.ListenPacket("udp", a.cfg.TFTP.Listen); err != nil {
			return explain("tftp", a.cfg.TFTP.Listen, err)
		}
	}
	if a.cfg.ServesHTTP() && s.HTTP == nil {
		if s.HTTP, err = net.Listen("tcp", a.cfg.HTTP.Listen); err != nil {
			return explain("http", a.cfg.HTTP.Listen, err)
		}
	}
	if a.cfg.ServesNBD() && s.NBD == nil {
		if s.NBD, err = net.Listen("tcp", a.cfg.NBD.Listen); err != nil {
			return explain("nbd", a.cfg.NBD.Listen, err)
		}
	}
	if a.cfg.Server.Admin != "" && s.Admin == nil {
		if s.Admin, err = listenAdmin(a.cfg.Server.Admin); err != nil {
			return err
		}
	}
	return nil
}

func (s *Sockets) close() {
	for _, c := range []interface{ Close() error }{s.DHCP, s.ProxyDHCP, s.DHCPv6, s.TFTP, s.HTTP, s.NBD, s.Admin} {
		if c != nil {
			_ = c.Close()
		}
	}
}

// explain says what to do about a socket that cannot be opened.
func explain(role, addr string, err error) error {
	switch {
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return fmt.Errorf("%s: %w\n  without root, give the binary what it needs: setcap cap_net_bind_service,cap_net_raw=+ep %s",
			role, err, executable())
	case errors.Is(err, syscall.EADDRINUSE):
		_, port, _ := net.SplitHostPort(addr)
		key := role + ".listen"
		switch role {
		case "dhcp":
			key = "dhcp.enabled: false"
		case "dhcp.v6":
			key = "dhcp.v6: remove it"
		}
		return fmt.Errorf("%s: %w\n  another program has port %s (find it with: ss -lnptu 'sport = %s'); stop it, or change %s", role, err, port, port, key)
	}
	return fmt.Errorf("%s: %w", role, err)
}

func executable() string {
	if path, err := os.Executable(); err == nil {
		return path
	}
	return "diskless"
}

const probeTime = 3 * time.Second // EDK2 and iPXE wait about as long for offers

// checkOtherServers refuses to start where another DHCP server answers: two
// servers that do not know of each other give one address twice.
func (a *App) checkOtherServers(ctx context.Context) error {
	d := a.cfg.DHCP
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	found, err := dhcp.Probe(ctx, d.Interface)
	if err != nil {
		return explain("dhcp", ":68", fmt.Errorf("asking for other servers on %s: %w", d.Interface, err))
	}
	var servers []string
	for _, f := range found {
		if !f.Addr.IsValid() {
			a.log.Warn("a ProxyDHCP server tells clients of this network what to boot", "server", f.ServerID)
			continue
		}
		if !slices.Contains(a.peers(), f.ServerID) {
			servers = append(servers, f.ServerID.String())
		}
	}
	if d.Proxy {
		if len(servers) == 0 {
			a.log.Warn("dhcp.proxy needs a server that gives addresses, and none answers yet", "interface", d.Interface)
		}
		return nil
	}
	if len(servers) == 0 {
		return nil
	}
	list := strings.Join(servers, ", ")
	if d.OtherServer == "ignore" {
		a.log.Warn("another DHCP server answers on this network; started all the same, as other-server: ignore says", "servers", list)
		return nil
	}
	return fmt.Errorf("dhcp: another server answers on %s: %s\n"+
		"  Machines would get addresses from both. Stop that server; or leave the addresses to it: set dhcp.proxy: true here (ProxyDHCP), or\n"+
		"  dhcp.enabled: false and let it send next-server and a boot file; or, when both agree on who gets what, set dhcp.other-server: ignore", d.Interface, list)
}
