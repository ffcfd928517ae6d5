package dhcp

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// Prober finds out whether an address is in use: by ARP (RFC 5227) on the
// client's own link, by an ICMP echo through its relay. The zero value is ready
// to use, also concurrently. It needs Linux and the capability CAP_NET_RAW.
type Prober struct {
	// Wait is how long an answer is waited for; 0 is 500 milliseconds.
	Wait time.Duration
	// MaxProbes is how many probes there are at a time; 0 is 256, -1 no limit.
	// An address that comes up beyond that is taken for free: when a whole
	// site boots at once, machines that wait for nothing are worth more.
	MaxProbes int

	busy atomic.Int64
}

const (
	defaultProbeWait = 500 * time.Millisecond
	defaultMaxProbes = 256
)

// InUse reports whether a machine other than the client answers for the
// address. It is made for [Pool.InUse].
func (p *Prober) InUse(ctx context.Context, r *Request, addr netip.Addr) (bool, error) {
	limit := p.MaxProbes
	if limit == 0 {
		limit = defaultMaxProbes
	}
	defer p.busy.Add(-1)
	if n := p.busy.Add(1); limit > 0 && n > int64(limit) {
		return false, nil
	}
	wait := p.Wait
	if wait == 0 {
		wait = defaultProbeWait
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if toAddr(r.GatewayIPAddr).IsValid() || r.Interface == nil {
		return pingProbe(ctx, addr)
	}
	return arpProbe(ctx, r.Interface, addr, r.ClientHWAddr)
}

const arpSize = etherHeader + 28

// arpRequest asks who has the address, without saying who wants to know.
func arpRequest(hw net.HardwareAddr, addr netip.Addr) []byte {
	f := make([]byte, arpSize)
	copy(f, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	copy(f[6:], hw)
	binary.BigEndian.PutUint16(f[12:], 0x0806)
	copy(f[etherHeader:], []byte{0, 1, 8, 0, 6, 4, 0, 1})
	copy(f[etherHeader+8:], hw)
	copy(f[etherHeader+24:], addr.AsSlice())
	return f
}

// arpConflict reports whether a received frame says that a machine other than
// the client and this one has the address.
func arpConflict(frame []byte, addr netip.Addr, client, own net.HardwareAddr) bool {
	if len(frame) < arpSize || binary.BigEndian.Uint16(frame[12:]) != 0x0806 ||
		!bytes.Equal(frame[etherHeader:etherHeader+6], []byte{0, 1, 8, 0, 6, 4}) {
		return false
	}
	sender := frame[etherHeader+8 : etherHeader+14]
	return bytes.Equal(frame[etherHeader+14:etherHeader+18], addr.AsSlice()) &&
		!bytes.Equal(sender, client) && !bytes.Equal(sender, own)
}
