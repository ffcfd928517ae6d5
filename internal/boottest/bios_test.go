package boottest

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/internal/guest"
	"github.com/seed-3ec230fa/diskless/internal/vm"
	"github.com/seed-3ec230fa/diskless/internal/vm/vmtest"
)

// A BIOS machine with iPXE in its card: script, kernel and initrd over HTTP,
// the root a SquashFS image over NBD with an overlay in the client's memory.
func TestBIOSiPXE(t *testing.T) {
	m, line := machine("live01", "entry: live")
	w, lineW := machine("clean01", "entry: clean")
	s := newSite(t, "machines:\n"+line+lineW)
	vmtest.Slots(t, 2)

	one, two := s.start(m), s.start(w)
	r := vmtest.Ready(t, one)
	s.requireGuest(r, m)
	s.requireOverlayInMemory(r)
	requireStages(t, s.stages("live01"),
		`dhcp [\d.]+ -> http://[\d.]+:8080/boot.ipxe`, `http boot.ipxe`, `http vmlinuz`, `http initrd.img`, `dhcp [\d.]+`, `nbd demo~\w+`)

	// A writable root: iPXE passes its name with the token on unharmed.
	s.boot(two, w)
}

// A machine that nobody configured is listed, and boots what `unknown` says.
func TestUnknownMachine(t *testing.T) {
	s := newSite(t, "unknown: live\n")
	vmtest.Slots(t, 1)
	m := vm.Machine{Name: "stranger"}

	r := vmtest.Ready(t, s.start(m))
	s.requireOverlayInMemory(r)
	list := s.app.Strangers()
	require.Len(t, list, 1)
	require.Equal(t, m.HardwareAddr().String(), list[0].MAC)
	require.Equal(t, m.SystemUUID(), list[0].UUID)
	require.NotEmpty(t, list[0].Arch)
}

// One byte of the image is changed: the guest finds it, and the server has
// said that an image was written to in place.
func TestDamagedImage(t *testing.T) {
	m, line := machine("live02", "entry: live")
	s := newSite(t, "machines:\n"+line)
	damage(t, s.path("demo.squashfs"))
	vmtest.Slots(t, 1)

	ctx, cancel := context.WithTimeout(t.Context(), vm.BootTimeout)
	defer cancel()
	r, err := guest.Ready(ctx, s.start(m))
	if err == nil { // a kernel that cannot run init at all is as good
		require.NotRegexp(t, `^ok`, r.Sums)
	}
	require.Contains(t, s.logged(), "written to in place")
}
