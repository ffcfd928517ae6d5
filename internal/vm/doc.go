// Package vm boots virtual machines over a network of their own: QEMU with
// real firmware, a bridge and taps in a network namespace, and the serial
// console as the witness of what happened.
//
// A boot, in a program or a test whose main function went through [Isolated]:
//
//	lab := &vm.Lab{}                                  // a bridge with 192.168.67.1/24
//	if err := lab.Up(ctx); err != nil { ... }
//	defer lab.Close()
//	... serve DHCP, TFTP, HTTP and NBD on lab.Addr() ...
//	tap, err := lab.Tap(ctx)
//	m, err := vm.Start(ctx, vm.Machine{Name: "node-01", Tap: tap})
//	if err != nil { ... }
//	defer m.Kill()
//	ctx, cancel := context.WithTimeout(ctx, vm.BootTimeout)
//	defer cancel()
//	report, err := guest.Ready(ctx, m)                // what the guest says of itself
//
// Without privilege a machine gets QEMU's own network instead (Machine.User):
// QEMU answers DHCP there, and the guest reaches this host's loopback
// addresses at 10.0.2.2.
//
// # Nothing stays behind
//
// [Isolated] runs the program again in new network and mount namespaces; the
// bridge and the taps are gone with that process. QEMU is killed by the kernel
// when the program that started it ends, however it ends.
//
// # Firmware
//
// A BIOS machine has SeaBIOS and the iPXE ROM that QEMU ships, or an iPXE
// that passes for an ordinary PXE ROM. A UEFI machine has OVMF and its own PXE
// client, over IPv4 or IPv6. Both write to the serial console, and so do boot loaders.
//
// The kernel needs console=ttyS0 to be heard, and no_timer_check lest it
// panic on a busy host: see [KernelArgs].
//
// Machines are emulated. A host whose /dev/kvm works is asked to use it with
// DISKLESS_KVM=1; that cannot be found out cheaply, some have a /dev/kvm
// on which a kernel never gets past its decompressor.
package vm
