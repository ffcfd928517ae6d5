//go:build !linux

package dhcp

import (
	"errors"
	"net"
	"net/netip"
)

// rawSender needs packet sockets; without them replies are broadcast.
type rawSender struct{}

func (*rawSender) send(*link, []byte, uint16, netip.AddrPort, net.HardwareAddr) error {
	return errors.ErrUnsupported
}

func (*rawSender) close() {}
