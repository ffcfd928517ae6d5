package boottest

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/dhcp/dhcp6"
	"github.com/seed-3ec230fa/diskless/internal/vm"
	"github.com/seed-3ec230fa/diskless/internal/vm/vmtest"
	"github.com/seed-3ec230fa/diskless/tftp"
)

// site6 is a network with IPv6 alone: DHCPv6, TFTP and HTTP.
type site6 struct {
	t    *testing.T
	lab  *vm.Lab
	pool *dhcp6.Pool

	mu      sync.Mutex
	replies []reply6
	files   []string
}

type reply6 struct {
	kind     string
	platform dhcp.Platform
	hw       string
	url      string
}

func newSite6(t *testing.T, lab *vm.Lab) *site6 {
	t.Helper()
	vmtest.Need(t, "iproute2", "ovmf", "ipxe")
	kernel, initrd := vmtest.Guest(t)
	if err := lab.Up(t.Context()); err != nil {
		vmtest.Skip(t, "%v", err)
	}
	t.Cleanup(func() { require.NoError(t, lab.Close()) })
	s := &site6{t: t, lab: lab}
	dir := t.TempDir()
	base := "[" + lab.Prefix6.Addr().String() + "]"
	script := "#!ipxe\nkernel http://" + base + "/vmlinuz " + vm.KernelArgs + " t.net=${netX/ip6}\ninitrd http://" + base + "/initrd.img\nboot\n"
	require.NoError(t, os.WriteFile(dir+"/boot.ipxe", []byte(script), 0o644))
	require.NoError(t, os.Symlink(kernel.Image, dir+"/vmlinuz"))
	require.NoError(t, os.Symlink(initrd, dir+"/initrd.img"))
	require.NoError(t, os.Symlink("/usr/lib/ipxe/snponly.efi", dir+"/snponly.efi"))
	files := os.DirFS(dir)

	iface, err := lab.Interface()
	require.NoError(t, err)
	id := &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: iface.HardwareAddr}
	rules := dhcp6.BootRules{
		{Match: dhcp6.Match{Platforms: []dhcp.Platform{dhcp.PlatformIPXE}}, Boot: dhcp6.Boot{URL: "http://" + base + "/boot.ipxe"}},
		{Match: dhcp6.Match{Platforms: []dhcp.Platform{dhcp.PlatformHTTP}}, Boot: dhcp6.Boot{URL: "http://" + base + "/snponly.efi"}},
		{Match: dhcp6.Match{Archs: []iana.Arch{iana.EFI_X86_64}}, Boot: dhcp6.Boot{URL: "tftp://" + base + "/snponly.efi"}},
	}
	s.pool = &dhcp6.Pool{
		Prefix: lab.Prefix6.Masked(), ServerID: id, Ranges: []dhcp.Range{{First: netip.MustParseAddr("fd00:67::100"), Last: netip.MustParseAddr("fd00:67::1ff")}},
	}
	policy := &dhcp6.BootPolicy{Next: s.pool, Boot: rules.Boot}
	if lab.Stateless {
		policy.Next = &dhcp6.Stateless{ServerID: id}
	}
	require.NoError(t, policy.Check(t.Context()))
	ds := &dhcp6.Server{
		Interfaces: []string{lab.Name()}, Handler: policy,
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
		Trace: &dhcp6.Trace{Reply: func(r *dhcp6.Request, m *dhcpv6.Message, _ netip.AddrPort) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.replies = append(s.replies, reply6{r.MessageType.String(), r.Platform(), r.HardwareAddr().String(), m.Options.BootFileURL()})
		}},
	}
	note := func(name string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.files = append(s.files, name)
	}
	ts := &tftp.Server{Handler: tftp.FSFunc(func(_ context.Context, r *tftp.Request) (fs.FS, error) {
		note("tftp " + r.Name)
		return files, nil
	})}
	hs := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		note("http " + r.URL.Path)
		http.FileServerFS(files).ServeHTTP(w, r)
	})}
	dc, err := dhcp6.Listen("", lab.Name())
	require.NoError(t, err)
	tc, err := net.ListenPacket("udp6", base+":69")
	require.NoError(t, err)
	hl, err := net.Listen("tcp6", base+":80")
	require.NoError(t, err)
	var running sync.WaitGroup
	for _, serve := range []func() error{
		func() error { return ds.Serve(dc) }, func() error { return ts.Serve(tc) }, func() error { return hs.Serve(hl) },
	} {
		running.Go(func() { _ = serve() })
	}
	t.Cleanup(func() {
		_, _, _ = ds.Close(), ts.Close(), hs.Close()
		running.Wait()
	})
	return s
}

// kernelsStart starts machines and waits for their kernels.
func (s *site6) kernelsStart(machines ...vm.Machine) {
	s.t.Helper()
	var running []*vm.Running
	for _, m := range machines {
		m.Tap = vmtest.Tap(s.t, s.lab)
		running = append(running, vmtest.Start(s.t, m))
	}
	for _, r := range running {
		ctx, cancel := context.WithTimeout(s.t.Context(), vm.BootTimeout)
		defer cancel()
		// It says so twice, and the port may lose characters of both; then the
		// initramfs finds no root here, and says that.
		line, err := r.Expect(ctx, `[Cc]ommand line: .* t\.net=|DISKLESS failed=`)
		require.NoError(s.t, err)
		s.t.Logf("%s has booted in %.1f s: %s", r.Machine().Name, r.Elapsed().Seconds(), line)
		r.Kill()
	}
}

var lab6 = netip.MustParsePrefix("fd00:67::1/64")

// UEFI's PXE client and its HTTP Boot, each with an address from DHCPv6, load
// iPXE, which asks once more and loads the kernel.
func TestIPv6(t *testing.T) {
	s := newSite6(t, &vm.Lab{Prefix6: lab6})
	s.deadEnd()
	pxe, web := vm.Machine{Name: "pxe6", Firmware: vm.UEFI, IPv6: true}, vm.Machine{Name: "http6", Firmware: vm.UEFI}
	web.Args = httpBoot // PXE over IPv6 is off without the field IPv6
	vmtest.Slots(t, 2)
	s.kernelsStart(pxe, web)
	s.requireReplies(pxe, "SOLICIT pxe tftp://[fd00:67::1]/snponly.efi", "REQUEST pxe tftp://[fd00:67::1]/snponly.efi", "REQUEST ipxe http://[fd00:67::1]/boot.ipxe")
	s.requireReplies(web, "SOLICIT http http://[fd00:67::1]/snponly.efi", "REQUEST http http://[fd00:67::1]/snponly.efi", "REQUEST ipxe http://[fd00:67::1]/boot.ipxe")
	require.Subset(t, s.files, []string{"tftp snponly.efi", "http /snponly.efi", "http /boot.ipxe", "http /vmlinuz", "http /initrd.img"})
}

// iPXE in a card, where machines make their addresses themselves.
func TestStatelessIPv6(t *testing.T) {
	s := newSite6(t, &vm.Lab{Prefix6: lab6, Stateless: true})
	vmtest.Slots(t, 1)
	m := vm.Machine{Name: "stateless6"}
	s.kernelsStart(m)
	s.requireReplies(m, "INFORMATION-REQUEST ipxe http://[fd00:67::1]/boot.ipxe")
	require.Subset(t, s.files, []string{"http /boot.ipxe", "http /vmlinuz", "http /initrd.img"})
}

// deadEnd answers HTTP Boot over IPv4 with a server that is not there: OVMF
// tries IPv4 first, and would wait a minute for an answer.
func (s *site6) deadEnd() {
	pool := &dhcp.Pool{
		Prefix: s.lab.Network().Masked(), ServerID: s.lab.Addr(),
		Ranges: []dhcp.Range{{First: netip.MustParseAddr("192.168.67.100"), Last: netip.MustParseAddr("192.168.67.150")}},
	}
	rules := dhcp.BootRules{
		{Match: dhcp.Match{Platforms: []dhcp.Platform{dhcp.PlatformHTTP}}, Boot: dhcp.Boot{File: "http://" + s.lab.Addr().String() + ":9/nothing.efi"}},
		{}, // and nothing for others
	}
	server := &dhcp.Server{Interfaces: []string{s.lab.Name()}, Handler: &dhcp.BootPolicy{Next: pool, Boot: rules.Boot}}
	conn, err := dhcp.Listen("", s.lab.Name())
	require.NoError(s.t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(conn)
	}()
	s.t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
}

// requireReplies asserts that the machine was told these things, in this order
// with others between them.
func (s *site6) requireReplies(m vm.Machine, want ...string) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var got []string
	at := 0
	for _, r := range s.replies {
		if r.hw != m.HardwareAddr().String() {
			continue
		}
		line := fmt.Sprintf("%s %s %s", r.kind, r.platform, r.url)
		got = append(got, line)
		if at < len(want) && line == want[at] {
			at++
		}
	}
	require.Equal(s.t, len(want), at, "told %q, but not %q", got, want[min(at, len(want)-1)])
}
