package app

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/internal/config"
	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/pxecfg"
	"github.com/seed-3ec230fa/diskless/squash"
	"github.com/seed-3ec230fa/diskless/tftp"
)

// world is a server on loopback with two machines and an image.
type world struct {
	*App
	t       *testing.T
	dir     string
	sockets Sockets
	log     *lockedBuffer
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

var macs = []net.HardwareAddr{{0x52, 0x54, 0, 0, 0, 1}, {0x52, 0x54, 0, 0, 0, 2}, {0x52, 0x54, 0, 0, 0, 9}}

func newWorld(t *testing.T, change func(c *config.Config)) *world {
	w := &world{t: t, dir: t.TempDir(), log: &lockedBuffer{}}
	boot := filepath.Join(w.dir, "boot")
	require.NoError(t, os.Mkdir(boot, 0o755))
	for name, content := range map[string]string{"boot/vmlinuz": "kernel", "boot/initrd.img": "initrd", "secret": "top",
		"lts.conf": "[Default]\nLANG=C\n\n[one]\nTOKEN=for-one-only\n"} {
		require.NoError(t, os.WriteFile(filepath.Join(w.dir, name), []byte(content), 0o644))
	}
	require.NoError(t, os.WriteFile(filepath.Join(w.dir, "disk.img"), bytes.Repeat([]byte("0123456789abcdef"), 1<<16), 0o644))
	require.NoError(t, os.Symlink("../secret", filepath.Join(boot, "way-out")))
	var err [4]error
	w.sockets.DHCP, err[0] = dhcp.Listen("127.0.0.1:0", "")
	w.sockets.TFTP, err[1] = net.ListenPacket("udp4", "127.0.0.1:0")
	w.sockets.HTTP, err[2] = net.Listen("tcp4", "127.0.0.1:0")
	w.sockets.NBD, err[3] = net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, errors.Join(err[:]...))
	loop := netip.MustParseAddr("127.0.0.1")
	c := config.Config{
		Server: config.Server{Address: config.Addr{Addr: loop}, State: filepath.Join(w.dir, "state")},
		DHCP: &config.DHCP{Interface: "lo", Probe: new(bool), Subnet: config.Prefix{Prefix: netip.MustParsePrefix("127.0.0.0/8")},
			Ranges: []config.Range{{From: netip.MustParseAddr("127.0.67.1"), To: netip.MustParseAddr("127.0.67.99")}}},
		TFTP: &config.TFTP{}, HTTP: &config.HTTP{URL: "http://" + w.sockets.HTTP.Addr().String()},
		NBD:     &config.NBD{Port: w.sockets.NBD.Addr().(*net.TCPAddr).Port},
		Files:   []config.Mount{{Dir: boot}},
		Images:  []config.Image{{Name: "disk", File: filepath.Join(w.dir, "disk.img")}},
		LTSConf: filepath.Join(w.dir, "lts.conf"),
		Entries: []config.Entry{
			{Name: "desk", Kernel: "vmlinuz", Initrd: []string{"initrd.img"}, Image: "disk", Root: config.RootKept},
			{Name: "live", Kernel: "vmlinuz", Initrd: []string{"initrd.img"}, Image: "disk"},
		},
		Machines: []config.Machine{
			{Name: "one", MAC: config.HardwareAddr{HardwareAddr: macs[0]}, Entry: "desk"},
			{Name: "two", MAC: config.HardwareAddr{HardwareAddr: macs[1]}, Entry: "desk"},
		},
	}
	if change != nil {
		change(&c)
	}
	for _, name := range []string{undionly, snponly, pxelinux, ldlinux, grubEFI} {
		require.NoError(t, os.WriteFile(filepath.Join(boot, name), []byte(name), 0o644))
	}
	cfg, e := config.New(c)
	require.NoError(t, e)
	w.App, e = New(t.Context(), cfg, slog.New(slog.NewTextHandler(w.log, nil)))
	require.NoError(t, e)
	return w
}

// run serves until the test's end.
func (w *world) run() *world {
	ready, done := make(chan struct{}), make(chan error, 1)
	w.Ready = func() { close(ready) }
	ctx, cancel := context.WithCancel(context.Background())
	go func() { done <- w.Run(ctx, w.sockets) }()
	w.t.Cleanup(func() {
		cancel()
		require.NoError(w.t, <-done)
	})
	select {
	case <-ready:
	case err := <-done:
		done <- err
		w.t.Fatal(err)
	}
	return w
}

// lease walks through DHCP as firmware does.
func (w *world) lease(mac net.HardwareAddr, firmware dhcp.Firmware) dhcp.Ack {
	w.t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	require.NoError(w.t, err)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	c := dhcp.Client{Conn: conn, Server: w.sockets.DHCP.LocalAddr(), HardwareAddr: mac, UUID: [16]byte{0x11, 0x22, 15: mac[5]}, Firmware: firmware}
	ack, err := c.Exchange(ctx)
	require.NoError(w.t, err)
	return ack
}

func (w *world) tftp(name string, from netip.Addr) (string, error) {
	var buf bytes.Buffer
	_, err := tftp.Client{Local: from}.Get(w.t.Context(), w.sockets.TFTP.LocalAddr().String(), name, &buf)
	return buf.String(), err
}

func (w *world) http(query string, from netip.Addr) (int, string) {
	w.t.Helper()
	client := http.Client{Transport: &http.Transport{DialContext: dialFrom(from), DisableKeepAlives: true}}
	resp, err := client.Get("http://" + w.sockets.HTTP.Addr().String() + query)
	require.NoError(w.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(w.t, err)
	return resp.StatusCode, string(body)
}

func dialFrom(from netip.Addr) func(ctx context.Context, network, addr string) (net.Conn, error) {
	d := &net.Dialer{}
	if from.IsValid() {
		d.LocalAddr = &net.TCPAddr{IP: from.AsSlice()}
	}
	return d.DialContext
}

func (w *world) nbd(export string, from netip.Addr) (*nbd.Client, error) {
	conn, err := dialFrom(from)(w.t.Context(), "tcp4", w.sockets.NBD.Addr().String())
	require.NoError(w.t, err)
	return nbd.NewClient(w.t.Context(), conn, export)
}

// What firmware is told, by architecture and by what it is.
func TestBootFile(t *testing.T) {
	w := newWorld(t, func(c *config.Config) {
		c.Machines = append(c.Machines,
			config.Machine{Name: "lin", MAC: config.HardwareAddr{HardwareAddr: macs[2]}, Entry: "live", Loader: config.LoaderPXELINUX},
			config.Machine{Name: "grb", MAC: config.HardwareAddr{HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 3}}, Entry: "live", Loader: config.LoaderGRUB})
	}).run()
	script := "http://" + w.sockets.HTTP.Addr().String() + "/boot.ipxe"
	lin, grb := macs[2], net.HardwareAddr{2, 0, 0, 0, 0, 3}
	for _, tt := range []struct {
		name     string
		mac      net.HardwareAddr
		firmware dhcp.Firmware
		want     string
	}{
		{"BIOS", macs[0], dhcp.BIOSFirmware(), undionly},
		{"UEFI", macs[0], dhcp.UEFIFirmware(iana.EFI_X86_64), snponly},
		{"UEFI as IANA numbers it", macs[0], dhcp.UEFIFirmware(iana.EFI_BC), snponly},
		{"UEFI HTTP", macs[0], dhcp.HTTPFirmware(iana.EFI_X86_64_HTTP), "http://" + w.sockets.HTTP.Addr().String() + "/snponly.efi"},
		{"iPXE gets its script, not itself", macs[0], dhcp.IPXEFirmware(iana.INTEL_X86PC), script},
		{"iPXE on UEFI", macs[0], dhcp.IPXEFirmware(iana.EFI_X86_64), script},
		{"PXELINUX", lin, dhcp.BIOSFirmware(), pxelinux},
		{"PXELINUX from iPXE", lin, dhcp.IPXEFirmware(iana.INTEL_X86PC), pxelinux},
		{"PXELINUX does not run on UEFI", lin, dhcp.UEFIFirmware(iana.EFI_X86_64), snponly},
		{"GRUB", grb, dhcp.UEFIFirmware(iana.EFI_X86_64), grubEFI},
		{"no loader for this architecture", macs[0], dhcp.UEFIFirmware(iana.EFI_ARM64), ""},
		{"an initramfs boots already", macs[0], dhcp.InitramfsFirmware(), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ack := w.lease(tt.mac, tt.firmware)
			require.Equal(t, tt.want, ack.File)
		})
	}
	require.Contains(t, w.log.String(), "EFI ARM64", "an operator learns why a machine gets nothing")
}

// One machine, one address, whoever asks.
func TestOneAddressFromROMToSystem(t *testing.T) {
	w := newWorld(t, nil).run()
	first := w.lease(macs[0], dhcp.BIOSFirmware())
	for _, f := range []dhcp.Firmware{dhcp.IPXEFirmware(iana.INTEL_X86PC), dhcp.InitramfsFirmware(), {}} {
		require.Equal(t, first.Addr, w.lease(macs[0], f).Addr)
	}
	require.Equal(t, "one", first.Hostname)
}

func TestUnknownMachineIsDeniedAndListed(t *testing.T) {
	w := newWorld(t, nil).run()
	ack := w.lease(macs[2], dhcp.BIOSFirmware())
	require.True(t, ack.Addr.IsValid(), "an address it gets")
	require.Empty(t, ack.File, "nothing to boot")
	_, err := w.tftp("pxelinux.cfg/01-52-54-00-00-00-09", ack.Addr.Addr())
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = w.tftp("pxelinux.cfg/default", ack.Addr.Addr())
	require.ErrorIs(t, err, fs.ErrNotExist)

	list := w.Strangers()
	require.NotEmpty(t, list)
	at := 0
	for i, s := range list {
		if s.MAC == macs[2].String() {
			at = i
		}
	}
	require.Equal(t, macs[2].String(), list[at].MAC)
	require.Equal(t, "00002211-0000-0000-0000-000000000009", list[at].UUID, "as dmidecode spells it")
	require.Equal(t, iana.INTEL_X86PC.String(), list[at].Arch)
	require.Contains(t, w.log.String(), macs[2].String())
}

func TestUnknownMachineFromLocalDisk(t *testing.T) {
	w := newWorld(t, func(c *config.Config) { c.Unknown = config.UnknownLocal }).run()
	ack := w.lease(macs[2], dhcp.BIOSFirmware())
	require.Equal(t, undionly, ack.File)
	text, err := w.tftp("pxelinux.cfg/default", ack.Addr.Addr())
	require.NoError(t, err)
	require.Contains(t, text, "LOCALBOOT")
}

// A machine opens its own root, and nobody else's.
func TestRootsBelongToMachines(t *testing.T) {
	w := newWorld(t, nil).run()
	one, two := w.lease(macs[0], dhcp.BIOSFirmware()), w.lease(macs[1], dhcp.BIOSFirmware())
	script := func(addr netip.Addr) string {
		code, body := w.http("/boot.ipxe", addr)
		require.Equal(t, http.StatusOK, code)
		return body
	}
	export := exportIn(t, script(one.Addr.Addr()))
	require.Equal(t, export, exportIn(t, script(one.Addr.Addr())), "a second look changes nothing")
	require.NotEqual(t, export, exportIn(t, script(two.Addr.Addr())))

	_, err := w.nbd(export, two.Addr.Addr())
	require.ErrorIs(t, err, fs.ErrPermission, "the name alone opens nothing for a machine with another lease")
	mine, err := w.nbd(export, one.Addr.Addr())
	require.NoError(t, err)
	require.NoError(t, mine.Close())
	for _, from := range []netip.Addr{one.Addr.Addr(), two.Addr.Addr(), netip.MustParseAddr("127.9.9.9")} {
		_, err = w.nbd("disk@one", from)
		require.ErrorIs(t, err, fs.ErrPermission, "without a token a root is nobody's")
	}

	conn, err := net.Dial("tcp4", w.sockets.NBD.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	list, err := nbd.List(t.Context(), conn)
	require.NoError(t, err)
	require.Len(t, list, 1, "images are listed, who is here is not")
	require.Equal(t, "disk", list[0].Name)

	code, _ := w.http("/boot.ipxe?mac="+macs[0].String(), two.Addr.Addr())
	require.Equal(t, http.StatusForbidden, code, "nor is its configuration anybody else's")
	mac := "pxelinux.cfg/01-52-54-00-00-00-01"
	text, err := w.tftp(mac, one.Addr.Addr())
	require.NoError(t, err)
	require.Contains(t, text, "@one.")
	for _, other := range []netip.Addr{two.Addr.Addr(), netip.MustParseAddr("127.0.0.1")} {
		_, err = w.tftp(mac, other)
		require.ErrorIs(t, err, fs.ErrNotExist)
	}
}

// Nothing that a stranger can send makes it another machine: not its UUID, not
// its name, not its address.
func TestStrangerStaysOne(t *testing.T) {
	const uuid = "6b1f0c5e-2a1d-4c3b-8f5e-0123456789ab"
	w := newWorld(t, func(c *config.Config) { c.Machines[0].UUID = uuid }).run()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	stranger := dhcp.Client{Conn: conn, Server: w.sockets.DHCP.LocalAddr(), HardwareAddr: macs[2], Firmware: dhcp.BIOSFirmware(),
		UUID: [16]byte{0x6b, 0x1f, 0x0c, 0x5e, 0x2a, 0x1d, 0x4c, 0x3b, 0x8f, 0x5e, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab}}
	ack, err := stranger.Exchange(ctx)
	require.NoError(t, err)
	require.Empty(t, ack.File)
	require.Empty(t, ack.Hostname)
	for _, path := range []string{"/boot.ipxe", "/boot.ipxe?uuid=" + uuid, "/lts.conf", "/lts.conf?mac=" + macs[2].String() + "&hostname=one"} {
		code, body := w.http(path, ack.Addr.Addr())
		require.GreaterOrEqual(t, code, 400, "%s: %s", path, body)
	}
	code, _ := w.http("/boot.ipxe?mac="+macs[0].String(), netip.MustParseAddr("127.9.9.9"))
	require.Equal(t, http.StatusForbidden, code, "nor one without a lease")
}

func exportIn(t *testing.T, script string) string {
	t.Helper()
	_, rest, ok := strings.Cut(script, "nbdroot=")
	require.True(t, ok, script)
	_, rest, _ = strings.Cut(strings.Fields(rest)[0], "/")
	return rest
}

func TestLTSConfIsTheMachinesOwn(t *testing.T) {
	w := newWorld(t, nil).run()
	one, two := w.lease(macs[0], dhcp.BIOSFirmware()), w.lease(macs[1], dhcp.BIOSFirmware())
	_, mine := w.http("/ltsp/amd64/lts.conf", one.Addr.Addr())
	require.Contains(t, mine, "for-one-only")
	_, other := w.http("/ltsp/amd64/lts.conf", two.Addr.Addr())
	require.Contains(t, other, "LANG")
	require.NotContains(t, other, "for-one-only")
}

// What a machine calls itself is the name of nobody's section.
func TestLTSConfOfStranger(t *testing.T) {
	w := newWorld(t, func(c *config.Config) { c.Unknown = config.UnknownLocal })
	defer w.close()
	for _, c := range []pxecfg.Client{{MAC: macs[2], Hostname: "one"}, {MAC: macs[1], Hostname: "one"}, {Hostname: "one"}} {
		text, err := w.ltsConf(t.Context(), c)
		require.NoError(t, err)
		require.Contains(t, string(text), "LANG")
		require.NotContains(t, string(text), "for-one-only")
	}
}

// The same tree over TFTP and HTTP.
func TestTree(t *testing.T) {
	w := newWorld(t, nil).run()
	for _, name := range []string{"vmlinuz", "/vmlinuz", "undionly.kpxe"} {
		over, err := w.tftp(name, netip.Addr{})
		require.NoError(t, err)
		code, body := w.http("/"+strings.TrimPrefix(name, "/"), netip.Addr{})
		require.Equal(t, http.StatusOK, code)
		require.Equal(t, over, body)
	}
	code, body := w.http("/healthz", netip.Addr{})
	require.Equal(t, http.StatusOK, code)
	var health struct {
		Status string
		Roles  map[string]bool
	}
	require.NoError(t, json.Unmarshal([]byte(body), &health))
	require.Equal(t, "ok", health.Status)
	require.Equal(t, map[string]bool{"dhcp": true, "tftp": true, "http": true, "nbd": true}, health.Roles)
}

// Each mistake gets its code on the wire and its line in the log, and the
// server goes on.
func TestBadInput(t *testing.T) {
	w := newWorld(t, nil).run()

	_, err := w.nbd("nothing-here", netip.Addr{})
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.Contains(t, w.log.String(), "nothing-here")
	_, err = w.nbd("disk~000000000000", netip.Addr{})
	require.ErrorIs(t, err, fs.ErrNotExist, "a generation that is not there")
	_, err = w.nbd("disk@one.forged-token", netip.Addr{})
	require.Error(t, err)

	for _, name := range []string{"../secret", "..\\secret", "boot/../../secret", "/../secret"} {
		_, err := w.tftp(name, netip.Addr{})
		require.ErrorIs(t, err, fs.ErrPermission, name)
	}
	_, err = w.tftp("way-out", netip.Addr{})
	require.ErrorIs(t, err, fs.ErrPermission)
	require.Contains(t, w.log.String(), "way-out", "the refused link is named")
	code, _ := w.http("/way-out", netip.Addr{})
	require.Equal(t, http.StatusForbidden, code)
	_, err = w.tftp("no-such-file", netip.Addr{})
	var wire *tftp.Error
	require.ErrorAs(t, err, &wire)
	require.Equal(t, tftp.CodeNotFound, wire.Code)
	require.NotContains(t, wire.Message, w.dir, "no path of the server")

	garbage, err := net.Dial("udp4", w.sockets.DHCP.LocalAddr().String())
	require.NoError(t, err)
	defer garbage.Close()
	for _, p := range [][]byte{nil, {1}, bytes.Repeat([]byte{0xff}, 300), malformedOption()} {
		_, err := garbage.Write(p)
		require.NoError(t, err)
	}
	require.Equal(t, undionly, w.lease(macs[0], dhcp.BIOSFirmware()).File, "the server goes on")
}

// malformedOption is a DISCOVER whose option 93 has one byte, and whose last
// option says that it is longer than the packet.
func malformedOption() []byte {
	p := make([]byte, 240)
	p[0], p[1], p[2] = 1, 1, 6
	copy(p[28:], macs[0])
	copy(p[236:], []byte{99, 130, 83, 99})
	return append(p, 53, 1, 1, 93, 1, 0, 60, 200, 'P', 'X', 'E')
}

// An image that is cut short under its readers is an error to them.
func TestTruncatedImage(t *testing.T) {
	w := newWorld(t, func(c *config.Config) { c.Machines[0].Entry = "live" }).run()
	d, err := w.nbd("disk", netip.Addr{})
	require.NoError(t, err)
	defer d.Close()
	require.NoError(t, os.Truncate(filepath.Join(w.dir, "disk.img"), 4096))
	_, err = d.ReadAt(make([]byte, 4096), d.Size()-4096)
	require.ErrorIs(t, err, syscall.EIO)
	require.Eventually(t, func() bool { return strings.Contains(w.log.String(), "level=WARN") }, 10*time.Second, 10*time.Millisecond)
	_, err = d.ReadAt(make([]byte, 512), 0)
	require.NoError(t, err, "the connection stays")
}

// An image that was cut short before it was published is not served.
func TestTruncatedCopy(t *testing.T) {
	dir := t.TempDir()
	noise := make([]byte, 1<<16) // that does not compress
	_, _ = rand.Read(noise)
	tree := fstest.MapFS{"srv/data": {Data: noise}}
	file := filepath.Join(dir, "x.squashfs")
	require.NoError(t, squash.BuildFile(t.Context(), file, squash.FromFS(tree), nil))
	ext := make([]byte, 1<<20)
	binary.LittleEndian.PutUint32(ext[1024+4:], 1024) // blocks of 1 KiB
	binary.LittleEndian.PutUint16(ext[1024+56:], 0xef53)
	whole, err := os.ReadFile(file)
	require.NoError(t, err)
	for name, image := range map[string][]byte{"squashfs": whole, "ext4": ext} {
		require.NoError(t, wholeImage(bytes.NewReader(image), int64(len(image))), name)
		require.Error(t, wholeImage(bytes.NewReader(image[:len(image)/2]), int64(len(image)/2)), name)
	}
	require.NoError(t, os.Truncate(file, int64(len(whole)/2)))
	cfg, err := config.New(config.Config{Server: config.Server{Address: config.Addr{Addr: netip.MustParseAddr("127.0.0.1")}},
		NBD: &config.NBD{}, Images: []config.Image{{Name: "x", File: file}}})
	require.NoError(t, err)
	_, err = New(t.Context(), cfg, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, "image x")
	require.ErrorContains(t, err, "ends")
}

// TestGenerationsKept: nbd.keep says how many, and those of an image that is not
// configured any more go.
func TestGenerationsKept(t *testing.T) {
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	var log bytes.Buffer
	start := func(keep *int, images ...config.Image) []string {
		cfg, err := config.New(config.Config{
			Server: config.Server{Address: config.Addr{Addr: netip.MustParseAddr("127.0.0.1")}, State: state},
			NBD:    &config.NBD{Keep: keep}, Images: images,
		})
		require.NoError(t, err)
		a, err := New(t.Context(), cfg, slog.New(slog.NewTextHandler(&log, nil)))
		require.NoError(t, err)
		a.close()
		entries, err := os.ReadDir(filepath.Join(state, "images", "generations"))
		require.NoError(t, err)
		var names []string
		for _, e := range entries {
			name, _, _ := strings.Cut(e.Name(), "~")
			names = append(names, name)
		}
		return names
	}
	var images []config.Image
	for _, name := range []string{"x", "y"} {
		images = append(images, config.Image{Name: name, File: filepath.Join(dir, name+".img")})
	}
	none, four := 0, 4
	var kept []string
	for i := range byte(5) {
		for _, image := range images {
			require.NoError(t, os.WriteFile(image.File+".new", bytes.Repeat([]byte{i, image.Name[0]}, 2048), 0o600))
			require.NoError(t, os.Rename(image.File+".new", image.File))
		}
		kept = start(&four, images...)
	}
	require.Equal(t, "x x x x x y y y y y", strings.Join(kept, " "))
	require.NotContains(t, log.String(), "generations are removed")
	require.Equal(t, "x x x y y y", strings.Join(start(nil, images...), " "))
	require.Equal(t, "x x x", strings.Join(start(nil, images[0]), " "))
	require.Contains(t, log.String(), "images=[y]")
	require.Empty(t, start(&none, images[0]))
}

func TestPortInUse(t *testing.T) {
	w := newWorld(t, nil)
	taken := w.sockets.NBD
	defer taken.Close()
	w.sockets.NBD = nil
	w.cfg.NBD.Listen = taken.Addr().String()
	err := w.Run(t.Context(), w.sockets)
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	require.ErrorContains(t, err, fmt.Sprintf("another program has port %d", taken.Addr().(*net.TCPAddr).Port))
	require.ErrorContains(t, err, "nbd.listen")
}

func TestMissingLoader(t *testing.T) {
	err := loaderFS{}.require(tftp.Union(), undionly, pxelinux)
	require.ErrorContains(t, err, "undionly.kpxe")
	require.ErrorContains(t, err, "apt-get install ipxe pxelinux")
	root := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(root, "usr/lib/ipxe"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(root, "usr/lib/ipxe/undionly.kpxe"), []byte("x"), 0o644))
	require.NoError(t, findLoaders(root).require(tftp.Union(), undionly))
}

// The admin socket: commands, its mode, and who may take it over.
func TestAdmin(t *testing.T) {
	w := newWorld(t, nil).run()
	socket := w.cfg.Server.Admin
	info, err := os.Stat(socket)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o600), info.Mode().Perm())
	_, err = listenAdmin(socket)
	require.ErrorContains(t, err, "another diskless serves")

	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	call := func(method, path string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://x"+path, nil)
		require.NoError(t, err)
		resp, err := client.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(body)
	}
	one := w.lease(macs[0], dhcp.BIOSFirmware())
	_, script := w.http("/boot.ipxe", one.Addr.Addr())
	d, err := w.nbd(exportIn(t, script), one.Addr.Addr())
	require.NoError(t, err)
	defer d.Close()
	_, err = d.WriteAt([]byte("changed"), 0)
	require.NoError(t, err)

	code, body := call(http.MethodGet, "/roots")
	require.Equal(t, http.StatusOK, code)
	var roots []Root
	require.NoError(t, json.Unmarshal([]byte(body), &roots))
	require.Len(t, roots, 1)
	require.Equal(t, "one", roots[0].Name)
	require.Equal(t, "kept", roots[0].Kind)
	require.Len(t, roots[0].Clients, 1)
	require.Positive(t, roots[0].Stored)

	code, body = call(http.MethodPost, "/roots/one/attach")
	require.Equal(t, http.StatusConflict, code)
	require.Contains(t, body, "shut that machine down first")
	code, _ = call(http.MethodPost, "/roots/one/clone/twin")
	require.Equal(t, http.StatusOK, code)
	code, _ = call(http.MethodPost, "/roots/twin/rename/second")
	require.Equal(t, http.StatusOK, code)
	code, body = call(http.MethodPost, "/roots/second/attach")
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, body, "@second.")
	code, _ = call(http.MethodPost, "/roots/second/fence")
	require.Equal(t, http.StatusOK, code)
	code, _ = call(http.MethodDelete, "/roots/second")
	require.Equal(t, http.StatusOK, code)

	code, _ = call(http.MethodPost, "/roots/one/reset")
	require.Equal(t, http.StatusOK, code)
	_, err = d.ReadAt(make([]byte, 512), 0)
	require.Error(t, err, "the machine that had it open is cut off")
	code, _ = call(http.MethodPost, "/roots/nobody/reset")
	require.Equal(t, http.StatusNotFound, code)
	code, _ = call(http.MethodDelete, "/roots/one")
	require.Equal(t, http.StatusOK, code)
	code, body = call(http.MethodGet, "/machines")
	require.Equal(t, http.StatusOK, code)
	require.True(t, strings.HasPrefix(body, "["))
}

// A socket that a killed server left behind is in nobody's way.
func TestStaleAdminSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	require.NoError(t, err)
	l.SetUnlinkOnClose(false)
	require.NoError(t, l.Close())
	again, err := listenAdmin(path)
	require.NoError(t, err)
	require.NoError(t, again.Close())
}

// Only a socket that nobody listens on is removed.
func TestAdminPathIsNoSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "precious.yaml")
	require.NoError(t, os.WriteFile(path, []byte("precious"), 0o600))
	_, err := listenAdmin(path)
	require.ErrorContains(t, err, "no socket")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "precious", string(text))
}

// When the admin socket cannot be had nothing is served, and every socket that
// was handed over is closed.
func TestAdminFails(t *testing.T) {
	w := newWorld(t, func(c *config.Config) { c.Server.Admin = filepath.Join(t.TempDir(), "file", "admin.sock") })
	require.NoError(t, os.WriteFile(filepath.Dir(w.cfg.Server.Admin), nil, 0o600))
	w.Ready = func() { t.Error("it must not serve") }
	require.ErrorContains(t, w.Run(t.Context(), w.sockets), "server.admin")
	_, err := w.sockets.NBD.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
}
