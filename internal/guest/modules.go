package guest

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// wanted is what the guest needs of the kernel: its network card and disk
// over the network, the file systems of roots, and entropy.
var wanted = []string{
	"virtio_pci", "virtio_net", "virtio_rng", "af_packet", "nbd", "squashfs", "overlay", "ext4", "crc32c_generic",
}

// addModules puts the wanted kernel modules into the archive, unpacked, and
// lib/modules/order, which names them so that each comes after those that it
// needs: the modules say so themselves, a package that was never installed
// has no modules.dep.
func (a archive) addModules(ctx context.Context, k *Kernel) error {
	files := map[string]string{}
	err := filepath.WalkDir(k.Modules, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name, _, ok := strings.Cut(d.Name(), ".ko"); ok && d.Type().IsRegular() {
			files[moduleName(name)] = path
		}
		return nil
	})
	if err != nil {
		return err
	}
	builtin, err := os.ReadFile(filepath.Join(k.Modules, "modules.builtin"))
	if err != nil {
		return err
	}
	inKernel := map[string]bool{}
	for line := range strings.Lines(string(builtin)) {
		name, _, _ := strings.Cut(filepath.Base(strings.TrimSpace(line)), ".ko")
		inKernel[moduleName(name)] = true
	}

	var order strings.Builder
	done := map[string]bool{}
	var add func(name string) error
	add = func(name string) error {
		if done[name] || inKernel[name] {
			return nil
		}
		done[name] = true
		file, ok := files[name]
		if !ok {
			return fmt.Errorf("kernel %s has no module %s", k.Version, name)
		}
		data, err := readModule(ctx, file)
		if err != nil {
			return err
		}
		depends, err := moduleDepends(data)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		for _, d := range depends {
			if err := add(moduleName(d)); err != nil {
				return err
			}
		}
		a.file("lib/modules/"+name+".ko", 0o644, data)
		order.WriteString(name + ".ko\n")
		return nil
	}
	for _, name := range wanted {
		if err := add(name); err != nil {
			return err
		}
	}
	a.file("lib/modules/order", 0o644, []byte(order.String()))
	return nil
}

// moduleName is the kernel's own spelling: files have dashes too.
func moduleName(file string) string { return strings.ReplaceAll(file, "-", "_") }

// readModule reads a module, which newer packages compress.
func readModule(ctx context.Context, file string) ([]byte, error) {
	switch filepath.Ext(file) {
	case ".ko":
		return os.ReadFile(file)
	case ".xz":
		out, err := run(ctx, "", "busybox", "xzcat", file)
		return []byte(out), err
	}
	return nil, fmt.Errorf("%s: no way to unpack a module compressed so", file)
}

// moduleDepends returns the names in "depends=" of a module's information.
func moduleDepends(module []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("no section .modinfo")
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
