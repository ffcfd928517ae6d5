// Package initrd makes the second, small initramfs with which a stock image
// becomes a diskless machine: nothing is installed in the image, and nothing is
// configured on the machine. A boot loader loads it behind the distribution's
// own, the kernel lays it over that, and it takes its place among the scripts
// of initramfs-tools or among the hooks of dracut.
//
//	settings := []initrd.Setting{{Name: "FSTAB_01_TMP", Value: "tmpfs /tmp tmpfs size=1G 0 0"}}
//	data, err := initrd.Build(settings, nil, &initrd.Options{Hostname: "node01"})
//
//	initrd=debian12/initrd.img,node01.img           PXELINUX
//	initrd /debian12/initrd.img /node01.img         GRUB
//	initrd debian12/initrd.img                      iPXE, one line each
//	initrd node01.img
//
// # What it does on the machine
//
// Once the root is mounted and before the system's init starts, whatever
// initramfs it was:
//
//   - A root that cannot be written, such as a SquashFS image, gets an overlay in
//     memory, or on a partition of the machine; on request the image is copied to
//     memory first, and its connection closed. A root on NFS that many machines
//     share keeps its files, and has memory over /etc, /tmp, /var/log and
//     other places of one machine's own. A root that can be written is left alone.
//   - Unless the root is the machine's own, the image's fstab loses its root and
//     its swap, and the boot goes on without disks that it names (nofail).
//   - The settings become files of the new root, mounts, loaded modules
//     and commands that run: see [Build].
//   - Services that a diskless machine must not run are kept from starting, and
//     whoever configures network interfaces is kept from the one that the root
//     comes over.
//   - A machine with little memory swaps over NBD, where a server offers that.
//   - At the end of the boot the RCFILE_* commands run, and one HTTP request
//     tells a server that the machine is up. That is a unit of systemd, or
//     what OpenRC, sysvinit and busybox's init have for it.
//
// Where LTSP's own scripts take over (init=/sbin/init-ltsp or ltsp.image= among the
// kernel's arguments) it does nothing.
//
// A setting that fails is told with its name on the console and in the journal
// (it is a message of the kernel's log), and the boot goes on, unless
// [BreakOnError] says otherwise. What a command wrote is in the file of its name
// in /run/diskless/output.
//
// What takes time are programs. Under an image's systemd the initramfs's shell
// writes all files by itself and starts one program, a cp, unless there are
// settings that need the root's own: FSTAB_*, MODULE_*, commands before init,
// what only the machine can expand, swap, keys of users, or a file in the
// root's /etc that is a link. Then this takes a second under emulation, most of it
// in those programs, and a tenth of that without.
//
// With diskless.break among the kernel's arguments there is a shell before the
// switch to the new root; with diskless.break=error, if something has failed.
//
// # Modules
//
// An initramfs may lack what a root in a SquashFS image needs.
// [ReadModules] takes those modules from the image itself, for the kernel that
// the machine boots ([KernelVersion]). They can go into the machine's archive
// or, as [Modules.Archive], into one that all machines load.
//
// # Caveats
//
// What an archive holds of settings is readable by whoever can fetch it: serve
// each only to its own machine. On the machine only root can read them, in
// /run/diskless; but what a server gives to the machine's address, any of its
// users can ask for.
//
// A command before init has ten minutes, together with those that share its
// shell, if the image has a program timeout.
//
// A server of swap that is started anew has to have what it held. A client of
// NBD that is started in the initramfs, or before init, may not come back to it.
//
// Needed in the image are /bin/sh, mount and the usual small tools, from busybox
// if need be; for the report one of curl, wget, bash or busybox.
//
// A loader that loads one initramfs only, such as U-Boot, needs both in one file:
// the distribution's, at least four zeroes, so many that the length is a
// multiple of four, and the archive.
//
// DHCP's lease is not renewed once the system runs: the address is the machine's
// for as long as it is up, so it should be a reserved one.
package initrd
