// Package vmtest is package vm for tests: what a machine cannot do is a skip,
// or a failure where DISKLESS_REQUIRE=all says that everything must run.
//
//	func TestMain(m *testing.M) { vmtest.Main(m) }
//
//	func TestBoot(t *testing.T) {
//		kernel, initrd := vmtest.Guest(t)
//		lab := vmtest.Lab(t)
//		... serve on lab.Addr() ...
//		vmtest.Slots(t, 1)
//		m := vmtest.Start(t, vm.Machine{Name: "node-01", Tap: vmtest.Tap(t, lab)})
//		report := vmtest.Ready(t, m)
//		require.Equal(t, "overlay", report.Root)
//	}
package vmtest

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/seed-3ec230fa/diskless/internal/guest"
	"github.com/seed-3ec230fa/diskless/internal/vm"
)

// noGuest tells the isolated process why the first one has no kernel, and with
// a generator's name added, no initramfs of that.
const noGuest = "DISKLESS_NO_GUEST"

// Main runs a package's tests in namespaces of their own. It does not return.
// If there can be none they are run where they are, and [Lab] skips.
//
// What comes from the network is fetched before: the guest's kernel, and the
// stock initramfs of each generator that tests ask for with [Stock], which
// takes some minutes once.
func Main(m *testing.M, stock ...guest.Generator) {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	fetch := func(variable string, packages []string, get func() error) {
		if os.Getenv(variable) != "" || len(vm.Missing(packages...)) > 0 {
			return
		}
		if err := get(); err != nil {
			fmt.Fprintln(os.Stderr, "some tests that boot a machine will not run:", err)
			os.Setenv(variable, err.Error())
		}
	}
	fetch(noGuest, guestPackages, func() error {
		_, _, err := prepare(ctx)
		return err
	})
	for _, g := range stock {
		fetch(noGuest+"_"+string(g), stockPackages, func() error {
			_, err := guest.StockInitrd(ctx, guest.CacheDir(), g)
			return err
		})
	}
	cancel()
	os.Exit(vm.Isolated(func(err error) int {
		if err != nil {
			fmt.Fprintln(os.Stderr, "tests that need a network of their own will not run:", err)
		}
		return m.Run()
	}))
}

var (
	guestPackages = []string{"qemu-system-x86", "busybox-static", "nbd-client", "apt"}
	stockPackages = []string{"qemu-system-x86", "mmdebstrap", "apt"}
)

func prepare(ctx context.Context) (kernel *guest.Kernel, initrd string, err error) {
	if kernel, err = guest.FetchKernel(ctx, guest.CacheDir()); err != nil {
		return nil, "", err
	}
	initrd, err = guest.Initrd(ctx, guest.CacheDir(), kernel)
	return kernel, initrd, err
}

// Skip skips a test that cannot run here, unless everything must.
func Skip(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("DISKLESS_REQUIRE") == "all" {
		t.Fatalf("DISKLESS_REQUIRE=all, but "+format, args...)
	}
	t.Skipf(format, args...)
}

// Need skips a test without those Debian packages; without a name, without any
// that a boot can take.
func Need(t testing.TB, packages ...string) {
	t.Helper()
	if missing := vm.Missing(packages...); len(missing) > 0 {
		Skip(t, "install the packages %s", strings.Join(missing, " "))
	}
}

// Guest returns a kernel and an initramfs for it.
func Guest(t testing.TB) (kernel *guest.Kernel, initrd string) {
	t.Helper()
	Need(t, guestPackages...)
	if why := os.Getenv(noGuest); why != "" {
		Skip(t, "%s", why)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	kernel, initrd, err := prepare(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return kernel, initrd
}

// Stock returns an initramfs that a distribution's generator made, of those
// that [Main] was given.
func Stock(t testing.TB, g guest.Generator) *guest.Stock {
	t.Helper()
	Need(t, stockPackages...)
	if why := os.Getenv(noGuest + "_" + string(g)); why != "" {
		Skip(t, "%s", why)
	}
	stock, err := guest.StockInitrd(context.Background(), guest.CacheDir(), g)
	if err != nil {
		t.Fatal(err)
	}
	return stock
}

// Lab returns a network that ends with the test.
func Lab(t testing.TB) *vm.Lab {
	t.Helper()
	Need(t, "iproute2")
	lab := &vm.Lab{}
	if err := lab.Up(context.Background()); err != nil {
		Skip(t, "%v", err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	return lab
}

// Tap returns a tap on the lab's bridge.
func Tap(t testing.TB, lab *vm.Lab) string {
	t.Helper()
	tap, err := lab.Tap(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return tap
}

// Slots waits until the host has room for n machines, until the test's end.
func Slots(t testing.TB, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	release, err := vm.Acquire(ctx, guest.CacheDir(), n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
}

// Start starts a machine. It is killed at the test's end, and what its console
// said is logged if the test has failed.
func Start(t testing.TB, m vm.Machine) *vm.Running {
	t.Helper()
	Need(t, "qemu-system-x86", "ipxe-qemu")
	if m.Firmware == vm.UEFI {
		Need(t, "ovmf")
	}
	if m.Client == vm.PlainPXE {
		Need(t, "ipxe")
	}
	r, err := vm.Start(context.Background(), m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Kill()
		if t.Failed() {
			t.Logf("console of %s:\n%s", m.Name, r.Transcript())
		}
	})
	return r
}

// Ready waits for the guest's userland, logs how long that took, and returns
// what the guest said of itself.
func Ready(t testing.TB, r *vm.Running) *guest.Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), vm.BootTimeout)
	defer cancel()
	began := time.Now()
	report, err := guest.Ready(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s (%s) has booted in %.1f s", r.Machine().Name, r.Machine().Firmware, time.Since(began).Seconds())
	return report
}

// Do runs a command in the guest and returns what it wrote.
func Do(t testing.TB, s *guest.Shell, command string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), vm.BootTimeout)
	defer cancel()
	out, err := s.Do(ctx, command)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
