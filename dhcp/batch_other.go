//go:build !linux

package dhcp

import "net"

// inBatch and outBatch need recvmmsg and sendmmsg; without them datagrams are
// read and sent one by one.
type (
	inBatch  struct{}
	outBatch struct{}
	// rawSender needs packet sockets; without them replies are broadcast.
	rawSender struct{}
)

func newInBatch(*net.UDPConn) *inBatch   { return nil }
func newOutBatch(*net.UDPConn) *outBatch { return nil }

func (*inBatch) read(*socket, []*datagram) (int, error) { return 0, nil }

func (*rawSender) close() {}

func (s *socket) writeAll(list []outgoing) { s.writeEach(list) }
