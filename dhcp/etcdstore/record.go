package etcdstore

import (
	"cmp"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"math"
	"net"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/insomniacslk/dhcp/iana"
	"github.com/seed-3ec230fa/diskless/dhcp"
)

const (
	// maxValue bounds what is read of a key: what we write is far below.
	maxValue = 8192
	// maxTerms is how many grants are kept that may still be somebody's
	// belief: a client that is told ever shorter times makes more than one.
	maxTerms = 4
	// maxSeconds is more than the 32 bits that DHCP has.
	maxSeconds = math.MaxUint32
)

// termID is the etcd lease of a term.
type termID int64

func (id termID) String() string { return strconv.FormatInt(int64(id), 16) }

func (id termID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

func (id *termID) UnmarshalText(b []byte) error {
	n, err := strconv.ParseInt(string(b), 16, 64)
	*id = termID(n)
	return err
}

// grant is one ACK as the store sees it: the address is the owner's for as
// long as the term exists, which is Seconds at least.
type grant struct {
	Term    termID `json:"term"`
	Seconds int64  `json:"seconds"`
}

// record is the value of a lease's key, as JSON.
type record struct {
	MAC      string `json:"mac,omitempty"`
	ID       string `json:"id,omitempty"`
	IDHex    string `json:"id_hex,omitempty"` // an ID that is no text
	Declined bool   `json:"declined,omitempty"`

	// Expires is for people, and for what is shown of the lease. Whether it
	// is over, Grants say: it is when none of their terms exists.
	Expires string  `json:"expires,omitempty"`
	Forever bool    `json:"forever,omitempty"`
	Grants  []grant `json:"grants,omitempty"` // the shortest last

	// Server made it last, and is the only one that acknowledged it since the
	// address was free, unless it is Shared.
	Server string `json:"server"`
	Shared bool   `json:"shared,omitempty"`

	// Since is the revision at which the lease was made that this renews; 0
	// is the revision of this value.
	Since int64 `json:"since,omitempty"`

	Hostname       string     `json:"name,omitempty"`
	ClientHostname string     `json:"client_name,omitempty"`
	ClientID       string     `json:"client_id,omitempty"`
	UUID           string     `json:"uuid,omitempty"`
	Archs          iana.Archs `json:"archs,omitempty"`
}

// held is the value of an offer's key.
type held struct {
	MAC    string `json:"mac,omitempty"` // or whatever the owner is, as hexadecimal digits
	ID     string `json:"id,omitempty"`
	Server string `json:"server"`
}

func newRecord(l dhcp.Lease, server string) (record, error) {
	if !l.Addr.IsValid() || l.Addr.Zone() != "" || len(l.HardwareAddr) > 255 || len(l.ID) > 512 || len(l.ClientID) > 255 ||
		len(l.Hostname) > 253 || len(l.ClientHostname) > 253 || len(l.Archs) > 64 || len(l.UUID) > 64 {
		return record{}, fmt.Errorf("etcdstore: lease of %v has fields that are too long: %w", l.Addr, fs.ErrInvalid)
	}
	r := record{
		MAC: colons(l.HardwareAddr), Declined: l.Declined, Server: server,
		Hostname: l.Hostname, ClientHostname: l.ClientHostname, ClientID: hex.EncodeToString(l.ClientID),
		UUID: l.UUID, Archs: l.Archs,
	}
	r.ID, r.IDHex = text(l.ID)
	return r, nil
}

// text returns s as it is, or as hexadecimal digits where JSON cannot have it.
func text(s string) (plain, digits string) {
	if utf8.ValidString(s) {
		return s, ""
	}
	return "", hex.EncodeToString([]byte(s))
}

// colons is [net.HardwareAddr.String]; uncolons takes addresses of any length,
// which net.ParseMAC does not.
func colons(b []byte) string { return net.HardwareAddr(b).String() }

func uncolons(s string) ([]byte, error) {
	if s == "" {
		return nil, nil
	}
	digits := make([]byte, 0, 40)
	for i := range len(s) {
		if i%3 != 2 {
			digits = append(digits, s[i])
		} else if s[i] != ':' {
			return nil, fmt.Errorf("malformed hardware address %q", s)
		}
	}
	b := make([]byte, len(digits)/2)
	_, err := hex.Decode(b, digits)
	if err == nil && (len(s)%3 != 2 || strings.ToLower(s) != s) {
		err = fmt.Errorf("malformed hardware address %q", s)
	}
	return b, err
}

func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and numbers only
	}
	return string(b)
}

// parseRecord reads a lease's value; Addr is not in it.
func parseRecord(value []byte) (record, dhcp.Lease, error) {
	if len(value) > maxValue {
		return record{}, dhcp.Lease{}, fmt.Errorf("%d bytes", len(value))
	}
	r, ok := scanRecord(value)
	if !ok {
		r = record{}
		if err := json.Unmarshal(value, &r); err != nil {
			return r, dhcp.Lease{}, err
		}
	}
	l := dhcp.Lease{
		ID: r.ID, Declined: r.Declined, Hostname: r.Hostname, ClientHostname: r.ClientHostname, UUID: r.UUID, Archs: r.Archs,
	}
	hw, err := uncolons(r.MAC)
	if err != nil || len(hw) > 255 {
		return r, l, cmp.Or(err, fmt.Errorf("a hardware address of %d bytes", len(hw)))
	}
	l.HardwareAddr = hw
	if r.IDHex != "" {
		id, err := hex.DecodeString(r.IDHex)
		if err != nil || r.ID != "" {
			return r, l, fmt.Errorf("malformed id_hex %q", r.IDHex)
		}
		l.ID = string(id)
	}
	if r.ClientID != "" {
		if l.ClientID, err = hex.DecodeString(r.ClientID); err != nil {
			return r, l, err
		}
	}
	if len(r.Archs) == 0 {
		l.Archs = nil
	}
	if len(r.Grants) > maxTerms {
		return r, l, fmt.Errorf("%d grants", len(r.Grants))
	}
	for _, g := range r.Grants {
		if g.Seconds < 0 || g.Seconds > maxSeconds {
			return r, l, fmt.Errorf("a grant of %d seconds", g.Seconds)
		}
	}
	if r.Since < 0 {
		return r, l, fmt.Errorf("a lease since the revision %d", r.Since)
	}
	if r.Forever {
		return r, l, nil
	}
	l.Expires, err = time.Parse(time.RFC3339Nano, r.Expires)
	return r, l, err
}

func newHeld(owner, server string) held {
	if len(owner) <= 16 { // package dhcp has no other owners as short as this
		return held{MAC: colons([]byte(owner)), Server: server}
	}
	h := held{Server: server}
	var digits string
	if h.ID, digits = text(owner); digits != "" {
		h.MAC = colons([]byte(owner))
	}
	return h
}

func parseHeld(value []byte) (owner string, err error) {
	var h held
	if len(value) > maxValue {
		return "", fmt.Errorf("%d bytes", len(value))
	}
	if err := json.Unmarshal(value, &h); err != nil {
		return "", err
	}
	if h.ID != "" {
		return h.ID, nil
	}
	b, err := uncolons(h.MAC)
	if err == nil && len(b) == 0 {
		err = fmt.Errorf("an offer to nobody")
	}
	return string(b), err
}
