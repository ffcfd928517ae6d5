package dhcp

import (
	"encoding/binary"
	"net"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// marshal is [dhcpv4.DHCPv4.ToBytes] in one allocation. It takes no address
// that is not IPv4.
func marshal(m *dhcpv4.DHCPv4) []byte {
	type option struct {
		code uint8
		v    []byte
	}
	var room [48]option
	options := room[:0]
	size := optionsAt + 1
	var agent []byte
	hasAgent := false
	for code, v := range m.Options {
		switch code {
		case dhcpv4.OptionPad.Code(), dhcpv4.OptionEnd.Code():
			continue
		case dhcpv4.OptionRelayAgentInformation.Code():
			agent, hasAgent = v, true // goes to the end (RFC 3046 section 2.1)
		}
		size += len(v) + 2*max(1, (len(v)+254)/255)
		// There are few, so that they are sorted as they come.
		i := len(options)
		options = append(options, option{})
		for ; i > 0 && options[i-1].code > code; i-- {
			options[i] = options[i-1]
		}
		options[i] = option{code, v}
	}
	b := make([]byte, optionsAt, max(size, bootpSize))
	b[0], b[1], b[2], b[3] = byte(m.OpCode), byte(m.HWType), byte(len(m.ClientHWAddr)), m.HopCount
	copy(b[4:], m.TransactionID[:])
	binary.BigEndian.PutUint16(b[8:], m.NumSeconds)
	binary.BigEndian.PutUint16(b[10:], m.Flags)
	for i, ip := range [...]net.IP{m.ClientIPAddr, m.YourIPAddr, m.ServerIPAddr, m.GatewayIPAddr} {
		copy(b[12+4*i:], ip.To4())
	}
	copy(b[28:snameAt], m.ClientHWAddr)
	copy(b[snameAt:fileAt-1], m.ServerHostName)
	copy(b[fileAt:cookieAt-1], m.BootFileName)
	copy(b[cookieAt:], magicCookie[:])
	for _, o := range options {
		if o.code != dhcpv4.OptionRelayAgentInformation.Code() {
			b = appendOption(b, o.code, o.v)
		}
	}
	if hasAgent {
		b = appendOption(b, dhcpv4.OptionRelayAgentInformation.Code(), agent)
	}
	b = append(b, dhcpv4.OptionEnd.Code())
	if len(b) < bootpSize {
		b = b[:bootpSize] // zeroes, which are Pad
	}
	return b
}

// appendOption splits what is too long (RFC 3396).
func appendOption(b []byte, code uint8, v []byte) []byte {
	for {
		n := min(len(v), 255)
		b = append(append(b, code, byte(n)), v[:n]...)
		if v = v[n:]; len(v) == 0 {
			return b
		}
	}
}

// messageType is [dhcpv4.DHCPv4.MessageType] without an allocation.
func messageType(m *dhcpv4.DHCPv4) dhcpv4.MessageType {
	if v := m.Options[dhcpv4.OptionDHCPMessageType.Code()]; len(v) == 1 {
		return dhcpv4.MessageType(v[0])
	}
	return dhcpv4.MessageTypeNone
}
