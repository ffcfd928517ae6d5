package squash

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"
)

const noFollow = unix.O_NOFOLLOW

// sysXattrs reads a file's extended attributes, not following a link.
func sysXattrs(path string) (map[string][]byte, error) {
	list, err := grow(func(b []byte) (int, error) { return unix.Llistxattr(path, b) })
	if errors.Is(err, unix.ENOTSUP) || err == nil && len(list) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, &fs.PathError{Op: "listxattr", Path: path, Err: err}
	}
	attrs := make(map[string][]byte)
	for _, name := range strings.Split(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		value, err := grow(func(b []byte) (int, error) { return unix.Lgetxattr(path, name, b) })
		if errors.Is(err, unix.ENODATA) { // gone meanwhile, or not for us
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "getxattr", Path: path, Err: fmt.Errorf("%s: %w", name, err)}
		}
		attrs[name] = value
	}
	return attrs, nil
}

// grow calls a function that says how much room it needs.
func grow(call func([]byte) (int, error)) ([]byte, error) {
	for {
		n, err := call(nil)
		if err != nil || n == 0 {
			return []byte{}, err
		}
		b := make([]byte, n)
		if n, err = call(b); !errors.Is(err, unix.ERANGE) {
			return b[:max(n, 0)], err
		}
	}
}
