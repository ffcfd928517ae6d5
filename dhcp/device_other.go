//go:build !linux

package dhcp

import (
	"errors"
	"fmt"
)

func prepareSocket(_ uintptr, iface string) error {
	if iface == "" {
		return nil
	}
	return fmt.Errorf("bind to interface %q: %w: only Linux can, leave Server.Interface empty and listen on an address", iface, errors.ErrUnsupported)
}
