package vm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Lab is a network for machines: a bridge with an address of this host's, to
// which machines are connected by taps. It needs a network namespace: see
// [Isolated].
//
// IPv6 router solicitations are answered, without Prefix6 with the news that
// there is nothing to configure: unanswered they hold up iPXE by 14 seconds and
// more, each time.
type Lab struct {
	// Bridge is the interface's name; "": "lab0".
	Bridge string
	// Prefix is this host's address on it and the network; zero:
	// 192.168.67.1/24.
	Prefix netip.Prefix
	// Prefix6 is the same for IPv6, such as fd00:67::1/64; zero: none. Machines
	// are told to ask DHCPv6 for addresses, or with Stateless to make them
	// themselves and to ask DHCPv6 for the rest.
	Prefix6   netip.Prefix
	Stateless bool

	mu     sync.Mutex
	taps   int
	router *router
}

// Name returns the bridge's name, which is the interface to serve on.
func (l *Lab) Name() string {
	if l.Bridge == "" {
		return "lab0"
	}
	return l.Bridge
}

// Network returns this host's address and the network it is in.
func (l *Lab) Network() netip.Prefix {
	if !l.Prefix.IsValid() {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, 67, 1}), 24)
	}
	return l.Prefix
}

// Addr returns this host's address, which machines reach servers at.
func (l *Lab) Addr() netip.Addr { return l.Network().Addr() }

// Interface returns the bridge.
func (l *Lab) Interface() (*net.Interface, error) { return net.InterfaceByName(l.Name()) }

// Up makes the bridge and begins to answer router
// solicitations.
func (l *Lab) Up(ctx context.Context) error {
	if !isolated() {
		return fmt.Errorf("lab: %w", ErrNotIsolated)
	}
	if err := checkTun(); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	// A bridge takes its address from a port unless it has its own, and then
	// changes it as machines come and go: peers would lose it in the middle of
	// a transfer. With a forward delay a port is deaf for its first seconds.
	sum := sha256.Sum256([]byte(l.Name()))
	mac := net.HardwareAddr{0x02, 0x64, sum[0], sum[1], sum[2], sum[3]}
	err := ip(ctx, "link", "add", l.Name(), "address", mac.String(), "type", "bridge", "forward_delay", "0", "stp_state", "0")
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	for _, args := range [][]string{
		{"link", "set", l.Name(), "addrgenmode", "none"},
		{"addr", "add", l.Network().String(), "brd", "+", "dev", l.Name()},
		{"link", "set", l.Name(), "up"},
		{"-6", "addr", "add", "fe80::1/64", "dev", l.Name(), "nodad"},
	} {
		if err = ip(ctx, args...); err != nil {
			if args[0] == "-6" && ipv6Off() {
				return nil // Nobody will solicit a router where there is no IPv6.
			}
			break
		}
	}
	if err == nil && l.Prefix6.IsValid() {
		err = ip(ctx, "-6", "addr", "add", l.Prefix6.String(), "dev", l.Name(), "nodad")
	}
	if err == nil {
		l.router, err = startRouter(l.Name(), advertisement(l.Prefix6, l.Stateless))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("lab: %w", err), l.Close())
	}
	return nil
}

// Tap makes a tap interface on the bridge, for one machine, and returns its
// name. It stays until Close: a machine that is started again can have it.
func (l *Lab) Tap(ctx context.Context) (string, error) {
	l.mu.Lock()
	l.taps++
	name := fmt.Sprintf("%st%d", l.Name(), l.taps)
	l.mu.Unlock()
	for _, args := range [][]string{
		{"tuntap", "add", "dev", name, "mode", "tap"},
		{"link", "set", name, "addrgenmode", "none", "master", l.Name(), "up"},
	} {
		if err := ip(ctx, args...); err != nil {
			return "", fmt.Errorf("lab: tap %s: %w", name, err)
		}
	}
	return name, nil
}

// Close takes the bridge and the taps away.
func (l *Lab) Close() error {
	if l.router != nil {
		l.router.close()
		l.router = nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for i := range l.taps {
		errs = append(errs, ip(context.Background(), "link", "del", fmt.Sprintf("%st%d", l.Name(), i+1)))
	}
	l.taps = 0
	return errors.Join(append(errs, ip(context.Background(), "link", "del", l.Name()))...)
}

// checkTun says what to do when taps cannot be had.
func checkTun() error {
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	switch {
	case err == nil:
		return f.Close()
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%w; load it with `modprobe tun`, or give this container the device", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w; run as root, or let users have it with `chmod 666 /dev/net/tun`", err)
	}
	return err
}

func ipv6Off() bool {
	off, err := os.ReadFile("/proc/sys/net/ipv6/conf/all/disable_ipv6")
	return errors.Is(err, fs.ErrNotExist) || strings.TrimSpace(string(off)) == "1"
}

func ip(ctx context.Context, args ...string) error {
	path, err := program("ip")
	if err != nil {
		return fmt.Errorf("%w; install the package iproute2", err)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(said.String()))
	}
	return nil
}
