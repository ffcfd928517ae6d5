package boottest

import (
	"context"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/dhcp/takeover"
	"github.com/seed-3ec230fa/diskless/internal/vm"
	"github.com/seed-3ec230fa/diskless/internal/vm/vmtest"
	"github.com/seed-3ec230fa/diskless/tftp"
)

// A PXE menu (option 43) taken over from dnsmasq, with UEFI: the prompt's time
// passes, the machine asks the boot server of the first entry on port 4011 and
// loads what it is told there.
func TestMenu(t *testing.T) {
	vmtest.Need(t, "iproute2", "ovmf")
	lab := &vm.Lab{}
	if err := lab.Up(t.Context()); err != nil {
		vmtest.Skip(t, "%v", err)
	}
	t.Cleanup(func() { require.NoError(t, lab.Close()) })
	self := lab.Addr()
	const conf = `
dhcp-range=192.168.67.100,192.168.67.150,255.255.255.0
dhcp-authoritative
no-ping
pxe-prompt="Pick one",1
pxe-service=X86-64_EFI,"One",one.efi
pxe-service=X86-64_EFI,"Two",two.efi
`
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	config, err := takeover.Dnsmasq(t.Context(), "dnsmasq.conf", []byte(conf), &takeover.Options{ServerID: self, Logger: log})
	require.NoError(t, err)
	require.Empty(t, config.Notes)
	require.True(t, config.BootServer)
	asked := make(chan string, 64)
	empty := os.DirFS(t.TempDir())
	ts := &tftp.Server{Logger: log, Handler: tftp.FSFunc(func(_ context.Context, r *tftp.Request) (fs.FS, error) {
		asked <- r.Name
		return empty, nil
	})}
	ds := &dhcp.Server{Interfaces: []string{lab.Name()}, ProxyPort: true, Handler: config, Logger: log}
	tc, err := net.ListenPacket("udp4", netip.AddrPortFrom(self, 69).String())
	require.NoError(t, err)
	var running sync.WaitGroup
	running.Go(func() { _ = ds.ListenAndServe() })
	running.Go(func() { _ = ts.Serve(tc) })
	t.Cleanup(func() {
		_ = ds.Close()
		_ = ts.Close()
		running.Wait()
	})
	vmtest.Slots(t, 1)
	m := vmtest.Start(t, vm.Machine{Name: "menu-uefi", Firmware: vm.UEFI, Tap: vmtest.Tap(t, lab)})
	ctx, cancel := context.WithTimeout(t.Context(), vm.BootTimeout)
	defer cancel()
	select {
	case name := <-asked:
		require.Equal(t, "one.efi", name)
	case <-m.Done():
		t.Fatal("it has stopped")
	case <-ctx.Done():
		t.Fatal("it asked for no file")
	}
}
