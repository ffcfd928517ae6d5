package squash

import (
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"runtime"
	"time"
)

// Options says how [Build] works. A nil *Options and the zero value are the
// defaults.
type Options struct {
	// BlockSize is the unit of compression in bytes: a power of two from
	// 4,096 to 1,048,576. 0 means 131,072, which suits a root over the
	// network; larger blocks make smaller images that cost more to read
	// randomly.
	BlockSize int

	// Compressor compresses data and metadata; nil means Zstd{}.
	Compressor Compressor

	// FragmentSize is how many bytes of tails, the ends of files that do not
	// fill a block, are packed into one block, up to BlockSize, which 0 means.
	// Whoever reads a small file fetches and decodes all of its fragment
	// block, so a smaller size makes random reads cheaper and the image
	// larger (32 KiB: by some 2 %). A longer tail is a short block of its
	// own. -1 means that no tails are packed.
	FragmentSize int

	// OmitSockets leaves sockets out, which nobody listens on in an image;
	// they are counted and logged. Otherwise they are stored as what they are.
	OmitSockets bool

	// OmitXattrs leaves all extended attributes out.
	OmitXattrs bool

	// Strict makes an error of what the image cannot hold as it is: a
	// modification time before 1970 or after 2106-02-07, an extended attribute
	// outside of user., trusted. and security., such as a POSIX ACL, and the file
	// flags of an archive.
	// Otherwise these are moved to the nearest time and left out, counted in
	// [Progress] and logged.
	Strict bool

	// MaxFileSize is the largest size in bytes of a regular file; 0 means
	// 1 TiB, -1 no limit. An archive can claim files of any size in few bytes.
	MaxFileSize int64

	// MaxSize is how many bytes all regular files may have together, holes
	// counted, hard links once; 0 means 1 TiB, -1 no limit. Holes take time,
	// too, about as much as reading zeros from memory.
	MaxSize int64

	// MaxEntries is how many names a tree may have, directories that only
	// stand in other names among them; 0 means 10,000,000, -1 no limit. See the
	// package's description for the memory that each takes.
	MaxEntries int

	// MaxNames is how many bytes the names, without their directories, and the
	// targets of symbolic links may have together; 0 means 512 MiB, -1 no
	// limit.
	MaxNames int64

	// Workers is how many blocks are compressed at once; 0 means
	// GOMAXPROCS. It does not change the image.
	Workers int

	// Readers is how many files are open and read ahead at once, each with
	// two blocks of memory; 0 means 4. 1 is for sources that are not safe for
	// concurrent use. It does not change the image.
	Readers int

	// Base is an image that was built before from much the same source with
	// the same options, or nil: blocks whose content it has under the same
	// name are taken over as they are stored, which saves the compression. The
	// new image is byte for byte what it would be without a Base that Build
	// has made; one of another program may store the same content otherwise,
	// holes as zeros for instance. An image does not tell all that it was made
	// with, so that some of the blocks are compressed again; if they differ
	// the build ends with an error that matches [fs.ErrInvalid].
	Base *FS

	// Unchanged says how to tell that a file is what it was in Base.
	Unchanged Unchanged

	// BaseTime is when the build of Base began, for Unchanged BySizeAndTime:
	// a file whose attributes or content were changed later, as [Stat]'s
	// ChangeTime tells, is read and compared whatever its modification time,
	// and so is one whose ChangeTime is not known. Zero means that change times
	// are not looked at.
	BaseTime time.Time

	// ModTime, when not zero, is the modification time of every entry and of
	// the image itself, for images that shall not depend on when the tree
	// was made (the meaning of SOURCE_DATE_EPOCH, which the package itself
	// does not read). When zero, entries keep their times and the image takes
	// the newest of them. One before 1970 or after 2106-02-07 is an error.
	ModTime time.Time

	// Progress, when not nil, is called now and then, and a last time with
	// Done set when the image is complete. Calls never overlap; the build
	// waits for them.
	Progress func(Progress)

	// Logger gets a warning for each kind of thing that the image cannot
	// hold as it is. nil means slog.Default().
	Logger *slog.Logger
}

// Progress is a state of a running [Build].
type Progress struct {
	// Entries is the number of names found: files, directories, links.
	Entries int
	// Total is the size in bytes of the regular files found so far, each
	// counted once however many links it has. It is complete before Read
	// begins to grow unless the source can be read once only.
	Total int64
	// Read is how many of these bytes have been compressed.
	Read int64
	// Reused is how many bytes of blocks were taken over from Options.Base.
	Reused int64
	// Written is the size of the image so far, in bytes.
	Written int64
	// ClampedTimes counts the files whose modification time did not fit
	// (before 1970 or after 2106-02-07) and was moved.
	ClampedTimes int
	// DroppedXattrs counts the extended attributes that the format has no
	// place for (POSIX ACLs) and that were left out.
	DroppedXattrs int
	// OmittedSockets counts the sockets left out as Options.OmitSockets says.
	OmittedSockets int
	// Done is set in the last call.
	Done bool
}

func (o *Options) withDefaults() (Options, error) {
	var c Options
	if o != nil {
		c = *o
	}
	if c.BlockSize == 0 {
		c.BlockSize = defaultBlock
	}
	if c.BlockSize < minBlock || c.BlockSize > maxBlock || c.BlockSize&(c.BlockSize-1) != 0 {
		return c, fmt.Errorf("squash: block size %d: %w: choose a power of two from %d to %d", c.BlockSize, fs.ErrInvalid, minBlock, maxBlock)
	}
	if c.FragmentSize == 0 {
		c.FragmentSize = c.BlockSize
	}
	if c.FragmentSize < -1 || c.FragmentSize > c.BlockSize {
		return c, fmt.Errorf("squash: fragment size %d: %w: choose 1 to the block size, or -1 for no fragments", c.FragmentSize, fs.ErrInvalid)
	}
	if c.MaxFileSize == 0 {
		c.MaxFileSize = 1 << 40
	}
	if c.MaxSize == 0 {
		c.MaxSize = 1 << 40
	}
	if c.MaxNames == 0 {
		c.MaxNames = 512 << 20
	}
	if c.MaxEntries == 0 {
		c.MaxEntries = 10_000_000
	}
	if sec := c.ModTime.Unix(); !c.ModTime.IsZero() && (sec < 0 || sec > math.MaxUint32) {
		return c, fmt.Errorf("squash: Options.ModTime is %v: %w: the format has times from 1970 to 2106-02-07", c.ModTime, fs.ErrInvalid)
	}
	if c.Compressor == nil {
		c.Compressor = Zstd{}
	}
	if c.Workers < 0 {
		return c, fmt.Errorf("squash: %d workers: %w: choose 1 or more, or 0 for one a processor", c.Workers, fs.ErrInvalid)
	}
	if c.Workers == 0 {
		c.Workers = runtime.GOMAXPROCS(0)
	}
	if c.Readers < 0 {
		return c, fmt.Errorf("squash: %d readers: %w: choose 1 or more, or 0 for the default", c.Readers, fs.ErrInvalid)
	}
	if c.Readers == 0 {
		c.Readers = readers
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, nil
}
