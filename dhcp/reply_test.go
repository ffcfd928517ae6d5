package dhcp

import (
	"bytes"
	"io/fs"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/require"
)

func TestNewReplyEchoes(t *testing.T) {
	r := on(message(dhcpv4.MessageTypeDiscover, macA, BIOSFirmware(), relay("10.0.0.77"),
		option(61, 1, 2, 3), option(82, 1, 2, 'a', 'b')))
	r.Flags = 0x8001
	reply := NewReply(r, dhcpv4.MessageTypeOffer)
	require.Equal(t, dhcpv4.OpcodeBootReply, reply.OpCode)
	require.Equal(t, r.TransactionID, reply.TransactionID)
	require.Equal(t, r.ClientHWAddr, reply.ClientHWAddr)
	require.Equal(t, uint16(0x8001), reply.Flags)
	require.Equal(t, "10.0.0.77", reply.GatewayIPAddr.String())
	require.Equal(t, []byte{1, 2, 3}, reply.Options.Get(dhcpv4.OptionClientIdentifier))
	require.Equal(t, append([]byte{0}, uuid[:]...), reply.Options.Get(dhcpv4.OptionClientMachineIdentifier))

	// Whatever a handler does to it, the envelope is right on the wire.
	reply.TransactionID = dhcpv4.TransactionID{}
	reply.Options = dhcpv4.Options{53: {2}}
	data, left, err := encode(r, reply)
	require.NoError(t, err)
	require.Empty(t, left)
	require.GreaterOrEqual(t, len(data), 300)
	got, err := dhcpv4.FromBytes(data)
	require.NoError(t, err)
	require.Equal(t, r.TransactionID, got.TransactionID)
	require.True(t, got.Options.Has(dhcpv4.OptionClientIdentifier))
	require.True(t, got.Options.Has(dhcpv4.OptionClientMachineIdentifier))
	// RFC 3046 section 2.1: option 82 is the last one.
	options := bytes.TrimRight(data, "\x00")
	require.True(t, bytes.HasSuffix(options, []byte{82, 4, 1, 2, 'a', 'b', 255}), "ends in % x", options[len(options)-8:])
}

func TestNakThroughRelayIsBroadcast(t *testing.T) {
	r := on(message(dhcpv4.MessageTypeRequest, macA, bareSystem, relay("10.0.0.77")))
	require.True(t, NewReply(r, dhcpv4.MessageTypeNak).IsBroadcast())
	require.False(t, NewReply(r, dhcpv4.MessageTypeAck).IsBroadcast())
}

func TestEncodeLongNames(t *testing.T) {
	r := on(message(dhcpv4.MessageTypeDiscover, macA, BIOSFirmware()))
	reply := NewReply(r, dhcpv4.MessageTypeOffer)
	reply.BootFileName = strings.Repeat("f", 128)
	reply.ServerHostName = strings.Repeat("s", 64)
	data, left, err := encode(r, reply)
	require.NoError(t, err)
	require.Empty(t, left)
	got, err := dhcpv4.FromBytes(data)
	require.NoError(t, err)
	require.Empty(t, got.BootFileName)
	require.Equal(t, strings.Repeat("f", 128), got.BootFileNameOption())
	require.Empty(t, got.ServerHostName)
	require.Equal(t, strings.Repeat("s", 64), got.TFTPServerName())

	reply = NewReply(r, dhcpv4.MessageTypeOffer)
	reply.BootFileName = strings.Repeat("f", 127)
	data, _, err = encode(r, reply)
	require.NoError(t, err)
	got, err = dhcpv4.FromBytes(data)
	require.NoError(t, err)
	require.Equal(t, strings.Repeat("f", 127), got.BootFileName)
}

func TestEncodeRefusesIPv6(t *testing.T) {
	r := on(message(dhcpv4.MessageTypeDiscover, macA, bareSystem))
	for _, set := range []func(*dhcpv4.DHCPv4, net.IP){
		func(m *dhcpv4.DHCPv4, ip net.IP) { m.YourIPAddr = ip },
		func(m *dhcpv4.DHCPv4, ip net.IP) { m.ServerIPAddr = ip },
		func(m *dhcpv4.DHCPv4, ip net.IP) { m.ClientIPAddr = ip },
	} {
		for _, bad := range []net.IP{net.ParseIP("2001:db8::1"), {1, 2, 3}} {
			reply := NewReply(r, dhcpv4.MessageTypeOffer)
			set(reply, bad)
			_, _, err := encode(r, reply)
			require.ErrorIs(t, err, fs.ErrInvalid)
		}
	}
}

// A reply is cut to what the client says that it takes: what it did not ask
// for goes first, what it cannot do without never.
func TestEncodeMessageSize(t *testing.T) {
	long := func(size ...func(*dhcpv4.DHCPv4)) (*Request, *dhcpv4.DHCPv4) {
		r := on(message(dhcpv4.MessageTypeDiscover, macA, Firmware{Params: []byte{1, 3, 15, 67}}, size...))
		reply := NewReply(r, dhcpv4.MessageTypeOffer)
		reply.BootFileName, reply.ServerHostName = "b", "s" // no room for options there
		setOption(reply, dhcpv4.OptionSubnetMask, []byte{255, 255, 255, 0})
		setOption(reply, dhcpv4.OptionDomainName, bytes.Repeat([]byte("d"), 60))
		setOption(reply, dhcpv4.OptionBootfileName, bytes.Repeat([]byte("b"), 100))
		setOption(reply, dhcpv4.OptionNTPServers, bytes.Repeat([]byte{1}, 80))
		setOption(reply, dhcpv4.OptionDNSDomainSearchList, bytes.Repeat([]byte("s"), 80))
		return r, reply
	}
	r, reply := long(option(57, 5, 0xc0))
	data, left, err := encode(r, reply)
	require.NoError(t, err)
	require.Empty(t, left)
	require.Greater(t, len(data), 548)

	for _, size := range []func(*dhcpv4.DHCPv4){option(1), option(57, 2, 64), option(57, 0, 1), option(57, 9)} {
		r, reply = long(size)
		data, left, err = encode(r, reply)
		require.NoError(t, err)
		require.Equal(t, []uint8{119}, left)
		require.LessOrEqual(t, len(data), 548)
	}

	r, reply = long(option(57, 255, 0)) // more than fits into a frame
	setOption(reply, dhcpv4.OptionLogServer, bytes.Repeat([]byte{1}, 1200))
	data, left, err = encode(r, reply)
	require.NoError(t, err)
	require.NotEmpty(t, left)
	require.LessOrEqual(t, len(data), 1472)

	r, reply = long()
	setOption(reply, dhcpv4.OptionRootPath, bytes.Repeat([]byte("r"), 300))
	_, _, err = encode(r, reply)
	require.ErrorContains(t, err, "shorten its boot file or root path")
}

func TestDestination(t *testing.T) {
	const all = "255.255.255.255:68"
	for _, test := range []struct {
		name    string
		peer    string
		request *dhcpv4.DHCPv4
		reply   dhcpv4.MessageType
		want    string
	}{
		{"no address yet", "0.0.0.0:68", message(dhcpv4.MessageTypeDiscover, macA, bareSystem), dhcpv4.MessageTypeOffer, all},
		{"broadcast flag", "0.0.0.0:68", message(dhcpv4.MessageTypeDiscover, macA, Firmware{Broadcast: true}), dhcpv4.MessageTypeOffer, all},
		{"relayed", "10.0.9.1:67", message(dhcpv4.MessageTypeDiscover, macA, bareSystem, relay("10.0.9.2")), dhcpv4.MessageTypeOffer, "10.0.9.2:67"},
		{"relayed from another port", "10.0.9.1:6767", message(dhcpv4.MessageTypeDiscover, macA, bareSystem, relay("10.0.9.2")), dhcpv4.MessageTypeOffer, "10.0.9.2:67"},
		{"relayed from another port, which it says", "10.0.9.1:6767", message(dhcpv4.MessageTypeDiscover, macA, bareSystem, relay("10.0.9.2"), option(82, 1, 1, 'p', 19, 0)), dhcpv4.MessageTypeOffer, "10.0.9.2:6767"},
		{"relayed NAK", "10.0.9.1:67", message(dhcpv4.MessageTypeRequest, macA, bareSystem, relay("10.0.9.2")), dhcpv4.MessageTypeNak, "10.0.9.2:67"},
		{"renewing", "10.0.0.5:68", message(dhcpv4.MessageTypeRequest, macA, bareSystem, ciaddr("10.0.0.5")), dhcpv4.MessageTypeAck, "10.0.0.5:68"},
		{"renewing, refused", "10.0.0.5:68", message(dhcpv4.MessageTypeRequest, macA, bareSystem, ciaddr("10.0.0.5")), dhcpv4.MessageTypeNak, all},
		{"no peer address known", "", message(dhcpv4.MessageTypeDiscover, macA, bareSystem), dhcpv4.MessageTypeOffer, all},
		{"simulation", "127.0.0.1:4711", message(dhcpv4.MessageTypeDiscover, macA, Firmware{Broadcast: true}), dhcpv4.MessageTypeOffer, "127.0.0.1:4711"},
		{"simulation, refused", "127.0.0.1:4711", message(dhcpv4.MessageTypeRequest, macA, bareSystem), dhcpv4.MessageTypeNak, "127.0.0.1:4711"},
		{"simulation, renewing", "127.0.0.1:4711", message(dhcpv4.MessageTypeRequest, macA, bareSystem, ciaddr("10.0.0.5")), dhcpv4.MessageTypeAck, "127.0.0.1:4711"},
		{"has an address", "10.0.0.5:68", message(dhcpv4.MessageTypeDiscover, macA, bareSystem), dhcpv4.MessageTypeOffer, "10.0.0.5:68"},
		{"has an address, broadcast flag", "10.0.0.5:68", message(dhcpv4.MessageTypeDiscover, macA, Firmware{Broadcast: true}), dhcpv4.MessageTypeOffer, all},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := on(test.request)
			r.Peer = netip.AddrPort{}
			if test.peer != "" {
				r.Peer = netip.MustParseAddrPort(test.peer)
			}
			to, hw := destination(r, NewReply(r, test.reply))
			require.Equal(t, test.want, to.String())
			require.Nil(t, hw)
		})
	}

	// Without an address yet, and without the broadcast flag, it goes to the
	// address that it is about to have.
	for _, test := range []struct {
		m    *dhcpv4.DHCPv4
		kind dhcpv4.MessageType
		want string
	}{
		{message(dhcpv4.MessageTypeDiscover, macA, bareSystem), dhcpv4.MessageTypeOffer, "10.0.0.100:68"},
		{message(dhcpv4.MessageTypeDiscover, macA, BIOSFirmware()), dhcpv4.MessageTypeOffer, all},
		{message(dhcpv4.MessageTypeRequest, macA, bareSystem), dhcpv4.MessageTypeNak, all},
		{message(dhcpv4.MessageTypeDiscover, macA[:4], bareSystem), dhcpv4.MessageTypeOffer, all},
	} {
		r := on(test.m)
		reply := NewReply(r, test.kind)
		reply.YourIPAddr = toIP(ip("10.0.0.100"))
		to, hw := destination(r, reply)
		require.Equal(t, test.want, to.String())
		require.Equal(t, test.want != all, hw != nil)
	}
}

// What is too much for the options field moves to file and sname.
func TestEncodeOverload(t *testing.T) {
	r := on(message(dhcpv4.MessageTypeDiscover, macA, bareSystem))
	for _, test := range []struct {
		file, sname string
		bits        byte
	}{{"", "", 3}, {"a", "", 2}, {"", "b", 1}} {
		reply := NewReply(r, dhcpv4.MessageTypeOffer)
		reply.BootFileName, reply.ServerHostName = test.file, test.sname
		setOption(reply, dhcpv4.OptionRootPath, bytes.Repeat([]byte("r"), 200))
		setOption(reply, dhcpv4.OptionDomainName, bytes.Repeat([]byte("d"), 59))
		setOption(reply, dhcpv4.OptionNTPServers, bytes.Repeat([]byte{1, 2, 3, 4}, 3))
		setOption(reply, dhcpv4.OptionLogServer, bytes.Repeat([]byte{5, 6, 7, 8}, 14))
		data, left, err := encode(r, reply)
		require.NoError(t, err)
		require.Empty(t, left)
		require.LessOrEqual(t, len(data), 548)
		got, err := dhcpv4.FromBytes(data)
		require.NoError(t, err)
		require.Equal(t, []byte{test.bits}, got.Options.Get(dhcpv4.OptionOptionOverload))
		// A client reads it back as it was.
		data[0] = byte(dhcpv4.OpcodeBootRequest)
		back, err := decode(append(data, 0))
		require.NoError(t, err)
		require.Equal(t, test.file, back.BootFileName)
		require.Equal(t, test.sname, back.ServerHostName)
		for code, v := range reply.Options {
			require.Equal(t, v, back.Options[code], "option %d", code)
		}
	}
}

// A BOOTP client takes file and sname for what they are called; one that has
// room for all of the options gets them where they belong.
func TestEncodeOverloadNot(t *testing.T) {
	for _, test := range []struct {
		m     *dhcpv4.DHCPv4
		kind  dhcpv4.MessageType
		words int
		left  int
		limit int
	}{
		{message(dhcpv4.MessageTypeDiscover, macA, bareSystem, option(57, 1500>>8, 1500&255)), dhcpv4.MessageTypeOffer, 60, 0, 1472},
		{message(dhcpv4.MessageTypeNone, macA, bareSystem, func(m *dhcpv4.DHCPv4) { clear(m.Options) }), dhcpv4.MessageTypeNone, 10, 1, 300},
	} {
		r := on(test.m)
		reply := NewReply(r, test.kind)
		for _, code := range []uint8{15, 42} {
			setOption(reply, dhcpv4.GenericOptionCode(code), bytes.Repeat([]byte("abcd"), test.words))
		}
		setOption(reply, dhcpv4.OptionRootPath, []byte("/root"))
		data, left, err := encode(r, reply)
		require.NoError(t, err)
		require.Len(t, left, test.left)
		require.LessOrEqual(t, len(data), test.limit)
		require.Equal(t, make([]byte, cookieAt-snameAt), data[snameAt:cookieAt])
		require.NotContains(t, data[cookieAt:], dhcpv4.OptionOptionOverload.Code())
		require.Contains(t, string(data[cookieAt:]), "/root")
	}
}

func TestDecodeOverload(t *testing.T) {
	m := message(dhcpv4.MessageTypeDiscover, macA, bareSystem, option(52, 3), option(60, []byte("PXE")...))
	data := append(m.ToBytes(), 0)
	copy(data[108:], "\x3c\x06Client\xff")
	copy(data[44:], "\x4d\x04iPXE\xff")
	got, err := decode(data)
	require.NoError(t, err)
	require.Equal(t, "PXEClient", got.ClassIdentifier())
	require.Equal(t, "iPXE", string(got.Options.Get(dhcpv4.OptionUserClassInformation)))
	require.Empty(t, got.BootFileName+got.ServerHostName)

	copy(data[44:], "\x4d\xffiPXE") // a length that lies
	_, err = decode(data)
	require.Error(t, err)
}

// A client from before DHCP, and before options.
func TestDecodeBOOTP(t *testing.T) {
	m := message(dhcpv4.MessageTypeNone, macA, bareSystem)
	plain := m.ToBytes()
	for _, n := range []int{236, 238, 240, 300} {
		data := make([]byte, n+1)
		copy(data, plain[:236])
		got, err := decode(data)
		require.NoError(t, err, "%d bytes", n)
		require.Equal(t, macA, got.ClientHWAddr)
		require.True(t, (&Request{DHCPv4: got}).isBOOTP())
	}
	_, err := decode(make([]byte, 236))
	require.Error(t, err)
}
