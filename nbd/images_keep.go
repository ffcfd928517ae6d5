package nbd

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// keptLink is a generation's name in Dir/generations, IMAGE~GENERATION.N.img:
// the larger N is, the later was it the newest.
type keptLink struct {
	path       string
	generation string
	n          int64
}

func (im *Images) keepDir() string { return filepath.Join(im.Dir, "generations") }

func (im *Images) keptPath(name, generation string, n int64) string {
	return filepath.Join(im.keepDir(), name+"~"+generation+"."+strconv.FormatInt(n, 10)+imageSuffix)
}

// keeps returns how many former generations stay, and whether any do.
func (im *Images) keeps() (int, bool) {
	return limit(im.Keep, 2, 0), im.Dir != "" && im.Keep >= 0
}

// kept lists the links of an image, the newest last.
func (im *Images) kept(name string) ([]keptLink, error) {
	all, err := im.allKept()
	return all[name], err
}

// allKept lists the links of all images.
func (im *Images) allKept() (map[string][]keptLink, error) {
	if im.Dir == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(im.keepDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	all := make(map[string][]keptLink)
	for _, e := range entries {
		name, rest, ok := strings.Cut(strings.TrimSuffix(e.Name(), imageSuffix), "~")
		generation, number, _ := strings.Cut(rest, ".")
		n, parseErr := strconv.ParseInt(number, 10, 64)
		path := im.keptPath(name, generation, n)
		if ok && parseErr == nil && n > 0 && len(generation) == GenerationDigits && validGeneration(generation) && filepath.Base(path) == e.Name() {
			all[name] = append(all[name], keptLink{path, generation, n})
		}
	}
	for _, links := range all {
		slices.SortFunc(links, func(a, b keptLink) int { return int(min(max(a.n-b.n, -1), 1)) })
	}
	return all, err
}

// Prune removes the links in Dir/generations that nothing will use again: of
// images that are not registered (any more), all of them; of the others, those
// that a smaller Keep no longer asks for. Call it when all images are
// registered, as after Load and Add at a start. It returns the names of the
// images that lost links, sorted. What a root is over has links of its own, and
// stays.
func (im *Images) Prune() ([]string, error) {
	former, keeps := im.keeps()
	im.keepMu.Lock()
	defer im.keepMu.Unlock()
	all, err := im.allKept()
	var names []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		links := all[name]
		registered, closed := im.registered(name)
		if closed {
			return names, errImagesClosed
		}
		if registered && keeps {
			links = links[:max(len(links)-1-former, 0)]
		}
		for _, l := range links {
			err = errors.Join(err, im.disk.remove(l.path))
		}
		if len(links) > 0 {
			names = append(names, name)
		}
	}
	return names, err
}

func (im *Images) registered(name string) (registered, closed bool) {
	im.mu.Lock()
	defer im.mu.Unlock()
	e := im.entries[name]
	return e != nil && e.path != "", im.closed
}

// keep makes file the newest of the generations that stay on disk, and lets go
// of those that are too many.
func (im *Images) keep(name string, file *imageFile) error {
	former, ok := im.keeps()
	if !ok {
		return nil
	}
	im.keepMu.Lock()
	defer im.keepMu.Unlock()
	links, err := im.kept(name)
	if err != nil {
		return err
	}
	to := im.keptPath(name, file.generation(), 1)
	var same []keptLink
	if k := len(links); k > 0 {
		last := links[k-1]
		if last.generation == file.generation() && isLink(file, last.path) {
			return nil
		}
		to = im.keptPath(name, file.generation(), last.n+1)
		links = slices.DeleteFunc(links, func(l keptLink) bool {
			if l.generation != file.generation() {
				return false
			}
			same = append(same, l)
			return true
		})
	} else if err := im.disk.mkdirAll(im.keepDir(), 0o755); err != nil {
		return err
	}
	// A file of that generation from before may have been written to.
	if err := im.linkTo(im.disk, file, to); err != nil {
		return err
	}
	for _, l := range append(same, links[:max(len(links)-former, 0)]...) {
		err = errors.Join(err, im.moved(file, func() error { return im.disk.remove(l.path) }))
	}
	return err
}

func isLink(file *imageFile, path string) bool {
	info, err := os.Stat(path)
	return err == nil && statID(info).sameFile(file.seen())
}

// linkTo gives a generation's file a further name, durably.
func (im *Images) linkTo(d disk, file *imageFile, to string) error {
	err := im.moved(file, func() error {
		if err := d.link(file.f.Name(), to); err != nil {
			return err
		}
		if isLink(file, to) {
			return nil
		}
		return errors.Join(fmt.Errorf("%s was replaced a moment ago", file.f.Name()), d.remove(to))
	})
	if err != nil {
		return err
	}
	return d.syncDir(filepath.Dir(to))
}

// moved changes the names of a generation's file. That moves its ctime, and the
// content need not be read again for it.
func (im *Images) moved(file *imageFile, change func() error) error {
	im.linkMu.Lock()
	defer im.linkMu.Unlock()
	was, err := file.stat()
	if err != nil {
		return err
	}
	if err := change(); err != nil {
		return err
	}
	now, err := file.stat()
	if err == nil && was != now && was == file.seen() && was.Mtime == now.Mtime && was.Size == now.Size {
		file.setSeen(now)
		im.digester.move(was, now, file.digest, im.Cache)
	}
	return err
}

// keepOrWarn is keep where nobody waits for it.
func (im *Images) keepOrWarn(name string, file *imageFile) {
	if err := im.keep(name, file); err != nil {
		im.warn(name, "this generation is lost to the machines that use it when it is replaced and the server restarts: "+
			"put images and the directory of their generations on one file system, both owned by the server's user", err)
	}
}

// ImageInfo is an image as [Images.List] shows it.
type ImageInfo struct {
	// Generation is the newest one.
	Generation
	// Path is where the image's file is.
	Path string
	// Former are the generations that stay on disk beside it, [GenerationDigits]
	// long each; the first is what Revert goes back to.
	Former []string
}

// List returns the images, sorted by name. Of one whose file was replaced since
// it was last asked for, it shows the generation before.
func (im *Images) List() ([]ImageInfo, error) {
	im.mu.Lock()
	if im.closed {
		im.mu.Unlock()
		return nil, errImagesClosed
	}
	var list []ImageInfo
	for name, e := range im.entries {
		if e.path != "" {
			list = append(list, ImageInfo{Generation: Generation{Image: name, Digest: e.newest.digest, Size: e.newest.size}, Path: e.path})
		}
	}
	im.mu.Unlock()
	slices.SortFunc(list, func(a, b ImageInfo) int { return strings.Compare(a.Image, b.Image) })
	for i := range list {
		links, err := im.kept(list[i].Image)
		if err != nil {
			return nil, err
		}
		for _, l := range slices.Backward(links) {
			if !strings.HasPrefix(list[i].Digest, l.generation) {
				list[i].Former = append(list[i].Former, l.generation)
			}
		}
	}
	return list, nil
}
