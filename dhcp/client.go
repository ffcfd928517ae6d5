package dhcp

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

// ErrNak is returned by a [Client] whose request the server refused.
var ErrNak = errors.New("dhcp: server refused the request (NAK)")

// Client asks a server for an address as some firmware would: for simulations,
// tests and probing a server's policy. It configures no interface. Its methods
// must not be called concurrently; they take over the conn's deadline.
//
// Over a UDP socket on any port other than 68 the server answers to that
// socket, so that neither root nor a network is needed.
type Client struct {
	// Conn is the socket; required. The client does not close it.
	Conn net.PacketConn
	// Server is where requests go; required. On a real network that is the
	// broadcast address, 255.255.255.255:67.
	Server net.Addr

	// HardwareAddr and UUID are the machine. HardwareAddr is required.
	HardwareAddr net.HardwareAddr
	UUID         [16]byte

	// Firmware is what the machine says that it is.
	Firmware Firmware

	// Retry is the time before a request is repeated the first time; it is
	// doubled each time up to 16 seconds. 0 is 1 second.
	Retry time.Duration
}

// Ack is what a server granted. Fields for options that were not sent are zero.
type Ack struct {
	Addr       netip.Prefix // address with the subnet's length
	ServerID   netip.Addr   // who granted it
	NextServer netip.Addr   // siaddr: where File is
	File       string       // boot file: option 67, or else the field file
	RootPath   string
	Hostname   string
	LeaseTime  time.Duration // as sent: about 136 years is for ever
	Message    *dhcpv4.DHCPv4
}

// Exchange walks through DISCOVER, OFFER, REQUEST and ACK with the first
// server that offers an address. It repeats requests until ctx ends. A NAK is
// [ErrNak].
func (c *Client) Exchange(ctx context.Context) (Ack, error) {
	if len(c.HardwareAddr) == 0 || c.Conn == nil || c.Server == nil {
		return Ack{}, fmt.Errorf("dhcp: Client needs Conn, Server and HardwareAddr: %w", fs.ErrInvalid)
	}
	m := c.message(dhcpv4.MessageTypeDiscover)
	offer, err := c.ask(ctx, m, func(m *dhcpv4.DHCPv4) bool {
		return m.MessageType() == dhcpv4.MessageTypeOffer && toAddr(m.YourIPAddr).IsValid() && m.ServerIdentifier() != nil
	})
	if err != nil {
		return Ack{}, fmt.Errorf("dhcp: no offer for %v: %w", c.HardwareAddr, err)
	}
	// RFC 2131 section 4.3.2: the xid stays, 50 and 54 tell what was chosen.
	xid := m.TransactionID
	m = c.message(dhcpv4.MessageTypeRequest)
	m.TransactionID = xid
	m.UpdateOption(dhcpv4.OptRequestedIPAddress(offer.YourIPAddr))
	m.UpdateOption(dhcpv4.OptServerIdentifier(offer.ServerIdentifier()))
	return c.confirm(ctx, m)
}

// Reboot asks for an address that the client had before, without a DISCOVER
// (the state INIT-REBOOT of RFC 2131 section 4.4.2).
func (c *Client) Reboot(ctx context.Context, addr netip.Addr) (Ack, error) {
	m := c.message(dhcpv4.MessageTypeRequest)
	m.UpdateOption(dhcpv4.OptRequestedIPAddress(toIP(addr)))
	return c.confirm(ctx, m)
}

// Renew extends the lease of ack (RFC 2131 section 4.4.5).
func (c *Client) Renew(ctx context.Context, ack Ack) (Ack, error) {
	m := c.message(dhcpv4.MessageTypeRequest)
	m.ClientIPAddr = toIP(ack.Addr.Addr())
	return c.confirm(ctx, m)
}

// Release gives the lease of ack back. There is no answer to that.
func (c *Client) Release(ack Ack) error { return c.tell(dhcpv4.MessageTypeRelease, ack) }

// Decline says that the address of ack is in use by another machine. There is
// no answer to that.
func (c *Client) Decline(ack Ack) error { return c.tell(dhcpv4.MessageTypeDecline, ack) }

func (c *Client) tell(t dhcpv4.MessageType, ack Ack) error {
	m := c.message(t)
	m.UpdateOption(dhcpv4.OptServerIdentifier(toIP(ack.ServerID)))
	if t == dhcpv4.MessageTypeDecline {
		m.UpdateOption(dhcpv4.OptRequestedIPAddress(toIP(ack.Addr.Addr())))
	} else {
		m.ClientIPAddr = toIP(ack.Addr.Addr())
	}
	_, err := c.Conn.WriteTo(m.ToBytes(), c.Server)
	return err
}

func (c *Client) confirm(ctx context.Context, m *dhcpv4.DHCPv4) (Ack, error) {
	reply, err := c.ask(ctx, m, func(m *dhcpv4.DHCPv4) bool {
		return m.MessageType() == dhcpv4.MessageTypeAck || m.MessageType() == dhcpv4.MessageTypeNak
	})
	if err != nil {
		return Ack{}, fmt.Errorf("dhcp: no answer to the request of %v: %w", c.HardwareAddr, err)
	}
	if reply.MessageType() == dhcpv4.MessageTypeNak {
		return Ack{}, ErrNak
	}
	ones, _ := reply.SubnetMask().Size()
	return Ack{
		Addr:       netip.PrefixFrom(toAddr(reply.YourIPAddr), ones),
		ServerID:   toAddr(reply.ServerIdentifier()),
		NextServer: toAddr(reply.ServerIPAddr),
		File:       cmp.Or(reply.BootFileNameOption(), reply.BootFileName),
		RootPath:   reply.RootPath(),
		Hostname:   reply.HostName(),
		LeaseTime:  reply.IPAddressLeaseTime(0),
		Message:    reply,
	}, nil
}

// message starts a request of the firmware's.
func (c *Client) message(t dhcpv4.MessageType) *dhcpv4.DHCPv4 {
	m := &dhcpv4.DHCPv4{
		OpCode:       dhcpv4.OpcodeBootRequest,
		HWType:       iana.HWTypeEthernet,
		ClientHWAddr: c.HardwareAddr,
		Options:      make(dhcpv4.Options, 8),
	}
	rand.Read(m.TransactionID[:]) // never fails
	m.UpdateOption(dhcpv4.OptMessageType(t))
	c.Firmware.fill(m, c.HardwareAddr, c.UUID)
	return m
}

// ask sends m until an answer comes that is wanted, or ctx ends.
func (c *Client) ask(ctx context.Context, m *dhcpv4.DHCPv4, wanted func(*dhcpv4.DHCPv4) bool) (*dhcpv4.DHCPv4, error) {
	stop := context.AfterFunc(ctx, func() { c.Conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	data := m.ToBytes()
	buf := make([]byte, maxDatagram)
	for wait := cmp.Or(c.Retry, time.Second); ; wait = min(2*wait, 16*time.Second) {
		if _, err := c.Conn.WriteTo(data, c.Server); err != nil {
			return nil, err
		}
		if err := c.Conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
			return nil, err
		}
		for {
			if ctx.Err() != nil { // also when it ended before the deadline was set
				return nil, ctx.Err()
			}
			n, _, err := c.Conn.ReadFrom(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return nil, err
			}
			reply, err := dhcpv4.FromBytes(buf[:n])
			if err == nil && reply.OpCode == dhcpv4.OpcodeBootReply && reply.TransactionID == m.TransactionID &&
				bytes.Equal(reply.ClientHWAddr, m.ClientHWAddr) && wanted(reply) {
				return reply, nil
			}
		}
	}
}
