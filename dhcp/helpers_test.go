package dhcp

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"
)

// need skips the test when one of the tools is not installed, or fails it
// where everything is required.
func need(t testing.TB, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if lookTool(tool) == "" {
			skip(t, tool+" is not installed")
		}
	}
}

func lookTool(tool string) string {
	for _, name := range []string{tool, filepath.Join("/usr/sbin", tool), filepath.Join("/sbin", tool)} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

func skip(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("DISKLESS_REQUIRE") == "all" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

var (
	macA = net.HardwareAddr{2, 0, 0, 0, 0, 0xa}
	macB = net.HardwareAddr{2, 0, 0, 0, 0, 0xb}
	macC = net.HardwareAddr{2, 0, 0, 0, 0, 0xc}
	uuid = [16]byte{0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0, 1, 2, 3, 4, 5, 6, 7, 8}
)

const uuidText = "12345678-9abc-def0-0102-030405060708"

// on makes a request as it arrives by broadcast on a server's own subnet
// 10.0.0.0/24, where the server is 10.0.0.1.
func on(m *dhcpv4.DHCPv4) *Request {
	return &Request{
		DHCPv4: m, Peer: netip.MustParseAddrPort("0.0.0.0:68"), Local: netip.MustParseAddrPort("255.255.255.255:67"),
		Interface: &net.Interface{Name: "test0", Index: 99}, addrs: []netip.Addr{ip("10.0.0.1")},
	}
}

// message makes a client's message of some firmware.
func message(t dhcpv4.MessageType, hw net.HardwareAddr, f Firmware, change ...func(*dhcpv4.DHCPv4)) *dhcpv4.DHCPv4 {
	c := Client{HardwareAddr: hw, UUID: uuid, Firmware: f}
	m := c.message(t)
	for _, ch := range change {
		ch(m)
	}
	return m
}

func requested(a string) func(*dhcpv4.DHCPv4) {
	return func(m *dhcpv4.DHCPv4) { m.UpdateOption(dhcpv4.OptRequestedIPAddress(toIP(ip(a)))) }
}

func serverID(a string) func(*dhcpv4.DHCPv4) {
	return func(m *dhcpv4.DHCPv4) { m.UpdateOption(dhcpv4.OptServerIdentifier(toIP(ip(a)))) }
}

func ciaddr(a string) func(*dhcpv4.DHCPv4) {
	return func(m *dhcpv4.DHCPv4) { m.ClientIPAddr = toIP(ip(a)) }
}

func relay(a string) func(*dhcpv4.DHCPv4) {
	return func(m *dhcpv4.DHCPv4) { m.GatewayIPAddr = toIP(ip(a)) }
}

func option(code uint8, v ...byte) func(*dhcpv4.DHCPv4) {
	return func(m *dhcpv4.DHCPv4) { m.Options[code] = v }
}

// bareSystem is a client that says nothing about itself.
var bareSystem Firmware

// testPool is a pool of 10.0.0.100-103 without a say about the rest.
func testPool(change ...func(*Pool)) *Pool {
	p := &Pool{
		Prefix:   netip.MustParsePrefix("10.0.0.0/24"),
		Ranges:   []Range{{ip("10.0.0.100"), ip("10.0.0.103")}},
		ServerID: ip("10.0.0.1"),
		Router:   ip("10.0.0.254"),
		DNS:      []netip.Addr{ip("10.0.0.2"), ip("10.0.0.3")},
		Domain:   "lab.example",
		Logger:   slog.New(slog.DiscardHandler),
	}
	for _, ch := range change {
		ch(p)
	}
	return p
}

// dora takes a machine through DISCOVER and REQUEST and returns its address.
func dora(t testing.TB, h Handler, hw net.HardwareAddr, f Firmware) netip.Addr {
	t.Helper()
	offer, err := h.ServeDHCP(context.Background(), on(message(dhcpv4.MessageTypeDiscover, hw, f)))
	require.NoError(t, err)
	require.NotNil(t, offer, "no offer")
	require.Equal(t, dhcpv4.MessageTypeOffer, offer.MessageType())
	addr := toAddr(offer.YourIPAddr)
	ack, err := h.ServeDHCP(context.Background(), on(message(dhcpv4.MessageTypeRequest, hw, f,
		requested(addr.String()), serverID(toAddr(offer.ServerIdentifier()).String()))))
	require.NoError(t, err)
	require.NotNil(t, ack, "no answer to the request")
	require.Equal(t, dhcpv4.MessageTypeAck, ack.MessageType())
	require.Equal(t, addr, toAddr(ack.YourIPAddr))
	return addr
}

// logBuffer collects log lines.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// logTo returns a logger for the level, and what it wrote.
func logTo(level slog.Level) (*slog.Logger, *logBuffer) {
	b := new(logBuffer)
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: level})), b
}

var allArchs = []iana.Arch{0, 6, 7, 9, 11, 16, 41}
