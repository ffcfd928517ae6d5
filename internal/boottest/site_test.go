// Package boottest boots virtual machines from real firmware on the composed
// server and asks the guest's own userland what it got.
package boottest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/internal/app"
	"github.com/seed-3ec230fa/diskless/internal/config"
	"github.com/seed-3ec230fa/diskless/internal/guest"
	"github.com/seed-3ec230fa/diskless/internal/timeline"
	"github.com/seed-3ec230fa/diskless/internal/vm"
	"github.com/seed-3ec230fa/diskless/internal/vm/vmtest"
	"github.com/seed-3ec230fa/diskless/squash"
)

func TestMain(m *testing.M) {
	if file := os.Getenv(serveEnv); file != "" {
		os.Exit(serveFile(file))
	}
	vmtest.PrepareDebian()
	vmtest.PrepareNFS()
	vmtest.Main(m, guest.InitramfsTools, guest.Dracut, guest.LiveBoot)
}

// site is a network with a diskless server in it.
type site struct {
	t      *testing.T
	lab    *vm.Lab
	dir    string // of the configuration
	marker string // in the images
	app    *app.App

	mu     sync.Mutex
	events []timeline.Event
	log    strings.Builder
}

// newSite makes a network, what there is to boot (boot/vmlinuz,
// boot/initrd.img, demo.squashfs, demo.ext4), and serves the configuration.
func newSite(t *testing.T, configuration string) *site {
	s := makeSite(t)
	s.serve(common + configuration)
	return s
}

// newSiteBeside is newSite without the DHCP role, beside a server that is not
// ours and that runs with these options.
func newSiteBeside(t *testing.T, configuration string, dnsmasq ...string) *site {
	s := makeSite(t)
	stranger(t, s.lab, dnsmasq...)
	s.serve(strings.Replace(common, "dhcp: {", "dhcp: {enabled: false, ", 1) + configuration)
	return s
}

func makeSite(t *testing.T) *site {
	kernel, initrd := vmtest.Guest(t)
	s := &site{t: t, lab: vmtest.Lab(t), dir: t.TempDir(), marker: random()}
	require.NoError(t, os.Mkdir(s.path("boot"), 0o755))
	s.copy(kernel.Image, "boot/vmlinuz")
	s.copy(initrd, "boot/initrd.img")
	tree, err := guest.Root(s.marker)
	require.NoError(t, err)
	require.NoError(t, squash.BuildFile(t.Context(), s.path("demo.squashfs"), squash.FromFS(tree), nil))
	require.NoError(t, guest.WriteTree(s.path("tree"), tree))
	require.NoError(t, guest.Ext4(t.Context(), s.path("tree"), s.path("demo.ext4"), 64<<20))
	return s
}

const common = `
server: {address: ADDR, state: state}
dhcp: {interface: LAB, subnet: NET, ranges: [RANGE]}
tftp: {}
http: {}
nbd: {}
files: [{dir: boot}]
images:
  - {name: demo, file: demo.squashfs}
  - {name: disk, file: demo.ext4}
entries:
  - {name: live, kernel: vmlinuz, initrd: [initrd.img], image: demo, args: [overlayroot=tmpfs, KERNELARGS]}
  - {name: clean, kernel: vmlinuz, initrd: [initrd.img], image: disk, root: ephemeral, args: [KERNELARGS]}
  - {name: desk, kernel: vmlinuz, initrd: [initrd.img], image: disk, root: kept, args: [KERNELARGS]}
`

// configure writes the configuration file.
func (s *site) configure(configuration string) (file string) {
	net := s.lab.Network().Masked()
	prefix := strings.TrimSuffix(net.Addr().String(), "0")
	text := strings.NewReplacer("ADDR", s.lab.Addr().String(), "LAB", s.lab.Name(), "NET", net.String(),
		"RANGE", prefix+"100-"+prefix+"150", "KERNELARGS", strings.Join(strings.Fields(vm.KernelArgs), ", ")).Replace(configuration)
	require.NoError(s.t, os.WriteFile(s.path("diskless.yaml"), []byte(text), 0o644))
	return s.path("diskless.yaml")
}

// serve runs the server as the binary does, from a configuration file.
func (s *site) serve(configuration string) {
	t := s.t
	cfg, err := config.Load(s.configure(configuration))
	require.NoError(t, err)
	log := slog.New(slog.NewTextHandler(s, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s.app, err = app.New(t.Context(), cfg, log)
	require.NoError(t, err)
	s.app.Timeline.OnEvent = func(e timeline.Event) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.events = append(s.events, e)
	}
	ready, done := make(chan struct{}), make(chan error, 1)
	s.app.Ready = func() { close(ready) }
	ctx, cancel := context.WithCancel(context.Background())
	go func() { done <- s.app.Run(ctx, app.Sockets{}) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done, "the server ends in order")
		if t.Failed() {
			t.Logf("the server's log:\n%s", s.logged())
		}
	})
	select {
	case <-ready:
	case err := <-done:
		done <- err
		t.Fatal(err)
	}
}

// Write takes the server's log.
func (s *site) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.Write(p)
}

func (s *site) logged() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) copy(from, to string) {
	data, err := os.ReadFile(from)
	require.NoError(s.t, err)
	require.NoError(s.t, os.WriteFile(s.path(to), data, 0o644))
}

// stages is what the server saw of a machine so far, as "stage what" lines,
// and forgets it.
func (s *site) stages(machine string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var lines []string
	var rest []timeline.Event
	for _, e := range s.events {
		if e.Name != machine {
			rest = append(rest, e)
			continue
		}
		line := e.Stage + " " + e.What
		if e.Err != nil {
			line += " FAILED"
		}
		lines = append(lines, line)
	}
	s.events = rest
	return lines
}

// start switches a machine on.
func (s *site) start(m vm.Machine) *vm.Running {
	m.Tap = vmtest.Tap(s.t, s.lab)
	return vmtest.Start(s.t, m)
}

// machine is a virtual machine with this name and a line for it in the
// configuration.
func machine(name, more string) (vm.Machine, string) {
	m := vm.Machine{Name: name}
	return m, fmt.Sprintf("  - {name: %s, mac: \"%s\", %s}\n", name, m.HardwareAddr(), more)
}

// requireStages asserts that the server saw these things in this order; each
// is a regular expression over one line.
func requireStages(t *testing.T, got []string, want ...string) {
	t.Helper()
	at := 0
	for _, line := range got {
		if at < len(want) && regexp.MustCompile("^"+want[at]+"$").MatchString(line) {
			at++
		}
		require.NotContains(t, line, "FAILED")
	}
	require.Equal(t, len(want), at, "stages %q, but not %q", got, want[min(at, len(want)-1)])
}

// requireGuest asserts what every boot has to show: the machine's name from
// DHCP, the image's marker, every file of the image intact.
func (s *site) requireGuest(r *guest.Report, m vm.Machine) {
	s.t.Helper()
	require.Equal(s.t, m.Name, r.Hostname)
	require.Equal(s.t, m.HardwareAddr().String(), r.MAC)
	require.Equal(s.t, s.marker, r.Marker)
	require.Regexp(s.t, `^ok \d+$`, r.Sums)
	require.Equal(s.t, "ok", r.Write)
}

func (s *site) requireOverlayInMemory(r *guest.Report) {
	s.t.Helper()
	require.Equal(s.t, []string{"overlay", "rw", "squashfs", "ro"}, []string{r.Root, r.Mode, r.Base, r.BaseMode})
	require.Equal(s.t, "demo~"+digest(s.t, s.path("demo.squashfs"))[:12], r.Export)
}

// requireDisk asserts a writable root and its exact export name: generation,
// root and token as they were rendered.
func (s *site) requireDisk(r *guest.Report, root string) {
	s.t.Helper()
	require.Equal(s.t, []string{"ext4", "rw"}, []string{r.Root, r.Mode})
	require.Regexp(s.t, `^disk~`+digest(s.t, s.path("demo.ext4"))[:12]+`@`+root+`\.[0-9a-z]+-[0-9a-z]+$`, r.Export)
}

func digest(t *testing.T, file string) string {
	t.Helper()
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	require.NoError(t, err)
	return hex.EncodeToString(h.Sum(nil))
}

func random() string {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
