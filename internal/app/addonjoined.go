package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/seed-3ec230fa/diskless/internal/config"
	"github.com/seed-3ec230fa/diskless/pxecfg"
)

// addonJoined are an entry's own initramfs and the add-on in one file, for U-Boot,
// which loads one initramfs only: joined/ENTRY/ and the name of the add-on. The
// kernel unpacks one archive after the other, whoever has put them together.
const addonJoined = addonDir + "joined/"

// initrds are what a boot loader loads for an entry.
func (d *addons) initrds(e config.Entry, m *config.Machine, asks pxecfg.Loader) []string {
	added := d.files(e, m)
	if len(added) == 0 || asks != pxecfg.LoaderUBoot && (m == nil || m.Loader != config.LoaderUBoot) {
		return slices.Concat(e.Initrd, added)
	}
	return []string{addonJoined + e.Name + "/" + strings.TrimPrefix(added[len(added)-1], addonDir)}
}

// openJoined returns the parts behind each other. Those of the boot tree are read
// as they are sent.
func (d *addons) openJoined(ctx context.Context, peer netip.Addr, name string) (_ addonReader, err error) {
	entry, rest, _ := strings.Cut(strings.TrimPrefix(name, addonJoined), "/")
	e, ok := d.app.cfg.EntryByName(entry)
	if !ok || !d.app.cfg.HasAddon(e) {
		return nil, fs.ErrNotExist
	}
	own, err := d.read(ctx, peer, addonDir+rest)
	if err != nil {
		return nil, err
	}
	j := &joined{name: name}
	defer func() {
		if err != nil {
			_ = j.Close()
		}
	}()
	for _, file := range e.Initrd {
		if err := j.open(d.app.tree.Files, strings.TrimPrefix(file, "/")); err != nil {
			return nil, fmt.Errorf("entry %s: it cannot be put before the add-on: %w", e.Name, err)
		}
	}
	if modules := d.modulesFor(e); modules != "" {
		if data, err := d.read(ctx, peer, modules); err == nil {
			j.add(bytes.NewReader(data), int64(len(data)))
		}
	}
	j.add(bytes.NewReader(own), int64(len(own)))
	j.SectionReader = io.NewSectionReader(&j.parts, 0, j.parts.size())
	return j, nil
}

// joined has no time, as addonFile.
type joined struct {
	*io.SectionReader
	parts  parts
	name   string
	closes []io.Closer
}

func (j *joined) open(files fs.FS, name string) error {
	f, err := files.Open(name)
	if err != nil {
		return err
	}
	j.closes = append(j.closes, f)
	info, err := f.Stat()
	if err != nil {
		return err
	}
	r, ok := f.(io.ReaderAt)
	if !ok || !info.Mode().IsRegular() {
		return fmt.Errorf("%s cannot be read at any place: %w", name, errors.ErrUnsupported)
	}
	j.add(r, info.Size())
	return nil
}

func (j *joined) add(r io.ReaderAt, size int64) {
	j.parts = append(j.parts, part{r, j.parts.size(), size})
}

func (j *joined) Close() error {
	var errs []error
	for _, c := range j.closes {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

func (j *joined) Stat() (fs.FileInfo, error) { return j, nil }
func (j *joined) Name() string               { return j.name[strings.LastIndexByte(j.name, '/')+1:] }
func (j *joined) Mode() fs.FileMode          { return 0o444 }
func (j *joined) ModTime() time.Time         { return time.Time{} }
func (j *joined) IsDir() bool                { return false }
func (j *joined) Sys() any                   { return nil }

// parts are files one after the other, with zeroes between them: four at least,
// by which a compressed archive is known to have ended, and so many that each
// begins where the kernel looks for one.
type parts []part

type part struct {
	io.ReaderAt
	at, size int64
}

const partAlign = 512

func (p parts) size() int64 {
	if len(p) == 0 {
		return 0
	}
	last := p[len(p)-1]
	return (last.at + last.size + 4 + partAlign - 1) / partAlign * partAlign
}

func (p parts) ReadAt(b []byte, off int64) (int, error) {
	n := 0
	for _, part := range p {
		if from := off + int64(n) - part.at; n < len(b) && from < part.size {
			zeroes := int(min(max(-from, 0), int64(len(b)-n)))
			clear(b[n : n+zeroes])
			n += zeroes
			from += int64(zeroes)
			want := int(min(part.size-from, int64(len(b)-n)))
			if want == 0 {
				continue
			}
			got, err := part.ReadAt(b[n:n+want], from)
			if n += got; got < want {
				if err == nil || err == io.EOF {
					err = io.ErrUnexpectedEOF // it has become shorter
				}
				return n, err
			}
		}
	}
	zeroes := int(min(max(p.size()-off-int64(n), 0), int64(len(b)-n)))
	clear(b[n : n+zeroes])
	if n += zeroes; n < len(b) {
		return n, io.EOF
	}
	return n, nil
}
