// Package squash builds and reads SquashFS 4.0 images, the compressed
// read-only file systems that diskless machines use as their root.
//
// # Model
//
// [Build] packs any [fs.FS] into an image; [Open] shows an image as an
// [fs.FS]. The two meet in [Stat]: what an fs.FileInfo cannot say (owner,
// device numbers, hard links) is what its Sys method returns, a *Stat or,
// from [os.DirFS] on Linux, a *syscall.Stat_t. So a directory, an
// [testing/fstest.MapFS], an embedded tree and another image are all sources,
// and none of them needs root: device nodes and owners come from the
// metadata, not from what the building user may create. [Overlay] puts a
// second tree over the first.
//
//	err := squash.BuildFile(ctx, "/srv/images/root.squashfs", os.DirFS("/srv/trees/root"), nil)
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
// sticky; blocks of zeros as holes; tails shorter than a block packed into
// shared fragments; an index in directories whose listing exceeds 8 KiB, so
// that a name among 100,000 is found quickly; the export table that NFS needs.
// Data and metadata are zstd streams whose window never exceeds the block
// size: with a larger one Linux mounts the image and then fails to read it.
// The image is padded to a multiple of 4,096 bytes, which block devices want.
//
// The same source gives the same bytes, whatever the number of workers, the
// machine or the time of day. No clock is read: the time in the superblock is
// the newest modification time in the tree, or [Options.ModTime].
//
// A build holds the tree's names and attributes in memory (about 300 bytes an
// entry) and a few blocks a worker, never a whole file.
//
// # What is read
//
// Images with zstd or gzip compression by any writer, every inode type, with
// or without fragments, export table and extended attributes (which are
// skipped). Every length in an image is checked before it is used, a
// directory that is reachable twice is refused, so that no walk is endless,
// and damage is reported as a [*FormatError] that names the offset.
//
// # Caveats
//
//   - Extended attributes, and with them file capabilities and ACLs, cannot be
//     seen through fs.FS and are not written; the images say that they have
//     none. A program that relies on file capabilities (ping on some
//     distributions) needs them set some other way.
//   - io/fs knows only names that are valid UTF-8. A source with another name
//     is refused with an error that quotes it; in an image that another tool
//     built such a name is listed but cannot be opened.
//   - Modification times before 1970 or after 2106-02-07 do not fit the format.
//     They are moved to the nearest one that does, counted in [Progress] and
//     logged. Fractions of a second are dropped.
//   - The tree must be at rest: a file whose length changes while the image is
//     built ends the build with an error. Nothing is left out either: mounted
//     file systems below the source (/proc, /sys) are read like the rest.
//   - Linux refuses an image whose block size is below its page size, so
//     blocks under 64 KiB do not mount on arm64 kernels with 64 KiB pages.
//   - xz, lz4, lzo and lzma images are recognised and refused with an error
//     that matches [errors.ErrUnsupported].
package squash
