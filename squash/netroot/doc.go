// Package netroot prepares root file systems for machines that boot them from
// the network.
//
// A tree that was installed on a disk, or made by a Dockerfile, has things in
// it that many machines must not share (a machine-id, host keys), that stop the
// boot when the disk is missing (fstab, swap), that cut the machine off from
// its own root (the network card configured again), or that all machines would
// do at once (updatedb). And it may lack what a boot over the network needs: a
// kernel, drivers in the initrd.
//
// [Check] looks at any [squash.Source] and says what it finds, each with its
// remedy in words and, where that can be done without running programs of the
// tree, as rules. The tree itself is never changed:
//
//	findings, err := netroot.Check(ctx, src, &netroot.Options{Root: netroot.NBD})
//	...
//	rules := netroot.Remedies(findings)
//	err = squash.BuildFile(ctx, "root.squashfs", rules.Apply(src), nil)
//
// [Kernels] lists the kernels of an image with their initrds, the newest first,
// and [CopyKernel] takes one out for the boot server.
package netroot
