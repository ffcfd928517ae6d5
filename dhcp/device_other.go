//go:build !linux

package dhcp

import (
	"errors"
	"fmt"
)

func bindToDevice(_ uintptr, iface string) error {
	return fmt.Errorf("dhcp: bind to interface %q: %w: only Linux can; leave Server.Interface empty and listen on an address", iface, errors.ErrUnsupported)
}
