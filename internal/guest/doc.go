// Package guest makes what a test machine boots: a real Debian kernel, a
// small initramfs with an NBD root, and a root file system whose init tells on
// the serial console what it was booted from. Nothing here needs root, and
// nothing is installed: the kernel package is fetched and unpacked into a
// cache directory, the archives and images are written by this package.
//
//	cache := guest.CacheDir()
//	kernel, err := guest.FetchKernel(ctx, cache)       // kernel.Image is vmlinuz
//	initrd, err := guest.Initrd(ctx, cache, kernel)
//	tree, err := guest.Root(marker)                    // an fs.FS, to build a squashfs from
//	err = guest.WriteTree(dir, tree)
//	err = guest.Ext4(ctx, dir, "root.ext4", 32<<20)
//
// The kernel arguments are those of an ordinary diskless machine, as in
//
//	root=/dev/nbd0 nbdroot=192.168.67.1:10809/debian12 ip=dhcp ro overlayroot=tmpfs console=ttyS0 no_timer_check
//
// [StockInitrd] makes the initramfs that an administrator has instead, with
// Debian's initramfs-tools, dracut or live-boot in a chroot; it takes a minute or two, once.
// [MinimalDebian] makes a whole Debian, and [FetchNFSServer] gets what serves it over NFS.
//
// # What the guest says
//
// Every line of the guest's begins with "DISKLESS ". On each boot its init
// writes KEY=VALUE lines, which [Ready] makes a [Report] of, and then "ready".
// If the initramfs cannot go on it says "failed=..." and switches the machine
// off.
//
// From then on a line "#ID SUM COMMAND" on the console is answered by one line
// "DISKLESS #ID rc=STATUS OUTPUT SUM", the output in base64; [Shell] speaks
// this. The sums are MD5's, of the ID and the command and of what stands before
// the other: a console may lose characters. A line with a wrong sum, and
// everything else that is typed, is ignored; one with the ID of the last command
// is answered as that was.
//
// # Caveats
//
// The machines are amd64. The guest's reboot and poweroff are abrupt, after a
// sync: the NBD connection is not shut down, as it is not when a real machine
// reboots from its NBD root.
package guest
