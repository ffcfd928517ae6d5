package initrd

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Module is one kernel module.
type Module struct {
	Name string // as the kernel spells it, with _
	Data []byte // not compressed
}

// Modules are loaded in their order, so each stands behind those that it needs.
type Modules []Module

// Archive returns an archive with nothing but modules, which many machines can
// load beside their own.
func (m Modules) Archive() ([]byte, error) {
	var a archive
	m.add(&a)
	return a.bytes()
}

func (m Modules) add(a *archive) {
	if len(m) == 0 {
		return
	}
	var order strings.Builder
	a.dir("diskless-modules", 0o755)
	for _, module := range m {
		a.file("diskless-modules/"+module.Name+".ko", 0o644, module.Data)
		order.WriteString(module.Name + ".ko\n")
	}
	a.file("diskless-modules/order", 0o644, []byte(order.String()))
}

// DefaultModules returns what a root in an image needs: SquashFS, overlays,
// NBD and, for an image in memory, loop devices.
func DefaultModules() []string { return []string{"squashfs", "overlay", "nbd", "loop"} }

// What is read of a module at most, packed or not.
const maxModule = 64 << 20

// ReadModules reads modules, and those that they need, from the root file system
// of an image, for one version of the kernel. What is built into that kernel
// needs none. A module that is not there is an [fs.ErrNotExist]; the modules
// that are come with that error.
func ReadModules(root fs.FS, version string, names ...string) (Modules, error) {
	if !fs.ValidPath(version) || strings.Contains(version, "/") {
		return nil, fmt.Errorf("kernel version %q: %w", version, fs.ErrInvalid)
	}
	r := &moduleReader{root: root, files: map[string]string{}, done: map[string]bool{}}
	dir := "usr/lib/modules/" + version
	err := r.list(dir)
	if errors.Is(err, fs.ErrNotExist) { // no merged /usr
		dir = "lib/modules/" + version
		err = r.list(dir)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the image has no modules of kernel %s: boot the image's own kernel: %w", version, fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("modules of kernel %s: %w", version, err)
	}
	builtin, err := fs.ReadFile(root, dir+"/modules.builtin")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("modules of kernel %s: %w", version, err)
	}
	for line := range strings.Lines(string(builtin)) {
		name, _, _ := strings.Cut(path.Base(strings.TrimSpace(line)), ".ko")
		r.done[kernelName(name)] = true
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, r.add(kernelName(name)))
	}
	if err := errors.Join(errs...); err != nil {
		return r.modules, fmt.Errorf("modules of kernel %s: %w", version, err)
	}
	return r.modules, nil
}

// kernelName is the kernel's own spelling: files have dashes too.
func kernelName(file string) string { return strings.ReplaceAll(file, "-", "_") }

type moduleReader struct {
	root    fs.FS
	files   map[string]string
	done    map[string]bool // or built in
	modules Modules
}

func (r *moduleReader) list(dir string) error {
	return fs.WalkDir(r.root, dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name, _, ok := strings.Cut(d.Name(), ".ko"); ok && d.Type().IsRegular() {
			r.files[kernelName(name)] = p
		}
		return nil
	})
}

func (r *moduleReader) add(name string) error {
	if r.done[name] {
		return nil
	}
	r.done[name] = true
	file, ok := r.files[name]
	if !ok {
		return fmt.Errorf("there is no module %s: %w", name, fs.ErrNotExist)
	}
	data, err := readModule(r.root, file)
	if err != nil {
		return err
	}
	needed, err := depends(data)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	for _, n := range needed {
		if err := r.add(kernelName(n)); err != nil {
			return err
		}
	}
	r.modules = append(r.modules, Module{name, data})
	return nil
}

// readModule reads a file as it is or unpacked.
func readModule(root fs.FS, file string) ([]byte, error) {
	f, err := root.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var r io.Reader = f
	switch path.Ext(file) {
	case ".gz":
		r, err = gzip.NewReader(f)
	case ".xz":
		r, err = xz.NewReader(f)
	case ".zst":
		var d *zstd.Decoder
		if d, err = zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxModule)); err == nil {
			defer d.Close()
			r = d
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	data, err := io.ReadAll(io.LimitReader(r, maxModule+1))
	if err == nil && len(data) > maxModule {
		err = fmt.Errorf("larger than %d MiB: %w", maxModule>>20, fs.ErrInvalid)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return data, nil
}

// depends returns the names in "depends=" of a module's information, which are
// there also where no depmod ever ran.
func depends(module []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("it is no kernel module: %w", fs.ErrInvalid)
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	for field := range bytes.SplitSeq(info, []byte{0}) {
		if list, ok := bytes.CutPrefix(field, []byte("depends=")); ok && len(list) > 0 {
			return strings.Split(string(list), ","), nil
		}
	}
	return nil, nil
}
