package tftp

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestParseRequest(t *testing.T) {
	rrq := func(name string, o options) query { return query{name: name, opts: o} }
	for _, c := range []struct {
		in   []byte
		want query
	}{
		{request(1, "a", "octet"), rrq("a", options{})},
		{request(1, "a", "OCTET"), rrq("a", options{})},
		{request(2, "a", "octet", "tsize", "77"), query{write: true, name: "a", opts: options{hasSize: true, size: 77}}},
		{request(1, "a", "NetASCII", "tsize", "0"), query{name: "a", netascii: true, opts: options{hasSize: true}}},
		{request(1, "a", "octet", "TSize", "0", "BLKSIZE", "1468"), rrq("a", options{hasSize: true, blksize: 1468})},
		{request(1, "a", "octet", "blksize", "65464", "WindowSize", "4", "timeout", "1"), rrq("a", options{blksize: 65464, window: 4, timeout: time.Second})},
		{request(1, "a", "octet", "blksize", "99999999"), rrq("a", options{blksize: 65464})},
		{request(1, "a", "octet", "blksize", "8"), rrq("a", options{blksize: 8})},
		{request(1, "a", "octet", "blksize", "7"), rrq("a", options{})},
		{request(1, "a", "octet", "timeout", "0", "windowsize", "0"), rrq("a", options{})},
		{request(1, "a", "octet", "timeout", "256", "windowsize", "65536"), rrq("a", options{})},
		{request(1, "a", "octet", "timeout", "255", "windowsize", "65535"), rrq("a", options{timeout: 255 * time.Second, window: 65535})},
		{request(1, "a", "octet", "tsize", "-5", "multicast", ""), rrq("a", options{hasSize: true})},
		{request(1, "a", "octet", "blksize", "-1", "blksize", "x", "blksize", ""), rrq("a", options{})},
		{request(1, "a", "octet", "blksize", "99999999999999999999"), rrq("a", options{})},
		{request(1, "", "octet"), rrq("", options{})},
		{append(request(1, "a", "octet"), 0, 0, 0, 0), rrq("a", options{})},                             // padded
		{[]byte("\x00\x01a\x00octet\x00tsize\x000"), rrq("a", options{hasSize: true})},                  // last NUL missing
		{[]byte("\x00\x01a\x00octet\x00tsize"), rrq("a", options{hasSize: true})},                       // value missing
		{request(1, "a", "octet", "blksize", "600", "blksize", "700"), rrq("a", options{blksize: 600})}, // the first counts
	} {
		got, ok, refusal := parseRequest(c.in)
		require.True(t, ok, "%q", c.in)
		require.Nil(t, refusal, "%q", c.in)
		require.Equal(t, c.want, got, "%q", c.in)
	}
	for _, in := range [][]byte{nil, {0}, {0, 3, 0, 1}, {0, 4, 0, 1}, {0, 5, 0, 1, 'x', 0}, {0, 6}, {1, 1, 'a', 0}, {0xff, 0xff}} {
		_, ok, _ := parseRequest(in)
		require.False(t, ok, "%q must not be answered", in)
	}
	for _, c := range []struct {
		in   []byte
		code Code
	}{
		{[]byte{0, 1}, CodeIllegal},
		{[]byte("\x00\x01name"), CodeIllegal},
		{[]byte("\x00\x01name\x00"), CodeIllegal},
		{[]byte("\x00\x02name\x00octet"), CodeIllegal},
		{request(1, "a", "mail"), CodeIllegal},
		{request(1, strings.Repeat("a", 600), "octet"), CodeIllegal},
	} {
		_, ok, refusal := parseRequest(c.in)
		require.True(t, ok, "%q", c.in)
		require.NotNil(t, refusal, "%q", c.in)
		require.Equal(t, c.code, refusal.Code, "%q", c.in)
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add(request(1, "pxelinux.0", "octet", "tsize", "0", "blksize", "1408"))
	f.Add(request(1, "a", "netascii", "blksize", "8", "", "", "windowsize", "4", "timeout", "255"))
	f.Add(request(2, "a", "octet", "tsize", "9999999999"))
	f.Add([]byte{0, 5, 0, 8, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		q, ok, refusal := parseRequest(b)
		if !ok {
			require.Nil(t, refusal)
			return
		}
		if refusal != nil {
			require.NotContains(t, refusal.Message, "\x00")
			return
		}
		require.True(t, q.opts.blksize == 0 || q.opts.blksize >= minBlock && q.opts.blksize <= maxBlock)
		require.True(t, q.opts.window >= 0 && q.opts.window <= 65535)
		out := q.encode() // says the same
		if len(out) > maxRequest {
			return
		}
		again, ok, refusal := parseRequest(out)
		require.True(t, ok)
		require.Nil(t, refusal)
		require.Equal(t, q, again)
		// What is granted is never more than what was asked for.
		g := (&Server{MaxBlockSize: 1000}).grant(q.opts, 1468)
		require.LessOrEqual(t, g.blksize, min(q.opts.blksize, 1000))
		require.LessOrEqual(t, g.window, min(q.opts.window, defaultMaxWindow))
		require.Equal(t, q.opts == options{}, g.oack() == nil)
	})
}

func TestWireError(t *testing.T) {
	for _, c := range []struct {
		err  error
		want Error
	}{
		{fs.ErrNotExist, Error{CodeNotFound, "file not found"}},
		{&fs.PathError{Op: "open", Path: "/srv/secret", Err: fs.ErrNotExist}, Error{CodeNotFound, "file not found"}},
		{fmt.Errorf("x: %w", fs.ErrPermission), Error{CodeAccessViolation, "access violation"}},
		{logged{&fs.PathError{Op: "open", Path: "p", Err: fs.ErrPermission}}, Error{CodeAccessViolation, "access violation"}},
		{errors.New("/srv/secret broke"), Error{CodeUndefined, "internal error, see the server's log"}},
		{fmt.Errorf("x: %w", &Error{CodeOption, "no\x00 \x1b[0mescapes\n"}), Error{CodeOption, "no [0mescapes"}},
		{&Error{CodeDiskFull, strings.Repeat("ä", 300)}, Error{CodeDiskFull, strings.Repeat("ä", 100)}},
	} {
		require.Equal(t, &c.want, wireError(c.err))
	}
	require.Equal(t, []byte("\x00\x05\x00\x08no\x00"), (&Error{CodeOption, "no"}).encode())
	require.ErrorIs(t, &Error{Code: CodeNotFound}, fs.ErrNotExist)
	require.ErrorIs(t, &Error{Code: CodeAccessViolation}, fs.ErrPermission)
	require.NotErrorIs(t, &Error{Code: CodeUndefined}, fs.ErrNotExist)
}
