package app

import (
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"

	"github.com/seed-3ec230fa/diskless/squash"
)

// wholeImage refuses an image whose own superblock says that it is longer than
// the file: a copy that broke off. What it does not know it lets pass.
func wholeImage(image io.ReaderAt, size int64) error {
	var magic [4]byte
	if _, err := image.ReadAt(magic[:], 0); err == nil && string(magic[:]) == "hsqs" {
		_, err := squash.Open(io.NewSectionReader(image, 0, size))
		return err
	}
	// ext2 to ext4: at 1024, block count, log of the block size, magic.
	var super [96]byte
	if _, err := image.ReadAt(super[:], 1024); err != nil || binary.LittleEndian.Uint16(super[56:]) != 0xef53 {
		return nil
	}
	shift := binary.LittleEndian.Uint32(super[24:])
	if shift > 6 {
		return nil
	}
	want := int64(binary.LittleEndian.Uint32(super[4:])) << (10 + shift)
	if want > size {
		return fmt.Errorf("the ext file system in it has %d bytes, the file only %d; copy the image again: %w", want, size, fs.ErrInvalid)
	}
	return nil
}
