package dhcp

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/iana"
)

// A lease is kept as few bytes, in memory and in files: a million of them must
// not weigh more than a small machine has. The record has the fields that
// every lease has in front, so that the usual questions (who, until when) are
// answered without decoding it.
//
//	0   flags: 1 declined, 2 address of 16 bytes, 4 UUID follows
//	1   length of the hardware address
//	2   8 bytes: Expires in nanoseconds since 1970, 0 never
//	10  address; hardware address; then each with its length before it
//	    (a uvarint): ID, Hostname, ClientHostname, ClientID, Archs;
//	    16 bytes of UUID

const (
	recordDeclined = 1 << iota
	recordIPv6
	recordUUID

	recordHeader = 10
	// maxRecord bounds what a record can be, since lengths come from a file.
	maxRecord = 2048
)

var errRecord = errors.New("dhcp: malformed lease record")

// appendRecord appends the record of l. Text that is no UUID is not kept.
func appendRecord(b []byte, l Lease) []byte {
	var flags byte
	if l.Declined {
		flags |= recordDeclined
	}
	addr := l.Addr.AsSlice()
	if len(addr) == 16 {
		flags |= recordIPv6
	}
	id, hasUUID := parseUUID(l.UUID)
	if hasUUID {
		flags |= recordUUID
	}
	hw := l.HardwareAddr[:min(len(l.HardwareAddr), 255)]
	b = append(b, flags, byte(len(hw)))
	b = binary.BigEndian.AppendUint64(b, expiryNumber(l.Expires))
	b = append(b, addr...)
	b = append(b, hw...)
	b = appendText(b, l.ID)
	b = appendText(b, l.Hostname)
	b = appendText(b, l.ClientHostname)
	b = appendText(b, string(l.ClientID))
	b = binary.AppendUvarint(b, uint64(2*len(l.Archs)))
	for _, a := range l.Archs {
		b = binary.BigEndian.AppendUint16(b, uint16(a))
	}
	if hasUUID {
		b = append(b, id[:]...)
	}
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// expiryNumber is never 0 for a time that is set.
func expiryNumber(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(max(1, t.UnixNano()))
}

func expiryTime(n uint64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(n))
}

// record is an encoded lease that was checked by checkRecord.
type record string

func (r record) declined() bool  { return r[0]&recordDeclined != 0 }
func (r record) expires() uint64 { return binary.BigEndian.Uint64([]byte(r[2:recordHeader])) }
func (r record) addrLen() int    { return 4 + int(r[0]&recordIPv6)/recordIPv6*12 }
func (r record) addr() netip.Addr {
	a, _ := netip.AddrFromSlice([]byte(r[recordHeader:][:r.addrLen()]))
	return a
}

// holds is [Lease.holds] at the time now, in nanoseconds.
func (r record) holds(now int64) bool {
	e := r.expires()
	return e == 0 || now < int64(e)
}

// owner is [Lease.Owner].
func (r record) owner() string {
	if r.declined() {
		return ""
	}
	hwAt := recordHeader + r.addrLen()
	idAt := hwAt + int(r[1])
	n, size := textUvarint(string(r[idAt:]))
	if n > 0 {
		return string(r[idAt+size:][:n])
	}
	return string(r[hwAt:idAt])
}

// textUvarint is binary.Uvarint of a string; size 0 for a malformed one.
func textUvarint(s string) (n, size int) {
	for i := 0; i < len(s) && i < 3; i++ {
		n |= int(s[i]&0x7f) << (7 * i)
		if s[i] < 0x80 {
			return n, i + 1
		}
	}
	return 0, 0
}

// fields are the parts of a record behind the address, not copied. ok is false
// for every string that appendRecord does not make, so that a file can be
// checked by it.
func (r record) fields() (hw string, texts [5]string, uuid string, ok bool) {
	if len(r) < recordHeader || len(r) > maxRecord || r[0]&^(recordDeclined|recordIPv6|recordUUID) != 0 {
		return hw, texts, uuid, false
	}
	rest := string(r[recordHeader:])
	n := r.addrLen() + int(r[1])
	if len(rest) < n {
		return hw, texts, uuid, false
	}
	hw, rest = rest[r.addrLen():n], rest[n:]
	for i := range texts {
		n, size := textUvarint(rest)
		if size == 0 || n > len(rest)-size {
			return hw, texts, uuid, false
		}
		texts[i], rest = rest[size:size+n], rest[size+n:]
	}
	if r[0]&recordUUID != 0 {
		if len(rest) < 16 {
			return hw, texts, uuid, false
		}
		uuid, rest = rest[:16], rest[16:]
	}
	return hw, texts, uuid, rest == "" && len(texts[4])%2 == 0
}

// lease decodes the record.
func (r record) lease() (Lease, error) {
	hw, texts, uuid, ok := r.fields()
	if !ok {
		return Lease{}, errRecord
	}
	l := Lease{Addr: r.addr(), Declined: r.declined(), Expires: expiryTime(r.expires()),
		ID: texts[0], Hostname: texts[1], ClientHostname: texts[2]}
	if hw != "" {
		l.HardwareAddr = net.HardwareAddr(hw)
	}
	if texts[3] != "" {
		l.ClientID = []byte(texts[3])
	}
	for a := texts[4]; a != ""; a = a[2:] {
		l.Archs = append(l.Archs, iana.Arch(uint16(a[0])<<8|uint16(a[1])))
	}
	if uuid != "" {
		l.UUID = formatUUID([]byte(uuid))
	}
	return l, nil
}

// formatUUID writes 16 bytes in the order of the wire.
func formatUUID(id []byte) string {
	var b [36]byte
	hex.Encode(b[0:8], id[0:4])
	hex.Encode(b[9:13], id[4:6])
	hex.Encode(b[14:18], id[6:8])
	hex.Encode(b[19:23], id[8:10])
	hex.Encode(b[24:36], id[10:16])
	b[8], b[13], b[18], b[23] = '-', '-', '-', '-'
	return string(b[:])
}

// parseUUID reads what formatUUID writes, in either case.
func parseUUID(s string) (id [16]byte, ok bool) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return id, false
	}
	_, err := hex.Decode(id[:], []byte(s[0:8]+s[9:13]+s[14:18]+s[19:23]+s[24:36]))
	return id, err == nil
}
