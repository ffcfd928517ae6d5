package squash

// Options for a purpose. Each call gives new ones, to be changed at will; those
// that compress with zstd do as well, and faster, with sub-package libzstd's.

// ForNetwork suits a root that machines read over the network piece by piece.
// Whoever reads a small file has all of its fragment block sent, so that these
// hold 32 KiB instead of 128: 300 cold reads of 4 KiB in a Debian root move half
// the bytes, in an image that is some 2 % larger. Blocks stay at 128 KiB, which
// is what Linux asks a block device for at once.
func ForNetwork() *Options { return &Options{FragmentSize: 32 << 10} }

// ForMemory suits an image that is sent whole and kept in memory: a small one,
// whose blocks of 1 MiB cost most to read randomly. It takes some six times as
// long to build as by default; with libzstd, level 8 takes less than half of that
// for an image that is 1 or 2 % larger.
func ForMemory() *Options { return &Options{BlockSize: maxBlock, Compressor: Zstd{Level: 4}} }

// ForSpeed suits images that are built often and thrown away: the least work to
// write and to read, a third larger.
func ForSpeed() *Options { return &Options{Compressor: LZ4{}} }

// ForOldKernels suits machines with Linux before 4.14, which has no zstd, and
// boot loaders that read nothing else.
func ForOldKernels() *Options { return &Options{Compressor: Gzip{}} }
