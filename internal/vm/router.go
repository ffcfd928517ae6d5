package vm

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/net/ipv6"
)

// router answers router solicitations (RFC 4861 section 6.2.6) with an
// advertisement of a router that routes nothing.
type router struct {
	conn   *ipv6.PacketConn
	answer []byte
	done   chan struct{}
}

// advertisement has, after type and code, the checksum (the kernel's task),
// hop limit 64, flags, lifetime 0 (not a default router), and two timers left
// to the host; then the prefix, if there is one (sections 4.2 and 4.6.2).
func advertisement(prefix netip.Prefix, stateless bool) []byte {
	const managed, other, onLink, autonomous = 0x80, 0x40, 0x80, 0x40
	b := make([]byte, 16)
	b[0], b[4] = 134, 64
	if !prefix.IsValid() {
		return b
	}
	flags := byte(onLink)
	if b[5] = managed | other; stateless {
		b[5], flags = other, onLink|autonomous
	}
	b = append(b, 3, 4, byte(prefix.Bits()), flags)
	b = binary.BigEndian.AppendUint32(b, 86400) // valid, seconds
	b = binary.BigEndian.AppendUint32(b, 86400) // preferred
	b = append(b, 0, 0, 0, 0)
	return append(b, prefix.Masked().Addr().AsSlice()...)
}

func startRouter(bridge string, answer []byte) (*router, error) {
	ifi, err := net.InterfaceByName(bridge)
	if err != nil {
		return nil, err
	}
	conn, err := net.ListenPacket("ip6:ipv6-icmp", "::")
	if err != nil {
		return nil, fmt.Errorf("router advertisements: %w", err)
	}
	p := ipv6.NewPacketConn(conn)
	var only ipv6.ICMPFilter
	only.SetAll(true)
	only.Accept(ipv6.ICMPTypeRouterSolicitation)
	for _, err := range []error{
		p.SetICMPFilter(&only),
		p.SetControlMessage(ipv6.FlagInterface, true),
		p.JoinGroup(ifi, &net.IPAddr{IP: net.IPv6linklocalallrouters}),
		// Hosts take no advertisement that may have come through a router.
		p.SetMulticastHopLimit(255),
		p.SetMulticastInterface(ifi),
	} {
		if err != nil {
			conn.Close()
			return nil, fmt.Errorf("router advertisements: %w", err)
		}
	}
	r := &router{conn: p, answer: answer, done: make(chan struct{})}
	go r.serve(ifi)
	return r, nil
}

// serve ends when the socket is closed.
func (r *router) serve(ifi *net.Interface) {
	defer close(r.done)
	var buf [1500]byte
	for {
		_, from, _, err := r.conn.ReadFrom(buf[:])
		if err != nil {
			return
		}
		// The bridge's solicitors only: the socket hears those of others too.
		if from == nil || from.IfIndex != ifi.Index {
			continue
		}
		// A machine that asks has no address yet: all hosts are told.
		r.conn.WriteTo(r.answer, nil, &net.IPAddr{IP: net.IPv6linklocalallnodes, Zone: ifi.Name})
	}
}

func (r *router) close() {
	r.conn.Close()
	<-r.done
}
