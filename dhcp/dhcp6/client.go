package dhcp6

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
)

// ErrNoAddress is returned by a [Client] to which the server gave none.
var ErrNoAddress = errors.New("dhcp6: the server gives no address")

// Client asks a server for an address as some firmware would: for simulations,
// tests and probing a server's policy. It configures no interface. Its methods
// must not be called concurrently; they take over the conn's deadline.
type Client struct {
	// Conn is the socket; required. The client does not close it.
	Conn net.PacketConn
	// Server is where requests go; required. On a real network that is the
	// group ff02::1:2, port 547, with the interface as its zone.
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

// Lease is what a server told a [Client].
type Lease struct {
	Addr          netip.Addr    // zero for an answer without address
	ValidLifetime time.Duration // about 136 years is for ever
	ServerID      dhcpv6.DUID   // who granted it
	URL           string        // boot file
	Params        []string      // its arguments
	Message       *dhcpv6.Message
}

// Exchange walks through SOLICIT, ADVERTISE, REQUEST and REPLY with the first
// server that has an address. It repeats requests until ctx ends.
func (c *Client) Exchange(ctx context.Context) (Lease, error) {
	m := c.message(dhcpv6.MessageTypeSolicit)
	m.AddOption(c.association(netip.Addr{}))
	offer, err := c.ask(ctx, m, dhcpv6.MessageTypeAdvertise)
	if err != nil {
		return Lease{}, err
	}
	if l := c.lease(offer); !l.Addr.IsValid() {
		return l, ErrNoAddress
	}
	return c.grant(ctx, dhcpv6.MessageTypeRequest, c.lease(offer))
}

// Renew extends the lease (RFC 8415 section 18.2.4).
func (c *Client) Renew(ctx context.Context, l Lease) (Lease, error) {
	return c.grant(ctx, dhcpv6.MessageTypeRenew, l)
}

// Information asks for options without an address (section 18.2.6).
func (c *Client) Information(ctx context.Context) (Lease, error) {
	m, err := c.ask(ctx, c.message(dhcpv6.MessageTypeInformationRequest), dhcpv6.MessageTypeReply)
	if err != nil {
		return Lease{}, err
	}
	return c.lease(m), nil
}

// Release gives the lease back, and waits for the server's answer.
func (c *Client) Release(ctx context.Context, l Lease) error {
	m := c.message(dhcpv6.MessageTypeRelease)
	m.AddOption(dhcpv6.OptServerID(l.ServerID))
	m.AddOption(c.association(l.Addr))
	_, err := c.ask(ctx, m, dhcpv6.MessageTypeReply)
	return err
}

func (c *Client) grant(ctx context.Context, t dhcpv6.MessageType, l Lease) (Lease, error) {
	m := c.message(t)
	m.AddOption(dhcpv6.OptServerID(l.ServerID))
	m.AddOption(c.association(l.Addr))
	reply, err := c.ask(ctx, m, dhcpv6.MessageTypeReply)
	if err != nil {
		return Lease{}, err
	}
	granted := c.lease(reply)
	if !granted.Addr.IsValid() {
		return granted, ErrNoAddress
	}
	return granted, nil
}

func (c *Client) message(t dhcpv6.MessageType) *dhcpv6.Message {
	return c.Firmware.message(t, c.HardwareAddr, c.UUID)
}

// association is the IA_NA of the client's only interface.
func (c *Client) association(addr netip.Addr) *dhcpv6.OptIANA {
	ia := &dhcpv6.OptIANA{}
	copy(ia.IaId[:], c.HardwareAddr[max(0, len(c.HardwareAddr)-4):])
	if addr.IsValid() {
		ia.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: addr.AsSlice()})
	}
	return ia
}

func (c *Client) lease(m *dhcpv6.Message) Lease {
	l := Lease{ServerID: m.Options.ServerID(), URL: m.Options.BootFileURL(), Params: m.Options.BootFileParam(), Message: m}
	for _, ia := range m.Options.IANA() {
		for _, a := range ia.Options.Addresses() {
			if s := ia.Options.Status(); (s == nil || s.StatusCode == iana.StatusSuccess) && a.ValidLifetime > 0 && !l.Addr.IsValid() {
				l.Addr, l.ValidLifetime = toAddr(a.IPv6Addr), a.ValidLifetime
			}
		}
	}
	return l
}

// ask sends m until an answer of the type comes, or ctx ends.
func (c *Client) ask(ctx context.Context, m *dhcpv6.Message, t dhcpv6.MessageType) (*dhcpv6.Message, error) {
	if len(c.HardwareAddr) == 0 || c.Conn == nil || c.Server == nil {
		return nil, fmt.Errorf("dhcp6: Client needs Conn, Server and HardwareAddr: %w", fs.ErrInvalid)
	}
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
				return nil, fmt.Errorf("dhcp6: no answer to the %v of %v: %w", m.MessageType, c.HardwareAddr, ctx.Err())
			}
			n, _, err := c.Conn.ReadFrom(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return nil, err
			}
			reply, err := dhcpv6.MessageFromBytes(buf[:n])
			if err == nil && reply.TransactionID == m.TransactionID && reply.MessageType == t && reply.Options.ServerID() != nil {
				return reply, nil
			}
		}
	}
}
