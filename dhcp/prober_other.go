//go:build !linux

package dhcp

import (
	"context"
	"errors"
	"net"
	"net/netip"
)

func arpProbe(context.Context, *net.Interface, netip.Addr, net.HardwareAddr) (bool, error) {
	return false, errors.ErrUnsupported
}

func pingProbe(context.Context, netip.Addr) (bool, error) { return false, errors.ErrUnsupported }
