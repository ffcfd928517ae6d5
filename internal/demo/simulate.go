// Package demo shows the whole way from the first packet to the root file
// system: with a simulated machine on loopback, in seconds and without root,
// or with a real one in QEMU.
package demo

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/insomniacslk/dhcp/iana"

	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/internal/config"
	"github.com/seed-3ec230fa/diskless/internal/zstd"
	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/pxecfg"
	"github.com/seed-3ec230fa/diskless/squash"
	"github.com/seed-3ec230fa/diskless/tftp"
)

//go:embed all:root
var rootTree embed.FS

// Simulate serves everything on loopback and sends a simulated machine the
// whole way, then a second one; it writes the story to w.
func Simulate(ctx context.Context, w io.Writer, log *slog.Logger) error {
	p := newPrinter(w)
	p.say("No kernel runs in this: a simulated machine asks our real servers, on loopback. `diskless demo --vm` boots a real one.\n")
	dir, err := os.MkdirTemp("", "diskless-demo-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	image, err := prepare(ctx, dir, p)
	if err != nil {
		return err
	}
	sockets, err := loopback()
	if err != nil {
		return err
	}
	loop := netip.MustParseAddr("127.0.0.1")
	cfg := config.Config{
		Server: config.Server{Address: config.Addr{Addr: loop}},
		DHCP: &config.DHCP{
			Interface: "lo", Subnet: config.Prefix{Prefix: netip.MustParsePrefix("127.0.0.0/8")},
			Probe:  new(bool), // no ARP on loopback
			Ranges: []config.Range{{From: netip.MustParseAddr("127.0.67.100"), To: netip.MustParseAddr("127.0.67.199")}},
		},
		TFTP:   &config.TFTP{},
		HTTP:   &config.HTTP{URL: fmt.Sprintf("http://127.0.0.1:%d", portOf(sockets.HTTP.Addr()))},
		NBD:    &config.NBD{Port: portOf(sockets.NBD.Addr())},
		Files:  []config.Mount{{Dir: dir}},
		Images: []config.Image{{Name: "demo", File: image}},
		Loader: config.LoaderPXELINUX,
		Entries: []config.Entry{{
			Name: "demo", Kernel: "vmlinuz", Initrd: []string{"initrd.img"}, Image: "demo", Root: config.RootEphemeral,
			Addon: new(bool), // the guest has no use for one
		}},
	}
	var machines []*machine
	for i := range 2 {
		m := &machine{printer: p, name: fmt.Sprintf("node%02d", i+1), oldROM: i == 0, mac: net.HardwareAddr{0x52, 0x54, 0, 0x67, 0, byte(i + 1)},
			dhcp: sockets.DHCP.LocalAddr(), tftp: sockets.TFTP.LocalAddr().String()}
		machines = append(machines, m)
		cfg.Machines = append(cfg.Machines, config.Machine{Name: m.name, MAC: config.HardwareAddr{HardwareAddr: m.mac}, Entry: "demo"})
	}
	stop, err := serve(ctx, cfg, sockets, log, p)
	if err != nil {
		return err
	}
	err = walk(ctx, machines, p)
	if err = errors.Join(err, stop()); err != nil {
		return err
	}
	p.say("\nAll servers are stopped. Nothing was left behind.")
	return nil
}

// prepare makes what there is to boot: stand-ins for loader, kernel and
// initrd, and a real root image.
func prepare(ctx context.Context, dir string, p *printer) (image string, err error) {
	for name, size := range map[string]int{"pxelinux.0": 40 << 10, "vmlinuz": 2 << 20, "initrd.img": 4 << 20} {
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(rand.Uint32())
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return "", err
		}
	}
	tree, err := fs.Sub(rootTree, "root")
	if err != nil {
		return "", err
	}
	image = filepath.Join(dir, "demo.squashfs")
	if err := squash.BuildFile(ctx, image, squash.FromFS(tree), &squash.Options{Compressor: zstd.Compressor()}); err != nil {
		return "", err
	}
	info, err := os.Stat(image)
	if err != nil {
		return "", err
	}
	p.line("server", "squash", "built the root image demo.squashfs, "+size(info.Size()))
	return image, nil
}

// walk sends the first machine the whole way, lets it write, and shows that
// the second does not see it.
func walk(ctx context.Context, machines []*machine, p *printer) error {
	var roots []*nbd.Client
	for _, m := range machines {
		p.say("\n%s, hardware address %s:", m.name, m.mac)
		root, err := m.boot(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		defer root.Close()
		roots = append(roots, root)
		if len(roots) > 1 {
			break
		}
		secret := bytes.Repeat([]byte("written by node01.\n"), 512)[:512]
		if err := m.write(root, secret); err != nil {
			return err
		}
	}
	// Both are still attached: two overlays over one image.
	var seen [2][512]byte
	for i, r := range roots {
		if _, err := r.ReadAt(seen[i][:], r.Size()-512); err != nil {
			return err
		}
	}
	if seen[0] == seen[1] {
		return errors.New("the second machine sees what the first one wrote")
	}
	p.client("nbd", "node02 reads the same block: %d zero bytes, nothing of node01's", bytes.Count(seen[1][:], []byte{0}))
	return nil
}

// machine is a simulated diskless machine.
type machine struct {
	*printer
	name string
	// oldROM does not tell the UUID over DHCP, which PXELINUX then has from
	// the SMBIOS tables: its first name is a miss.
	oldROM bool
	mac    net.HardwareAddr
	addr   netip.Addr // leased
	dhcp   net.Addr
	tftp   string
}

// boot goes the way of firmware, PXELINUX and initramfs, and returns the root.
func (m *machine) boot(ctx context.Context) (*nbd.Client, error) {
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	uuid := [16]byte{0x6b, 0x1f, 0x0c, 0x5e, 4: 0x2a, 6: 0x4c, 8: 0x8f, 15: m.mac[5]}
	firmware := dhcp.BIOSFirmware()
	said := "option 97 = " + pxecfg.FormatUUID(uuid)
	if m.oldROM {
		firmware.SendUUID, said = false, "no option 97, as old ROMs"
	}
	client := dhcp.Client{Conn: conn, Server: m.dhcp, HardwareAddr: m.mac, UUID: uuid, Firmware: firmware}
	m.client("dhcp", "DISCOVER as a BIOS ROM (option 93 = %d, %s)", iana.INTEL_X86PC, said)
	ack, err := client.Exchange(ctx)
	if err != nil {
		return nil, err
	}
	m.client("dhcp", "ACK: %s, host name %s, boot file %s from %s", ack.Addr, ack.Hostname, ack.File, ack.NextServer)

	m.addr = ack.Addr.Addr()
	if _, err := m.get(ctx, ack.File); err != nil {
		return nil, err
	}
	me := pxecfg.Client{MAC: m.mac, IP: ack.Addr.Addr(), UUID: pxecfg.FormatUUID(uuid)}
	text, err := m.config(ctx, me)
	if err != nil {
		return nil, err
	}
	for _, word := range []string{"LINUX", "INITRD"} {
		// A name that begins with :: is from the root of the tree.
		if _, err := m.get(ctx, strings.TrimPrefix(directive(text, word), "::")); err != nil {
			return nil, err
		}
	}
	return m.attach(ctx, directive(text, "APPEND"))
}

// config walks the ladder of names that PXELINUX would.
func (m *machine) config(ctx context.Context, me pxecfg.Client) (string, error) {
	for _, name := range me.Names() {
		data, err := m.get(ctx, name)
		switch {
		case err == nil:
			m.client("tftp", "%s: found", name)
			return string(data), nil
		case errors.Is(err, fs.ErrNotExist):
			m.client("tftp", "%s: not there, next", name)
		default:
			return "", err
		}
	}
	return "", errors.New("no configuration under any name")
}

func (m *machine) get(ctx context.Context, name string) ([]byte, error) {
	var buf bytes.Buffer
	// From the leased address, by which the server knows who this is.
	_, err := tftp.Client{Local: m.addr}.Get(ctx, m.tftp, name, &buf)
	return buf.Bytes(), err
}

var nbdroot = regexp.MustCompile(`nbdroot=([^ /]+)/([^ ]+)`)

// attach opens the root as the kernel arguments say, and reads a file in it.
func (m *machine) attach(ctx context.Context, args string) (*nbd.Client, error) {
	found := nbdroot.FindStringSubmatch(args)
	if found == nil {
		return nil, fmt.Errorf("no nbdroot= in %q", args)
	}
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: m.addr.AsSlice()}}
	conn, err := dialer.DialContext(ctx, "tcp4", found[1])
	if err != nil {
		return nil, err
	}
	root, err := nbd.NewClient(ctx, conn, found[2])
	if err != nil {
		return nil, err
	}
	m.client("nbd", "attached %s, %s, writable", found[2], size(root.Size()))
	image, err := squash.Open(root)
	if err != nil {
		return nil, err
	}
	text, err := fs.ReadFile(image, "etc/motd")
	if err != nil {
		return nil, err
	}
	m.client("nbd", "/etc/motd in the root: %s", strings.TrimSpace(string(text)))
	return root, nil
}

// write puts a block into the machine's overlay and reads it back.
func (m *machine) write(root *nbd.Client, block []byte) error {
	if _, err := root.WriteAt(block, root.Size()-int64(len(block))); err != nil {
		return err
	}
	if err := root.Sync(); err != nil {
		return err
	}
	back := make([]byte, len(block))
	if _, err := root.ReadAt(back, root.Size()-int64(len(block))); err != nil {
		return err
	}
	if !bytes.Equal(back, block) {
		return errors.New("read back something else than was written")
	}
	m.client("nbd", "wrote %d bytes into its overlay and read them back", len(block))
	return nil
}

// directive returns the rest of the first line of a PXELINUX configuration
// that begins with word.
func directive(text, word string) string {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) > 1 && strings.EqualFold(fields[0], word) {
			return strings.Join(fields[1:], " ")
		}
	}
	return ""
}
