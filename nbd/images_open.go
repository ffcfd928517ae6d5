package nbd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// check makes sure that a generation's file is still what was digested. A file
// whose state moved may only have been linked, renamed over or touched: its
// content decides.
func (im *Images) check(ctx context.Context, name string, file *imageFile) error {
	if !file.broken.Load() {
		was := file.seen()
		now, err := file.stat()
		if err != nil {
			return err
		}
		if was == now {
			return nil
		}
		digest := ""
		if was.Size == now.Size {
			digest, err = im.digester.digest(ctx, file, now, im.Cache)
		}
		if err != nil && !errors.Is(err, errImageWritten) {
			return err
		}
		if digest == file.digest {
			file.setSeen(now)
			return nil
		}
		file.broken.Store(true)
	}
	err := fmt.Errorf("nbd: image %s, generation %s: %w", name, file.generation(), errImageChanged)
	im.warn(name, "generation is not served any more", err)
	return err
}

// acquire returns an exact generation, by its first digits, with a reference.
// pinned is where a root has it linked, or ""; what Keep says is looked at, too.
func (im *Images) acquire(ctx context.Context, name, generation, pinned string) (*imageFile, error) {
	im.mu.Lock()
	if im.closed {
		im.mu.Unlock()
		return nil, errImagesClosed
	}
	var file *imageFile
	e := im.entries[name]
	if e != nil {
		file = e.find(generation)
	}
	im.mu.Unlock()
	if file == nil && e != nil && e.path != "" {
		// It may have been published a moment ago.
		newest, err := im.current(ctx, name)
		if err != nil && ctx.Err() != nil {
			return nil, err
		}
		if err == nil {
			if strings.HasPrefix(newest.digest, generation) {
				return newest, nil
			}
			newest.release()
		}
	}
	if file == nil && e != nil && e.path != "" {
		links, err := im.kept(name)
		if err != nil {
			return nil, fmt.Errorf("nbd: image %s: %w", name, err)
		}
		for _, l := range links {
			if strings.HasPrefix(l.generation, generation[:min(GenerationDigits, len(generation))]) {
				if file, err := im.acquirePinned(ctx, name, generation, l.path); err == nil || pinned == "" {
					return file, err
				}
			}
		}
	}
	if file == nil && pinned != "" {
		return im.acquirePinned(ctx, name, generation, pinned)
	}
	if file == nil {
		return nil, fmt.Errorf("nbd: image %s has no generation %s here: boot the machine again to get the newest: %w", name, generation, fs.ErrNotExist)
	}
	if err := im.check(ctx, name, file); err != nil {
		file.release()
		return nil, err
	}
	return file, nil
}

func (im *Images) acquirePinned(ctx context.Context, name, generation, path string) (*imageFile, error) {
	file, err := im.load(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("nbd: image %s has no generation %s here any more, and the link that is kept of it does not help: %w", name, generation, err)
	}
	if !strings.HasPrefix(file.digest, generation) {
		file.release()
		return nil, fmt.Errorf("nbd: image %s, generation %s, kept as %s: %w", name, generation, path, errImageChanged)
	}
	im.mu.Lock()
	defer im.mu.Unlock()
	if im.closed {
		file.release()
		return nil, errImagesClosed
	}
	e := im.entry(name)
	if other := e.find(file.digest); other != nil && !other.broken.Load() {
		file.release()
		return other, nil
	}
	e.sweep()
	e.open[file.digest] = file
	return file, nil
}

// OpenNBD implements [Handler]. A name with a root in it is not Images' to
// serve: [fs.ErrNotExist].
func (im *Images) OpenNBD(ctx context.Context, r *Request) (Device, error) {
	n, err := ParseName(r.Export)
	if err != nil || n.Root != "" {
		return nil, fmt.Errorf("nbd: %q is no image: %w", r.Export, fs.ErrNotExist)
	}
	var file *imageFile
	if n.Generation == "" {
		file, err = im.current(ctx, n.Image)
	} else {
		file, err = im.acquire(ctx, n.Image, n.Generation, "")
	}
	if err != nil {
		return nil, err
	}
	return &imageDevice{imageFile: file}, nil
}

// ListNBD implements [Lister]: the images' names, sorted.
func (im *Images) ListNBD(context.Context, *Request) ([]ExportInfo, error) {
	im.mu.Lock()
	defer im.mu.Unlock()
	var list []ExportInfo
	for name, e := range im.entries {
		if e.path != "" {
			list = append(list, ExportInfo{Name: name, Description: "read-only, generation " + e.newest.generation()})
		}
	}
	slices.SortFunc(list, func(a, b ExportInfo) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}
