// Package pxecfg writes the boot configuration of machines that boot from the
// network: it knows which names PXELINUX, GRUB and iPXE ask for, writes one
// model of boot entries in the language of each, and shows every machine its
// own files at the names that all machines have in common.
//
// # Model
//
// A [Client] is what is known about a machine. A [Source] decides what it
// boots, a [Config] of one or more [Entry] values, which may be a menu with
// submenus, separators, hot keys and help; [Machines] is a source of
// machines known by hardware address, UUID or IP address, with a rule for all
// others; [Rules] go by vendor, network, host name, architecture, platform and
// loader too, and what machines have in common is in a [Profile]. [First] asks several sources,
// [Once] lets a machine boot something one time, and [BootDir] keeps on disk
// who has had that. A [Root] writes the kernel
// arguments that an initramfs needs to find its root file system. A [Tree] puts
// it together: an [io/fs.FS] for each client, to be served over TFTP, and the
// same over HTTP.
//
//	tree := &pxecfg.Tree{
//		Source: &pxecfg.Machines{
//			List:    []pxecfg.Machine{{MAC: mac, Source: cfg}},
//			Unknown: pxecfg.LocalDisk(),
//		},
//		Lookup: leases,           // who has this address
//		Files:  os.DirFS("/srv/boot"), // kernels, initrds, loaders
//	}
//	fsys, err := tree.ForAddr(ctx, peer) // for a TFTP server
//	http.Handle("/", tree)
//
// # Who asks
//
// Where leases are known, a machine is who has the address, and names of other
// machines do not exist for it. Beside a foreign DHCP server there is no lease,
// and a machine is who the requested name says: the names can be asked for by
// anybody on the network, so nothing secret should be in such a tree.
//
// [Client.Names] is PXELINUX's order (option 209, UUID, hardware address, IP
// address digit by digit, default), [Client.GRUBNames], [Client.UBootNames] and
// [Client.IPXENames] are those of others, and
// [ParseName] the way back. [Explain] shows what each name gives, which rule
// decided and where each value came from.
//
// # Files of one's own
//
// A [Template] is a file in any language, rendered for each machine; what it
// needs and is not known is an error. [Tree.Extra] serves it.
//
// # What exists already
//
// [Existing] is a source of the files that somebody keeps in pxelinux.cfg/:
// PXELINUX gets them as they are, other loaders their entries. [ParseFile] and
// [File.Load] read such a file as PXELINUX does, to the command line that the
// kernel sees; [Lint] says what is read otherwise than meant, by PXELINUX or by
// U-Boot; [File.Set] changes one line and no other. [Kernels] makes entries for
// the kernels in a directory, as LTSP's update-kernels does.
//
// # What cannot be written
//
// The languages differ in what they can express: PXELINUX and iPXE have no
// quoting, iPXE expands ${, GRUB escapes quotes in a way that kernels do not
// read, and kernels cut off long command lines. What a loader would change on
// its way to the kernel is a [*RenderError] that names the entry and the
// argument. A configuration that cannot be rendered is logged, and the file
// cannot be opened; other machines and other loaders go on. In the same way a
// [Root] refuses what the scripts of its initramfs would misread, such as a port
// together with a name for dracut's NBD, or an https URL for live-boot.
//
// # Caveats
//
// gPXE (which wants #!gpxe) is not served; chain it to iPXE. U-Boot reads the
// PXELINUX files but takes one initrd, and only paths beside or below its boot
// file. GRUB finds files by itself from version 2.06 on and only over TFTP;
// Debian's signed network GRUB reads only /grub/grub.cfg, for which the
// dispatcher is. http URLs with a port need GRUB 2.12 or a patched one.
// Rendered names are not listed in directories.
package pxecfg
