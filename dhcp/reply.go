package dhcp

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// NewReply returns the beginning of an answer to r: type t, and everything
// that RFC 2131 section 4.3.1, RFC 3046 section 2.2, RFC 4578 section 2.3 and
// RFC 6842 want back from the request: transaction, hardware address, flags,
// relay, options 82, 61 and 97. The server sees to these again before it
// sends, so a handler cannot get them wrong.
func NewReply(r *Request, t dhcpv4.MessageType) *dhcpv4.DHCPv4 {
	// 14 is what a map of 16 slots holds; most replies have fewer options.
	reply := &dhcpv4.DHCPv4{Options: make(dhcpv4.Options, 14)}
	if t != dhcpv4.MessageTypeNone { // which is BOOTP
		reply.Options[dhcpv4.OptionDHCPMessageType.Code()] = []byte{byte(t)}
	}
	echo(r, reply)
	return reply
}

// echo copies into the reply what belongs to the request.
func echo(r *Request, reply *dhcpv4.DHCPv4) {
	reply.OpCode = dhcpv4.OpcodeBootReply
	reply.HWType = r.HWType
	reply.TransactionID = r.TransactionID
	reply.Flags = r.Flags
	reply.GatewayIPAddr = r.GatewayIPAddr
	reply.ClientHWAddr = r.ClientHWAddr
	if reply.Options == nil {
		reply.Options = make(dhcpv4.Options)
	}
	for _, code := range [...]uint8{61, 82, 97} {
		if v, ok := r.Options[code]; ok {
			reply.Options[code] = v
		}
	}
	if v, ok := r.Options[dhcpv4.OptionSubnetSelection.Code()]; ok && toAddr(r.GatewayIPAddr).IsValid() {
		reply.Options[dhcpv4.OptionSubnetSelection.Code()] = v // RFC 3011: it was heeded
	}
	// RFC 2131 section 4.3.2: a relay must broadcast a NAK, the client has no
	// address that it could be reached by.
	if messageType(reply) == dhcpv4.MessageTypeNak && toAddr(r.GatewayIPAddr).IsValid() {
		reply.SetBroadcast()
	}
}

const (
	// RFC 2131 section 2: every client takes a message of 576 bytes, with
	// the IP and UDP headers that option 57 counts in.
	minMessageSize = 576
	ipUDPHeader    = 28
	// Fragments are what many a ROM cannot put together. EDK2 allows 65280
	// bytes in its REQUEST and does not mean it.
	maxMessageSize = 1500

	// RFC 951 and RFC 1048: a BOOTP message has 300 bytes.
	bootpSize = 300

	maxFile  = 127 // bytes in the fixed field, without the final NUL
	maxSname = 63
)

// keepOptions are those without which a reply is of no use; encode never
// leaves them out.
var keepOptions = [...]dhcpv4.OptionCode{
	dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionRootPath,
	dhcpv4.OptionVendorSpecificInformation, dhcpv4.OptionIPAddressLeaseTime,
	dhcpv4.OptionDHCPMessageType, dhcpv4.OptionServerIdentifier,
	dhcpv4.OptionClassIdentifier, dhcpv4.OptionClientIdentifier,
	dhcpv4.OptionBootfileName, dhcpv4.OptionRelayAgentInformation,
	dhcpv4.OptionClientMachineIdentifier, dhcpv4.OptionEtherboot,
	dhcpv4.GenericOptionCode(208), dhcpv4.GenericOptionCode(209), dhcpv4.GenericOptionCode(210),
}

func mustKeep(code uint8) bool {
	return slices.ContainsFunc(keepOptions[:], func(c dhcpv4.OptionCode) bool { return c.Code() == code })
}

// encode turns the reply into bytes that the client can take: names too long
// for their fixed fields move into options 67 and 66, and options are left out
// (unasked ones first) until the message fits what option 57 allows. It
// returns the codes it left out.
func encode(r *Request, reply *dhcpv4.DHCPv4) (data []byte, left []uint8, err error) {
	echo(r, reply)
	for _, ip := range []net.IP{reply.ClientIPAddr, reply.YourIPAddr, reply.ServerIPAddr, reply.GatewayIPAddr} {
		if ip != nil && ip.To4() == nil {
			return nil, nil, fmt.Errorf("dhcp: reply holds %v, which is no IPv4 address: %w", ip, fs.ErrInvalid)
		}
	}
	if len(reply.BootFileName) > maxFile {
		if !reply.Options.Has(dhcpv4.OptionBootfileName) {
			reply.UpdateOption(dhcpv4.OptBootFileName(reply.BootFileName))
		}
		reply.BootFileName = ""
	}
	if len(reply.ServerHostName) > maxSname {
		if !reply.Options.Has(dhcpv4.OptionTFTPServerName) {
			reply.UpdateOption(dhcpv4.OptTFTPServerName(reply.ServerHostName))
		}
		reply.ServerHostName = ""
	}

	limit := minMessageSize
	if r.isBOOTP() {
		limit = bootpSize + ipUDPHeader
	}
	if v := r.Options.Get(dhcpv4.OptionMaximumDHCPMessageSize); len(v) == 2 {
		limit = min(max(limit, int(v[0])<<8|int(v[1])), maxMessageSize)
	}
	limit -= ipUDPHeader

	data = marshal(reply)
	if len(data) > limit && !r.isBOOTP() { // which knows no option 52
		if short := overload(reply, limit); short != nil {
			return short, nil, nil
		}
	}
	for len(data) > limit {
		code, ok := leastNeeded(r, reply)
		if !ok {
			return nil, nil, fmt.Errorf("dhcp: reply of %d bytes, the client takes %d: shorten its boot file or root path: %w",
				len(data), limit, errTooLong)
		}
		left = append(left, code)
		delete(reply.Options, code)
		data = marshal(reply)
	}
	return data, left, nil
}

var errTooLong = errors.New("message too long")

// leastNeeded picks the option that a reply can do without most easily: one
// the client did not ask for, else the one with the highest number.
func leastNeeded(r *Request, reply *dhcpv4.DHCPv4) (code uint8, ok bool) {
	unasked := false
	for c := range reply.Options {
		if mustKeep(c) {
			continue
		}
		u := !r.asksFor(dhcpv4.GenericOptionCode(c))
		if !ok || u && !unasked || u == unasked && c > code {
			code, ok, unasked = c, true, u
		}
	}
	return code, ok
}
