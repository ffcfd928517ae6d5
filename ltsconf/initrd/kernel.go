package initrd

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
)

// KernelVersion reads the version out of a kernel's file, such as
// 6.1.0-56-cloud-amd64. It knows the boot protocol of x86 (vmlinuz, bzImage;
// Documentation/arch/x86/boot.rst); of others it returns an [fs.ErrInvalid].
func KernelVersion(kernel io.ReaderAt) (string, error) {
	var header [0x210]byte
	if _, err := kernel.ReadAt(header[:], 0); err != nil && err != io.EOF {
		return "", err
	}
	if string(header[0x202:0x206]) != "HdrS" {
		return "", fmt.Errorf("the kernel is none of x86, or has no version that can be found: %w", fs.ErrInvalid)
	}
	var text [256]byte
	at := int64(binary.LittleEndian.Uint16(header[0x20e:])) + 0x200
	n, err := kernel.ReadAt(text[:], at)
	if err != nil && err != io.EOF {
		return "", err
	}
	version, _, ok := bytes.Cut(text[:n], []byte(" "))
	if !ok || len(version) == 0 || bytes.ContainsAny(version, "/\x00") {
		return "", fmt.Errorf("the kernel says no version: %w", fs.ErrInvalid)
	}
	return string(version), nil
}
