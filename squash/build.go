package squash

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"math/bits"
)

// Build packs src into a SquashFS image that begins at offset 0 of w
// ([io.NewOffsetWriter] puts it elsewhere). The image ends with zeros up to a
// multiple of 4,096 bytes; w is not truncated. The superblock is cleared first
// and written last: from the first write until Build has returned nil, what is
// in w is no image. [BuildFile] is the way to a file that is complete or not there.
//
// Owners, device numbers and hard links come from the source's FileInfo, see
// [Stat]. Symbolic links need a source that is an [fs.ReadLinkFS]. Sockets are
// stored as sockets. src is read by one goroutine at a time, w is written by
// one at a time, and neither is used after Build has returned.
//
// Build ends early when ctx is done, with its cause, after the Read that it
// waits for. An error that concerns one file is or wraps an [*fs.PathError]
// with its name. A nil opts means the defaults.
func Build(ctx context.Context, w io.WriterAt, src fs.FS, opts *Options) error {
	return build(ctx, w, src, opts, nil)
}

func build(ctx context.Context, w io.WriterAt, src fs.FS, opts *Options, refuse func(Stat) error) error {
	o, err := opts.withDefaults()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	enc, err := newEncoder(o.BlockSize, o.Workers)
	if err != nil {
		return fmt.Errorf("squash: %w", err)
	}
	defer enc.Close()

	s := &scanner{ctx: ctx, src: src, opts: &o, links: make(map[linkKey]*inode), refuse: refuse}
	root, err := s.scan()
	if err != nil {
		return err
	}
	if n := s.prog.ClampedTimes; n > 0 {
		o.Logger.Warn("squash: modification times do not fit (1970 to 2106-02-07) and were moved", "files", n, "first", s.clamped)
	}

	// What w held before must not look like an image of what is written now.
	if _, err := w.WriteAt(make([]byte, superSize), 0); err != nil {
		return fmt.Errorf("squash: writing the image: %w", err)
	}
	d := &dataWriter{ctx: ctx, cancel: cancel, src: src, w: w, opts: &o, enc: enc, off: superSize, prog: s.prog}
	d.start()
	err = d.files(".", root)
	if err == nil {
		d.flushFragment()
	}
	d.stop()
	// A failed write stops the reading side through ctx, so the cause is first.
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err != nil {
		return err
	}

	sb, err := writeTables(d, s, root)
	if err != nil {
		return err
	}
	if pad := -sb.Used & (padTo - 1); pad > 0 {
		if _, err := w.WriteAt(make([]byte, pad), int64(sb.Used)); err != nil {
			return fmt.Errorf("squash: writing the image: %w", err)
		}
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if _, err := w.WriteAt(sb.encode(), 0); err != nil {
		return fmt.Errorf("squash: writing the superblock: %w", err)
	}
	if o.Progress != nil {
		d.prog.Done = true
		d.prog.Written = int64(sb.Used+padTo-1) &^ (padTo - 1)
		o.Progress(d.prog)
	}
	return nil
}

// writeTables writes what follows the data, in the one order and without the
// gaps that Linux demands, and returns the superblock that points to it.
func writeTables(d *dataWriter, s *scanner, root *inode) (*superblock, error) {
	t := newTables(d.enc, s.inodes)
	if err := t.dir(".", root); err != nil {
		return nil, err
	}
	if err := t.inode(".", root); err != nil {
		return nil, err
	}
	t.inodes.flush()
	t.dirs.flush()

	sb := &superblock{
		Magic: superMagic, Inodes: s.inodes, Time: s.newest,
		BlockSize: uint32(d.opts.BlockSize), BlockLog: uint16(bits.TrailingZeros(uint(d.opts.BlockSize))),
		Fragments: d.frags, Compressor: compZstd, IDs: uint16(len(t.ids)),
		Flags: flagExport | flagNoXattrs | flagAlwaysFragments, Major: 4, Minor: 0,
		Root: root.ref, XattrStart: none64,
	}
	if d.frags == 0 {
		sb.Flags = flagExport | flagNoXattrs | flagNoFragments
	}
	put := func(b []byte) error {
		if len(b) == 0 {
			return nil
		}
		if _, err := d.w.WriteAt(b, d.off); err != nil {
			return fmt.Errorf("squash: writing the image: %w", err)
		}
		d.off += int64(len(b))
		return nil
	}
	lookup := func(records []byte) (uint64, error) {
		table, start := lookupTable(d.enc, records, d.off)
		return uint64(start), put(table)
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
	sb.Used = uint64(d.off)
	return sb, nil
}
