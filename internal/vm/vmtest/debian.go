package vmtest

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/seed-3ec230fa/diskless/internal/guest"
	"github.com/seed-3ec230fa/diskless/internal/vm"
)

const noDebian = noGuest + "_debian"

// PrepareDebian makes what [Debian] returns. Call it before [Main], in a
// process that has the network still: it takes some minutes once.
func PrepareDebian() {
	if os.Getenv(noDebian) != "" || len(vm.Missing(debianPackages...)) > 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	if _, err := guest.MinimalDebian(ctx, guest.CacheDir()); err != nil {
		fmt.Fprintln(os.Stderr, "some tests that boot a machine will not run:", err)
		os.Setenv(noDebian, err.Error())
	}
}

var debianPackages = []string{"qemu-system-x86", "mmdebstrap", "apt", "e2fsprogs", "squashfs-tools"}

// Debian returns a minimal Debian with systemd.
func Debian(t testing.TB) *guest.Debian {
	t.Helper()
	Need(t, debianPackages...)
	if why := os.Getenv(noDebian); why != "" {
		Skip(t, "%s", why)
	}
	debian, err := guest.MinimalDebian(context.Background(), guest.CacheDir())
	if err != nil {
		t.Fatal(err)
	}
	return debian
}
