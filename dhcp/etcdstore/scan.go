package etcdstore

import (
	"bytes"
	"math"

	"github.com/insomniacslk/dhcp/iana"
)

// scanRecord reads a lease's value as this package writes it: no blanks, no
// escapes, names in the order of record's. ok is false for all others, which
// are for encoding/json; that takes ten times as long, which a server that
// starts with a million leases would be waited for.
func scanRecord(value []byte) (r record, ok bool) {
	s := scanner{rest: value}
	s.skip("{")
	last := 0
	for s.err = s.err || len(s.rest) == 0; !s.err && s.rest[0] != '}'; {
		if last > 0 {
			s.skip(",")
		}
		name := s.text()
		s.skip(":")
		at := 0
		switch name {
		case "mac":
			at, r.MAC = 1, s.text()
		case "id":
			at, r.ID = 2, s.text()
		case "id_hex":
			at, r.IDHex = 3, s.text()
		case "declined":
			at, r.Declined = 4, s.yes()
		case "expires":
			at, r.Expires = 5, s.text()
		case "forever":
			at, r.Forever = 6, s.yes()
		case "grants":
			at = 7
			s.list(func() { r.Grants = append(r.Grants, s.grant()) })
		case "server":
			at, r.Server = 8, s.text()
		case "shared":
			at, r.Shared = 9, s.yes()
		case "since":
			at, r.Since = 10, s.number(math.MaxInt64)
		case "name":
			at, r.Hostname = 11, s.text()
		case "client_name":
			at, r.ClientHostname = 12, s.text()
		case "client_id":
			at, r.ClientID = 13, s.text()
		case "uuid":
			at, r.UUID = 14, s.text()
		case "archs":
			at = 15
			s.list(func() { r.Archs = append(r.Archs, iana.Arch(s.number(0xffff))) })
		}
		s.err = s.err || at <= last || len(s.rest) == 0
		last = at
	}
	return r, !s.err && string(s.rest) == "}"
}

// scanner reads from the front of rest. After an error it reads nothing.
type scanner struct {
	rest []byte
	err  bool
}

func (s *scanner) skip(what string) {
	var found bool
	s.rest, found = bytes.CutPrefix(s.rest, []byte(what))
	s.err = s.err || !found
}

func (s *scanner) yes() bool {
	s.skip("true")
	return true
}

// text reads a string of printable ASCII.
func (s *scanner) text() string {
	s.skip(`"`)
	for i, b := range s.rest {
		switch {
		case s.err || b < ' ' || b > '~' || b == '\\':
			s.err = true
			return ""
		case b == '"':
			text := string(s.rest[:i])
			s.rest = s.rest[i+1:]
			return text
		}
	}
	s.err = true
	return ""
}

// number reads one that has no more than 18 digits, which an int64 has room for.
func (s *scanner) number(most int64) (n int64) {
	digits := 0
	for digits < len(s.rest) && digits <= 18 && s.rest[digits]-'0' <= 9 {
		n = 10*n + int64(s.rest[digits]-'0')
		digits++
	}
	s.err = s.err || digits == 0 || digits > 18 || n > most || digits > 1 && s.rest[0] == '0'
	s.rest = s.rest[digits:]
	return n
}

func (s *scanner) list(each func()) {
	s.skip("[")
	for first := true; !s.err; first = false {
		if !first {
			if len(s.rest) > 0 && s.rest[0] == ']' {
				break
			}
			s.skip(",")
		}
		each()
	}
	s.skip("]")
}

func (s *scanner) grant() (g grant) {
	s.skip(`{"term":`)
	s.err = s.err || g.Term.UnmarshalText([]byte(s.text())) != nil
	s.skip(`,"seconds":`)
	g.Seconds = s.number(maxSeconds)
	s.skip("}")
	return g
}
