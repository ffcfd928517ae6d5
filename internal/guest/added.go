package guest

import "io"

// AddFile writes an archive that a boot loader loads behind an initramfs, and
// that puts one program into it, in the place of one of the same name. It has
// no directories: the initramfs's may be symbolic links.
func AddFile(w io.Writer, name string, data []byte) error {
	if err := writeEntry(w, 1, name, entry{mode: typeFile | 0o755, data: data}); err != nil {
		return err
	}
	return writeEntry(w, 0, trailer, entry{})
}
