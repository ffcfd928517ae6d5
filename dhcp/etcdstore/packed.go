package etcdstore

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/iana"
	"github.com/seed-3ec230fa/diskless/dhcp"
)

// packed is a lease's value as it is kept in memory, where there may be a
// million of them; "" is one that is not understood. In front is what most
// questions are about:
//
//	0   flags
//	1   number of grants
//	2   length of the hardware address
//	3   Expires: 8 bytes of seconds since 1970, 4 of nanoseconds
//	15  Since: 8 bytes
//	23  grants, of 8 bytes for the term and 4 for the seconds each; the address,
//	    of 4 or 16 bytes; hardware address; then each with its length before it
//	    (a uvarint): ID, Hostname, ClientHostname, ClientID, UUID as 16 bytes or
//	    as text, Archs
type packed string

const (
	packedDeclined = 1 << iota // in pack's order
	packedForever
	packedOwn // acknowledged by this server alone
	packedIPv6
	packedUUID // it is of 16 bytes

	packedHeader = 23
	packedGrant  = 12
)

// pack is for what parseRecord returned, which bounds all lengths.
func pack(addr netip.Addr, r record, l dhcp.Lease, server string) packed {
	uuid, isUUID := packUUID(l.UUID)
	var flags byte
	for i, is := range []bool{r.Declined, r.Forever, r.Server == server && !r.Shared, addr.BitLen() == 128, isUUID} {
		if is {
			flags |= 1 << i
		}
	}
	b := make([]byte, 0, 256)
	b = append(b, flags, byte(len(r.Grants)), byte(len(l.HardwareAddr)))
	b = binary.BigEndian.AppendUint64(b, uint64(l.Expires.Unix()))
	b = binary.BigEndian.AppendUint32(b, uint32(l.Expires.Nanosecond()))
	b = binary.BigEndian.AppendUint64(b, uint64(r.Since))
	for _, g := range r.Grants {
		b = binary.BigEndian.AppendUint64(b, uint64(g.Term))
		b = binary.BigEndian.AppendUint32(b, uint32(g.Seconds))
	}
	b = append(b, addr.AsSlice()...)
	b = append(b, l.HardwareAddr...)
	for _, s := range []string{l.ID, l.Hostname, l.ClientHostname, string(l.ClientID), uuid} {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	b = binary.AppendUvarint(b, uint64(2*len(l.Archs)))
	for _, a := range l.Archs {
		b = binary.BigEndian.AppendUint16(b, uint16(a))
	}
	return packed(b)
}

// packUUID returns the 16 bytes that formatUUID makes the same text of, or the
// text where there are none.
func packUUID(s string) (string, bool) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' || strings.ToLower(s) != s {
		return s, false
	}
	var digits [32]byte
	n := 0
	for i := range len(s) {
		if s[i] != '-' && n < len(digits) {
			digits[n] = s[i]
			n++
		}
	}
	var id [16]byte
	if _, err := hex.Decode(id[:], digits[:]); err != nil {
		return s, false // as with another '-'
	}
	return string(id[:]), true
}

func formatUUID(b string) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

func (p packed) is(flag byte) bool { return p[0]&flag != 0 }

func (p packed) expires() time.Time {
	sec := binary.BigEndian.Uint64([]byte(p[3:11]))
	return time.Unix(int64(sec), int64(binary.BigEndian.Uint32([]byte(p[11:15])))).UTC()
}

// since is 0 for a lease that no value renewed.
func (p packed) since() int64 { return int64(binary.BigEndian.Uint64([]byte(p[15:23]))) }

func (p packed) grant(i int) grant {
	g := []byte(p[packedHeader+i*packedGrant:][:packedGrant])
	return grant{Term: termID(binary.BigEndian.Uint64(g)), Seconds: int64(binary.BigEndian.Uint32(g[8:]))}
}

// fields are the address, the hardware address, and what is behind them.
func (p packed) fields() (addr, hw string, rest packed) {
	rest = p[packedHeader+int(p[1])*packedGrant:]
	n := 4
	if p.is(packedIPv6) {
		n = 16
	}
	end := n + int(p[2])
	return string(rest[:n]), string(rest[n:end]), rest[end:]
}

func (p packed) addr() netip.Addr {
	b, _, _ := p.fields()
	addr, _ := netip.AddrFromSlice([]byte(b))
	return addr
}

// owner is [dhcp.Lease.Owner].
func (p packed) owner() string {
	if p.is(packedDeclined) {
		return ""
	}
	_, hw, rest := p.fields()
	if id, _ := rest.text(); id != "" {
		return id
	}
	return hw
}

// text takes one with its length off the front.
func (p packed) text() (string, packed) {
	n, size := 0, 0
	for shift := 0; ; shift += 7 {
		b := p[size]
		size++
		n |= int(b&0x7f) << shift
		if b < 0x80 {
			return string(p[size : size+n]), p[size+n:]
		}
	}
}

// lease is what parseRecord returned.
func (p packed) lease() dhcp.Lease {
	l := dhcp.Lease{Addr: p.addr(), Declined: p.is(packedDeclined)}
	if !p.is(packedForever) {
		l.Expires = p.expires()
	}
	_, hw, rest := p.fields()
	if hw != "" {
		l.HardwareAddr = net.HardwareAddr(hw)
	}
	var id, archs string
	l.ID, rest = rest.text()
	l.Hostname, rest = rest.text()
	l.ClientHostname, rest = rest.text()
	id, rest = rest.text()
	l.UUID, rest = rest.text()
	archs, _ = rest.text()
	if id != "" {
		l.ClientID = []byte(id)
	}
	if p.is(packedUUID) {
		l.UUID = formatUUID(l.UUID)
	}
	for ; archs != ""; archs = archs[2:] {
		l.Archs = append(l.Archs, iana.Arch(uint16(archs[0])<<8|uint16(archs[1])))
	}
	return l
}
