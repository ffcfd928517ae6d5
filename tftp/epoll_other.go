//go:build !linux

package tftp

import "net"

func newTransport(s *Server, conn net.PacketConn) (transport, error) {
	return newPacketConn(s, conn), nil
}
