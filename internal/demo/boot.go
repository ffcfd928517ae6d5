package demo

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/seed-3ec230fa/diskless/internal/app"
	"github.com/seed-3ec230fa/diskless/internal/config"
	"github.com/seed-3ec230fa/diskless/internal/guest"
	"github.com/seed-3ec230fa/diskless/internal/vm"
	"github.com/seed-3ec230fa/diskless/internal/zstd"
	"github.com/seed-3ec230fa/diskless/squash"
)

// nodeName is the machine of the demo.
const nodeName = "node01"

// BootUser boots a real kernel in QEMU without privilege, over QEMU's own
// network.
func BootUser(ctx context.Context, w io.Writer, log *slog.Logger) error {
	p := newPrinter(w)
	p.say("A real kernel in QEMU, over QEMU's own network: QEMU itself answers DHCP; script, kernel, initrd and root come from us.\n")
	s, err := newScene(ctx, p)
	if err != nil {
		return err
	}
	defer s.close()
	sockets, err := loopback()
	if err != nil {
		return err
	}
	sockets.DHCP.Close()
	sockets.TFTP.Close()
	sockets.DHCP, sockets.TFTP = nil, nil
	// The guest finds this machine's loopback addresses there.
	gateway := netip.MustParseAddr("10.0.2.2")
	cfg := s.config(gateway)
	cfg.HTTP = &config.HTTP{URL: fmt.Sprintf("http://%s:%d", gateway, portOf(sockets.HTTP.Addr()))}
	cfg.NBD = &config.NBD{Port: portOf(sockets.NBD.Addr())}
	s.machine.User = &vm.User{BootFile: cfg.HTTP.URL + "/boot.ipxe", Hostname: nodeName}
	return s.boot(ctx, cfg, sockets, log)
}

// BootPXE boots a real machine from firmware on all our services. The caller
// is in a network namespace of its own.
func BootPXE(ctx context.Context, w io.Writer, log *slog.Logger) error {
	p := newPrinter(w)
	p.say("A real machine in QEMU, from its network card's ROM, on our DHCP, TFTP, HTTP and NBD, in a network of its own.\n")
	s, err := newScene(ctx, p)
	if err != nil {
		return err
	}
	defer s.close()
	lab := &vm.Lab{}
	if err := lab.Up(ctx); err != nil {
		return err
	}
	defer lab.Close()
	if s.machine.Tap, err = lab.Tap(ctx); err != nil {
		return err
	}
	cfg := s.config(lab.Addr())
	subnet := lab.Network().Masked()
	from := subnet.Addr().As4()
	from[3] = 100
	to := from
	to[3] = 199
	cfg.DHCP = &config.DHCP{
		Interface: lab.Name(), Subnet: config.Prefix{Prefix: subnet},
		Ranges: []config.Range{{From: netip.AddrFrom4(from), To: netip.AddrFrom4(to)}},
	}
	cfg.TFTP, cfg.HTTP, cfg.NBD = &config.TFTP{}, &config.HTTP{}, &config.NBD{}
	return s.boot(ctx, cfg, app.Sockets{}, log)
}

// scene is a machine and what it boots.
type scene struct {
	*printer
	dir, marker string
	machine     vm.Machine
}

// Fetch brings the kernel of the virtual machine into the cache, over the
// network, unless it is there.
func Fetch(ctx context.Context, w io.Writer) error {
	_, _, err := fetch(ctx, newPrinter(w))
	return err
}

func fetch(ctx context.Context, p *printer) (kernel *guest.Kernel, initrd string, err error) {
	if missing := vm.Missing(); len(missing) > 0 {
		return nil, "", fmt.Errorf("a virtual machine needs the packages %s; install them (Debian: apt-get install %[1]s)", strings.Join(missing, " "))
	}
	cache := guest.CacheDir()
	if _, err := os.Stat(cache); err != nil {
		p.say("Fetching Debian's kernel, once, into %s.", cache)
	}
	if kernel, err = guest.FetchKernel(ctx, cache); err != nil {
		return nil, "", err
	}
	initrd, err = guest.Initrd(ctx, cache, kernel)
	return kernel, initrd, err
}

func newScene(ctx context.Context, p *printer) (_ *scene, err error) {
	kernel, initrd, err := fetch(ctx, p)
	if err != nil {
		return nil, err
	}
	s := &scene{printer: p, machine: vm.Machine{Name: nodeName}}
	if s.dir, err = os.MkdirTemp("", "diskless-demo-*"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	for from, to := range map[string]string{kernel.Image: "vmlinuz", initrd: "initrd.img"} {
		if err := copyFile(from, filepath.Join(s.dir, to)); err != nil {
			return nil, err
		}
	}
	var random [8]byte
	_, _ = rand.Read(random[:])
	s.marker = hex.EncodeToString(random[:])
	tree, err := guest.Root(s.marker)
	if err != nil {
		return nil, err
	}
	image := filepath.Join(s.dir, "demo.squashfs")
	if err := squash.BuildFile(ctx, image, squash.FromFS(tree), &squash.Options{Compressor: zstd.Compressor()}); err != nil {
		return nil, err
	}
	info, err := os.Stat(image)
	if err != nil {
		return nil, err
	}
	p.line("server", "squash", fmt.Sprintf("built the root image, %s, with the marker %s in it", size(info.Size()), s.marker))
	return s, nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func (s *scene) close() { os.RemoveAll(s.dir) }

func (s *scene) config(server netip.Addr) config.Config {
	return config.Config{
		Server: config.Server{Address: config.Addr{Addr: server}},
		Files:  []config.Mount{{Dir: s.dir}},
		Images: []config.Image{{Name: "demo", File: filepath.Join(s.dir, "demo.squashfs")}},
		Entries: []config.Entry{{
			Name: "demo", Kernel: "vmlinuz", Initrd: []string{"initrd.img"}, Image: "demo",
			Addon: new(bool), // the guest has no use for one
			Args:  append([]string{"overlayroot=tmpfs", "quiet"}, strings.Fields(vm.KernelArgs)...),
		}},
		Machines: []config.Machine{{Name: nodeName, MAC: config.HardwareAddr{HardwareAddr: s.machine.HardwareAddr()}, Entry: "demo"}},
	}
}

// boot serves and runs the machine until its userland has said what it found.
func (s *scene) boot(ctx context.Context, cfg config.Config, sockets app.Sockets, log *slog.Logger) error {
	stop, err := serve(ctx, cfg, sockets, log, s.printer)
	if err != nil {
		return err
	}
	report, err := s.run(ctx)
	if err = errors.Join(err, stop()); err != nil {
		return err
	}
	if report.Marker != s.marker {
		return fmt.Errorf("the machine booted another image: its marker is %q, not %q", report.Marker, s.marker)
	}
	s.say("\n%s (%s, %s) runs Linux %s from %s: root %s over %s, marker %s, files %s.",
		report.Hostname, report.MAC, report.IP, report.Kernel, report.Export, report.Root, report.Base, report.Marker, report.Sums)
	return nil
}

func (s *scene) run(ctx context.Context) (*guest.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, vm.BootTimeout)
	defer cancel()
	s.machine.Line = s.console
	m, err := vm.Start(ctx, s.machine)
	if err != nil {
		return nil, err
	}
	defer m.Kill()
	return guest.Ready(ctx, m)
}
