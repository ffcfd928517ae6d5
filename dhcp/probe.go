package dhcp

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

// Offer is the answer of a DHCP server that [Probe] found.
type Offer struct {
	// ServerID is the server (option 54), Source the address that its answer
	// came from (a relay has another one), HardwareAddr the machine on this
	// network that sent it.
	ServerID     netip.Addr
	Source       netip.Addr
	HardwareAddr net.HardwareAddr

	// Addr is the address that the server offers; the zero value is a
	// ProxyDHCP server, which only tells what to boot.
	Addr netip.Addr
}

// same reports whether both are of one server, and of the same kind.
func (o Offer) same(other Offer) bool {
	id := func(o Offer) netip.Addr {
		if o.ServerID.IsValid() {
			return o.ServerID
		}
		return o.Source
	}
	return id(o) == id(other) && o.Addr.IsValid() == other.Addr.IsValid()
}

// probeTime is for servers that ping an address before they offer it, for
// three seconds; once one has answered, others get probeMore.
const (
	probeTime = 5 * time.Second
	probeMore = time.Second
)

// probeMessages returns the two DISCOVERs of a probe: some servers answer only
// machines that boot, others all but those.
func probeMessages(hw net.HardwareAddr) [2]*dhcpv4.DHCPv4 {
	plain := Client{HardwareAddr: hw, Firmware: Firmware{Params: []byte{1, 3, 6}, Broadcast: true}}
	boot := Client{HardwareAddr: hw, Firmware: UEFIFirmware(iana.EFI_X86_64)}
	return [2]*dhcpv4.DHCPv4{plain.message(dhcpv4.MessageTypeDiscover), boot.message(dhcpv4.MessageTypeDiscover)}
}

const (
	etherHeader = 14
	ipHeader    = 20
	udpHeader   = 8
	protoUDP    = 17
)

// broadcastFrame wraps a client's message into UDP, IPv4 and Ethernet headers,
// from 0.0.0.0:68 to 255.255.255.255:67, as a host without an address sends it.
func broadcastFrame(hw net.HardwareAddr, payload []byte) []byte {
	return udpFrame(hw, net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		netip.AddrPortFrom(netip.IPv4Unspecified(), clientPort), netip.AddrPortFrom(broadcastAddr, serverPort), payload)
}

// udpFrame wraps a payload into UDP, IPv4 and Ethernet headers.
func udpFrame(src, dst net.HardwareAddr, from, to netip.AddrPort, payload []byte) []byte {
	f := make([]byte, etherHeader+ipHeader+udpHeader, etherHeader+ipHeader+udpHeader+len(payload))
	copy(f, dst)
	copy(f[6:], src)
	binary.BigEndian.PutUint16(f[12:], 0x0800)

	ip := f[etherHeader:]
	ip[0] = 4<<4 | ipHeader/4
	binary.BigEndian.PutUint16(ip[2:], uint16(ipHeader+udpHeader+len(payload)))
	ip[8], ip[9] = 64, protoUDP
	copy(ip[12:16], from.Addr().AsSlice())
	copy(ip[16:20], to.Addr().AsSlice())
	binary.BigEndian.PutUint16(ip[10:], checksum(ip[:ipHeader]))

	udp := ip[ipHeader:]
	binary.BigEndian.PutUint16(udp, from.Port())
	binary.BigEndian.PutUint16(udp[2:], to.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(udpHeader+len(payload)))
	// UDP checksum 0: none (RFC 768). Ethernet has one of its own.
	return append(f, payload...)
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	sum = sum&0xffff + sum>>16
	return ^uint16(sum&0xffff + sum>>16)
}

// parseOffer reads a received frame. ok is false for what is no OFFER to one
// of the transactions.
func parseOffer(frame []byte, xids ...dhcpv4.TransactionID) (o Offer, ok bool) {
	if len(frame) < etherHeader+ipHeader+udpHeader || binary.BigEndian.Uint16(frame[12:]) != 0x0800 {
		return o, false
	}
	ip := frame[etherHeader:]
	header := int(ip[0]&15) * 4
	if ip[0]>>4 != 4 || header < ipHeader || ip[9] != protoUDP || len(ip) < header+udpHeader {
		return o, false
	}
	udp := ip[header:]
	if binary.BigEndian.Uint16(udp) != serverPort || binary.BigEndian.Uint16(udp[2:]) != clientPort {
		return o, false
	}
	size := int(binary.BigEndian.Uint16(udp[4:])) // what is behind it is padding of the frame
	if size < udpHeader || size > len(udp) {
		return o, false
	}
	m, err := dhcpv4.FromBytes(udp[udpHeader:size])
	if err != nil || m.OpCode != dhcpv4.OpcodeBootReply || m.MessageType() != dhcpv4.MessageTypeOffer {
		return o, false
	}
	for _, xid := range xids {
		ok = ok || m.TransactionID == xid
	}
	o = Offer{
		ServerID:     toAddr(m.ServerIdentifier()),
		Source:       netip.AddrFrom4([4]byte(ip[12:16])),
		HardwareAddr: append(net.HardwareAddr(nil), frame[6:12]...),
		Addr:         toAddr(m.YourIPAddr),
	}
	return o, ok
}
