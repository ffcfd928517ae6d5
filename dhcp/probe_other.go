//go:build !linux

package dhcp

import (
	"context"
	"errors"
	"fmt"
)

// Probe asks whether DHCP servers answer on the network of an interface. It is
// there on Linux only; elsewhere the error is [errors.ErrUnsupported].
func Probe(_ context.Context, iface string) ([]Offer, error) {
	return nil, fmt.Errorf("dhcp: probe interface %q: %w", iface, errors.ErrUnsupported)
}
