package squash

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/bits"
)

// Build packs a tree into a SquashFS image that begins at offset 0 of w
// ([io.NewOffsetWriter] puts it elsewhere). The image ends with zeros up to a
// multiple of 4,096 bytes; w is not truncated. The superblock is cleared first
// and written last: from the first write until Build has returned nil, what is
// in w is no image. [BuildFile] is the way to a file that is complete or not there.
//
// The source's entries are taken by one goroutine at a time, w is written by one
// at a time, and neither is used after Build has returned. Content that a source
// can open later is read once the whole tree is known, a few files at once:
// [Options.Readers]; content that comes once, as in a tar stream, goes into the image in
// the order in which it comes. While content is found to be in the image
// already, w may be written beyond the image's end; what lies there is cut off
// when w has a Truncate method, as *os.File, and zeros otherwise.
//
// Build ends early when ctx is done, with its cause, after the Read that it
// waits for. An error that concerns one file is or wraps an [*fs.PathError]
// with its name. A nil opts means the defaults.
func Build(ctx context.Context, w io.WriterAt, src Source, opts *Options) error {
	return build(ctx, w, src, opts, nil)
}

func build(ctx context.Context, w io.WriterAt, src Source, opts *Options, refuse func(Stat) error) error {
	o, err := opts.withDefaults()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	d := &dataWriter{ctx: ctx, cancel: cancel, w: w, opts: &o, report: &report{call: o.Progress, logger: o.Logger, p: Progress{Entries: 1}}}
	if d.base, err = newBase(&o); err != nil {
		return err
	}
	d.tails = newTails(d.base)
	for range o.Workers {
		enc, err := o.Compressor.NewEncoder(max(o.BlockSize, metaSize))
		if err != nil {
			return err
		}
		d.encs = append(d.encs, enc)
	}
	meta := d.encs[0]
	if m, ok := o.Compressor.(MetadataCompressor); ok {
		if meta, err = m.NewMetadataEncoder(); err != nil {
			return err
		}
	}
	options := optionBlock(o.Compressor.Options(o.BlockSize))
	d.off = superSize + int64(len(options))
	d.high = d.off

	// What w held before must not look like an image of what is written now.
	// A source that cannot be read at all leaves it as it was.
	b := &builder{d: d, t: newTree(ctx, &o, refuse, d.report)}
	b.begin = func() error {
		if _, err := w.WriteAt(append(make([]byte, superSize), options...), 0); err != nil {
			return fmt.Errorf("squash: writing the image: %w", err)
		}
		return nil
	}
	d.start()
	err = b.read(src)
	d.stop()
	// A failed write stops the reading side through ctx, so the cause is first.
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err != nil {
		return err
	}
	d.report.warn()

	sb, err := writeTables(d, b.t, meta)
	if err != nil {
		return err
	}
	if len(options) > 0 {
		sb.Flags |= flagOptions
	}
	end := int64(sb.Used+padTo-1) &^ (padTo - 1)
	if err := b.pad(int64(sb.Used), end); err != nil {
		return err
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if _, err := w.WriteAt(sb.encode(), 0); err != nil {
		return fmt.Errorf("squash: writing the superblock: %w", err)
	}
	d.report.note(func(p *Progress) { p.Done, p.Written = true, end })
	return nil
}

// builder takes a source's entries into the tree and their content into the
// image.
type builder struct {
	d     *dataWriter
	t     *tree
	begin func() error
}

func (b *builder) read(src Source) error {
	sizes := make(map[int64]sameSize)
	var later []*inode
	begun := false
	begin := func() error {
		if begun {
			return nil
		}
		begun = true
		return b.begin()
	}
	for e, err := range src.Entries(b.d.ctx) {
		if err != nil {
			return err
		}
		if err := context.Cause(b.d.ctx); err != nil {
			return err
		}
		ino, fresh, err := b.t.add(e)
		if err != nil {
			return err
		}
		if !fresh || ino.kind != kindFile {
			continue
		}
		b.d.report.note(func(p *Progress) { p.Total += ino.size })
		switch {
		case e.Open != nil:
			ino.open = e.Open
			if since := b.d.opts.BaseTime; b.d.base != nil && (since.IsZero() || !e.ChangeTime.IsZero() && e.ChangeTime.Before(since)) {
				ino.was = b.d.base.unchanged(e.Path, ino, b.d.blocks(ino))
			}
			sizes[ino.size] = sizes[ino.size].add(ino.was)
			later = append(later, ino)
		case ino.size == 0:
		case e.Content == nil:
			return entryError(e.Path, errNoContent)
		default:
			if err := begin(); err != nil {
				return err
			}
			ino.twin = true
			sizes[ino.size] = sizes[ino.size].add(nil)
			var was *node
			if b.d.base != nil {
				was = b.d.base.find(e.Path)
			}
			if err := b.d.file(e.Path, ino, e.Content, was); err != nil {
				return err
			}
		}
	}
	if err := b.t.finish(); err != nil {
		return err
	}
	if err := begin(); err != nil {
		return err
	}
	for _, ino := range later {
		if same := sizes[ino.size]; same.twins && ino.size > 0 && ino.number > 0 {
			ino.twin = true
			ino.compared = same.compared && b.d.base.ours
		}
	}
	later = nil
	if err := b.d.files(b.t.root); err != nil {
		return err
	}
	return b.d.flushFragment()
}

// sameSize is what is known of the files of one size.
type sameSize struct {
	some, twins bool   // there are some, there are several
	was         uint32 // number in the base of one that is taken over
	compared    bool   // the base had several of these, so that its build compared them
}

func (s sameSize) add(was *taken) sameSize {
	s.twins = s.some
	s.some = true
	if was != nil {
		s.compared = s.compared || s.was != 0 && s.was != was.number
		s.was = was.number
	}
	return s
}

// pad ends the image with zeros, and what was written beyond it.
func (b *builder) pad(used, end int64) error {
	w := b.d.w
	if t, ok := w.(interface{ Truncate(int64) error }); ok && b.d.high > end {
		if err := t.Truncate(end); err != nil {
			return fmt.Errorf("squash: cutting the image: %w", err)
		}
		b.d.high = end
	}
	zeros := make([]byte, 64<<10)
	for end = max(end, (b.d.high+padTo-1)&^(padTo-1)); used < end; {
		n, err := w.WriteAt(zeros[:min(int64(len(zeros)), end-used)], used)
		if err != nil {
			return fmt.Errorf("squash: writing the image: %w", err)
		}
		used += int64(n)
	}
	return nil
}

// optionBlock wraps a compressor's options as the metadata that follows the
// superblock.
func optionBlock(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	n := uint16(len(b)) | rawMeta
	return append([]byte{byte(n), byte(n >> 8)}, b...)
}

// writeTables writes what follows the data, in the one order and without the
// gaps that Linux demands, and returns the superblock that points to it.
func writeTables(d *dataWriter, tree *tree, meta Encoder) (*superblock, error) {
	t := newTables(meta, tree.inodes)
	if err := t.dir(".", tree.root); err != nil {
		return nil, err
	}
	t.inodes.flush()
	t.dirs.flush()
	if err := errors.Join(t.inodes.err, t.dirs.err); err != nil {
		return nil, fmt.Errorf("squash: compressing: %w", err)
	}

	sb := &superblock{
		Magic: superMagic, Inodes: tree.inodes, Time: tree.newest,
		BlockSize: uint32(d.opts.BlockSize), BlockLog: uint16(bits.TrailingZeros(uint(d.opts.BlockSize))),
		Fragments: d.frags, Compressor: d.opts.Compressor.ID(), IDs: uint16(len(t.ids)),
		Flags: flagExport | flagAlwaysFragments | flagDuplicates, Major: 4, Minor: 0,
		Root: tree.root.ref, XattrStart: none64,
	}
	if d.frags == 0 {
		sb.Flags ^= flagAlwaysFragments | flagNoFragments
	}
	put := func(b []byte) error {
		if len(b) == 0 {
			return nil
		}
		if _, err := d.w.WriteAt(b, d.off); err != nil {
			return fmt.Errorf("squash: writing the image: %w", err)
		}
		d.off += int64(len(b))
		d.high = max(d.high, d.off)
		return nil
	}
	lookup := func(records []byte) (uint64, error) {
		pieces, list, err := lookupPieces(meta, records, d.off)
		if err != nil {
			return 0, fmt.Errorf("squash: compressing: %w", err)
		}
		start := uint64(d.off) + uint64(len(pieces))
		return start, put(append(pieces, list...))
	}
	sb.InodeStart = uint64(d.off)
	if err := put(t.inodes.out); err != nil {
		return nil, err
	}
	sb.DirStart = uint64(d.off)
	if err := put(t.dirs.out); err != nil {
		return nil, err
	}
	var err error
	if sb.FragStart, err = lookup(d.fragTable); err != nil {
		return nil, err
	}
	if sb.ExportStart, err = lookup(t.export); err != nil {
		return nil, err
	}
	if sb.IDStart, err = lookup(t.idList); err != nil {
		return nil, err
	}
	if len(tree.xattrs.list) == 0 {
		sb.Flags |= flagNoXattrs
	} else {
		out, start, err := tree.xattrs.tables(meta, d.off)
		if err != nil {
			return nil, fmt.Errorf("squash: compressing: %w", err)
		}
		sb.XattrStart = uint64(start)
		if err := put(out); err != nil {
			return nil, err
		}
	}
	sb.Used = uint64(d.off)
	return sb, nil
}
