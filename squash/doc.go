// Package squash builds and reads SquashFS 4.0 images, the compressed
// read-only file systems that diskless machines use as their root.
//
// # Model
//
// [Build] packs a [Source] into an image; [Open] shows an image as an
// [fs.FS] and, by [FS.Entries], as a Source again. Sources are a directory
// ([Dir]), any file system ([FromFS]), a tar stream ([Tar]) and the layers of a
// container image ([Layers]; sub-package container opens archives and
// layouts). A source is a sequence of entries, each with its attributes, so
// none of them needs root to be built: device nodes, owners and capabilities
// come from the metadata, not from what the building user may create. [Rules]
// change a source on its way: leave out, change, put over it; [Overlay] puts a
// second file system over a first. Sub-package netroot prepares roots for
// machines without disks.
//
//	err := squash.BuildFile(ctx, "/srv/images/root.squashfs", squash.Dir("/srv/trees/root"), nil)
//
//	f, err := os.Open("/srv/images/root.squashfs")
//	...
//	root, err := squash.Open(f)
//	b, err := fs.ReadFile(root, "etc/os-release")
//
// # What is written
//
// Regular files, directories, symbolic links, block and character devices,
// FIFOs and sockets; hard links of any of these but directories; owners with
// 32-bit ids (at most 65,535 different ones in an image); setuid, setgid and
// sticky; extended attributes in user., trusted. and security., file
// capabilities among them, equal sets and long values stored once; blocks of
// zeros as holes; files of equal content stored once; tails shorter than a
// block packed into shared fragments; an index in directories whose listing
// exceeds 8 KiB, so that a name among 100,000 is found quickly; the export
// table that NFS needs.
//
// [Zstd], [Gzip], [LZ4] and [XZ] compress, and sub-package libzstd does with the
// C library; what does not get smaller is stored as it is. [ForNetwork],
// [ForMemory], [ForSpeed] and [ForOldKernels] are options for a purpose.
//
// Linux is stricter than other readers: it mounts an image whose zstd window
// exceeds the block size, or whose xz streams have a CRC64, and fails to read
// the files. What is written here is what it accepts. The image is padded to a
// multiple of 4,096 bytes, which block devices want.
//
// The same source gives the same bytes, whatever the number of workers, the
// machine or the time of day. No clock is read: the time in the superblock is
// the newest modification time in the tree, or [Options.ModTime].
//
// With [Options.Base] an image that was built before saves the compression of
// what has not changed; the bytes are the same as without it.
//
// A build holds the tree's names and attributes in memory and a few blocks for
// each worker and reader, never a whole file. A million empty files take about
// 1 GB from a tar, which holds what later hard links may name, and 750 MB from
// an image; a lower GOGC makes it less. What an archive from somebody else may
// take is bounded: [Options.MaxSize], MaxFileSize, MaxEntries, MaxNames, and
// 1 GiB for paths and attributes of a layer.
//
// # What is read
//
// Images with zstd, gzip, lz4, xz or lzo compression by any writer, every
// inode type, with or without fragments, export table and extended attributes.
// Every length in an image is checked before it is used, a directory that is
// reachable twice is refused, so that no walk is endless, and damage is
// reported as a [*FormatError] that names the offset.
//
// [Extract] writes a source into a directory and [WriteTar] into an archive;
// [Diff] says what is not the same in two images; [Verify] looks for all that
// is wrong with an image, also what readers accept in silence.
//
// # Caveats
//
//   - The format has no place for extended attributes outside of user.,
//     trusted. and security.; POSIX ACLs are such. They are left out, counted
//     in [Progress] and logged, or refused: [Options.Strict].
//   - io/fs knows only names that are valid UTF-8. [FromFS] refuses others with
//     an error that quotes them, and in an image they are listed but cannot be
//     opened by name; [Dir] and [FS.Entries] know them all.
//   - Modification times before 1970 or after 2106-02-07 do not fit the format.
//     They are moved to the nearest one that does, counted in [Progress] and
//     logged. Fractions of a second are dropped.
//   - The tree must be at rest: a file whose length changes while the image is
//     built ends the build with an error. Nothing is left out either: mounted
//     file systems below the source (/proc, /sys) are read like the rest.
//   - Linux refuses an image whose block size is below its page size, so
//     blocks under 64 KiB do not mount on arm64 kernels with 64 KiB pages.
//   - Paths of more than 4,096 bytes and files with more than 1 MiB of extended
//     attributes are errors, in a source and in an image.
//   - lzma images, which Linux does not read, and xz images with streams of
//     several blocks or with filters for machine code other than x86, arm,
//     armthumb and powerpc (mksquashfs -Xbcj) are recognised and refused with
//     an error that matches [errors.ErrUnsupported]. Of these filters Debian's
//     kernels know only x86, which [Verify] says of the others. 7-Zip does not
//     read lz4 images.
package squash
