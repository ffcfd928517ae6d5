package nbd

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
)

// Images is a registry of read-only images that are published as generations:
// the SHA-256 of its content names a generation, and the file that is at an
// image's path now is the newest one. Publish a new generation by renaming a
// new file over the old one, yourself or by [Images.Publish]; [Images.Revert]
// goes back. A generation stays open as long as a connection or a root uses it,
// and the last former one stays beyond that, for machines whose boot is under
// way.
//
// With Dir set the newest generation and the last Keep former ones stay on disk
// as hard links in Dir/generations, wherever the image's own file is: a machine
// that comes back with its generation, when the server has been restarted or
// after a week, gets the same bytes. The one that was replaced longest ago
// goes first, and [Images.Prune] lets those of images go that are no longer
// registered. A generation that a kept root is over stays for as long as the
// root needs it, see [Roots].
//
// As a [Handler] it serves IMAGE (the newest) and IMAGE~GENERATION (exactly
// that one, or [fs.ErrNotExist]), read-only, padded with zeroes to a multiple
// of 512 bytes.
//
// A file that is written to in place is no generation any more: opening it is
// refused, devices that are open fail their reads, and a warning says so. The
// change is noticed when the image is next asked for, by size and time stamp.
//
// The zero value is an empty registry. All methods may be called concurrently.
type Images struct {
	// Dir is a directory, made when it is needed, for the generations that
	// stay, and for images that [Images.Publish] makes, as Dir/NAME.img; "" is
	// none. Load registers what is in it. It must be in one file system with
	// the images that are registered elsewhere, and they be owned by (or
	// writable for) the server's user: a warning tells of one that is not.
	Dir string
	// Keep is how many former generations of each image stay on disk: 0 is 2;
	// with -1 neither they nor the newest have links, and Revert finds none.
	Keep int
	// Cache is a file in which digests are remembered with device, inode,
	// size and times of the file they belong to, so that a restart need not
	// read every image again. "" remembers nothing beyond the process. Who
	// can write to it decides what is taken for which generation.
	Cache string
	// Check, when not nil, looks at a file before it becomes a generation, and
	// refuses one that is not whole: an image that was cut short on its way
	// here has a digest like any other. What it refuses counts as a file
	// that cannot be read.
	Check func(image io.ReaderAt, size int64) error
	// Logger receives warnings about images that were written to in place or
	// cannot be read. nil is slog.Default().
	Logger *slog.Logger

	digester digester

	disk      disk
	publishMu sync.Mutex // one change of an image's file at a time
	keepMu    sync.Mutex // one change of Dir/generations at a time
	linkMu    sync.Mutex // one change of a ctime at a time

	mu      sync.Mutex
	entries map[string]*imageEntry
	closed  bool
}

// imageEntry is one image's generations. Images.mu guards it.
type imageEntry struct {
	path string // "" when only a root holds generations of it

	newest, former *imageFile            // each with a reference
	open           map[string]*imageFile // all that are referenced, by digest
	warned         string                // the last warning, to say it once
}

// Generation is one state of an image.
type Generation struct {
	// Image is the image's name.
	Image string
	// Digest is the SHA-256 of the file, 64 lower-case hexadecimal digits.
	Digest string
	// Size is the file's size in bytes.
	Size int64
}

// Name returns the export name of exactly this generation.
func (g Generation) Name() Name {
	return Name{Image: g.Image, Generation: g.Digest[:min(GenerationDigits, len(g.Digest))]}
}

// Add registers the image at path under a name and reads it once for its
// digest. An image of that name that is there already moves to the new path.
// Errors: [fs.ErrInvalid] for a name that cannot be an image's and for what is
// not a regular file with something in it; what the file system says; ctx's.
func (im *Images) Add(ctx context.Context, name, path string) error {
	n := Name{Image: name}
	if err := n.Valid(); err != nil {
		return err
	}
	file, err := im.load(ctx, path)
	if err != nil {
		return fmt.Errorf("nbd: image %s: %w", name, err)
	}
	im.mu.Lock()
	if im.closed {
		im.mu.Unlock()
		file.release()
		return errImagesClosed
	}
	e := im.entry(name)
	e.path = path
	e.install(file.retain())
	im.mu.Unlock()
	defer file.release()
	im.keepOrWarn(name, file)
	return nil
}

var errImagesClosed = fmt.Errorf("nbd: images: %w", fs.ErrClosed)

func (im *Images) logger() *slog.Logger {
	if im.Logger != nil {
		return im.Logger
	}
	return slog.Default()
}

// entry finds or makes an image's entry; im.mu is held.
func (im *Images) entry(name string) *imageEntry {
	e := im.entries[name]
	if e == nil {
		if im.entries == nil {
			im.entries = make(map[string]*imageEntry)
		}
		e = &imageEntry{open: make(map[string]*imageFile)}
		im.entries[name] = e
	}
	return e
}

// install makes file the newest generation and takes its reference over.
func (e *imageEntry) install(file *imageFile) {
	e.sweep()
	e.open[file.digest] = file
	if e.newest != nil && e.newest.digest == file.digest {
		e.newest.release()
		e.newest = file
		return
	}
	if e.former != nil {
		e.former.release()
	}
	e.former, e.newest = e.newest, file
	e.warned = ""
}

// sweep forgets the generations that nobody holds any more.
func (e *imageEntry) sweep() {
	for digest, file := range e.open {
		if file.refs.Load() <= 0 {
			delete(e.open, digest)
		}
	}
}

// find returns an open generation by its first digits, with a new reference.
func (e *imageEntry) find(generation string) *imageFile {
	for digest, file := range e.open {
		if strings.HasPrefix(digest, generation) && file.tryRetain() {
			return file
		}
	}
	return nil
}

// load opens and digests the file at path.
func (im *Images) load(ctx context.Context, path string) (*imageFile, error) {
	file, err := openImageFile(path)
	if err != nil {
		return nil, err
	}
	if im.Check != nil {
		err = im.Check(&imageDevice{imageFile: file}, file.size)
	}
	if err == nil {
		file.digest, err = im.digester.digest(ctx, file, file.id, im.Cache)
	}
	if err != nil {
		file.release()
		return nil, err
	}
	return file, nil
}

// Current returns the newest generation of an image. When the file at the
// image's path has been replaced it is read for its digest first, once for
// all who ask; when it cannot be read, or is gone, the last generation is
// still the newest and a warning is logged. Errors: [fs.ErrNotExist] when
// there is no such image; an error that says so when the file was written to
// in place and is still changing; ctx's.
func (im *Images) Current(ctx context.Context, name string) (Generation, error) {
	file, err := im.current(ctx, name)
	if err != nil {
		return Generation{}, err
	}
	defer file.release()
	return Generation{Image: name, Digest: file.digest, Size: file.size}, nil
}

// current is Current with a reference.
func (im *Images) current(ctx context.Context, name string) (*imageFile, error) {
	im.mu.Lock()
	if im.closed {
		im.mu.Unlock()
		return nil, errImagesClosed
	}
	e := im.entries[name]
	if e == nil || e.path == "" {
		im.mu.Unlock()
		return nil, fmt.Errorf("nbd: no image %q: %w", name, fs.ErrNotExist)
	}
	path, newest := e.path, e.newest.retain()
	im.mu.Unlock()

	info, err := os.Stat(path)
	if err == nil && statID(info).sameFile(newest.seen()) {
		if im.check(ctx, name, newest) == nil {
			return newest, nil
		}
	}
	if ctx.Err() != nil {
		newest.release()
		return nil, ctx.Err()
	}
	var file *imageFile
	if err == nil {
		file, err = im.load(ctx, path)
	}
	if err != nil {
		if ctx.Err() != nil || im.check(ctx, name, newest) != nil {
			newest.release()
			return nil, fmt.Errorf("nbd: image %s: %w", name, err)
		}
		im.warn(name, "image cannot be read, its last generation is still served", err)
		return newest, nil
	}
	newest.release()

	im.mu.Lock()
	if im.closed {
		im.mu.Unlock()
		file.release()
		return nil, errImagesClosed
	}
	// Another one may have been faster, or Add have moved the image.
	fresh := e.path == path && e.newest.seen() != file.seen()
	if fresh {
		e.install(file.retain())
	}
	im.mu.Unlock()
	if fresh {
		im.keepOrWarn(name, file)
	}
	return file, nil
}

// warn logs a message about an image unless it was the last one.
func (im *Images) warn(name, msg string, err error) {
	im.mu.Lock()
	e := im.entries[name]
	again := e != nil && e.warned == err.Error()
	if e != nil {
		e.warned = err.Error()
	}
	im.mu.Unlock()
	if !again {
		im.logger().Warn("nbd: "+msg, "image", name, "err", err)
	}
}

// Close lets go of every image; a device that is open keeps its own until it
// is closed. Work in hand ends with an error that wraps [fs.ErrClosed] or
// [context.Canceled].
func (im *Images) Close() error {
	im.mu.Lock()
	if !im.closed {
		im.closed = true
		for _, e := range im.entries {
			for _, file := range []*imageFile{e.newest, e.former} {
				if file != nil {
					file.release()
				}
			}
		}
	}
	im.mu.Unlock()
	im.digester.close()
	return nil
}

var (
	_ Handler = (*Images)(nil)
	_ Lister  = (*Images)(nil)
)
