package tftp

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseRRQ(t *testing.T) {
	for _, c := range []struct {
		in   []byte
		want rrq
	}{
		{request(1, "a", "octet"), rrq{name: "a"}},
		{request(1, "a", "OCTET"), rrq{name: "a"}},
		{request(1, "a", "NetASCII", "tsize", "0"), rrq{name: "a", netascii: true}},
		{request(1, "a", "octet", "TSize", "0", "BLKSIZE", "1468"), rrq{name: "a", tsize: true, blksize: 1468}},
		{request(1, "a", "octet", "blksize", "65464", "windowsize", "4", "timeout", "1"), rrq{name: "a", blksize: 65464}},
		{request(1, "a", "octet", "blksize", "99999999"), rrq{name: "a", blksize: 65464}},
		{request(1, "a", "octet", "blksize", "8"), rrq{name: "a"}}, // legal, but below what the engine can do
		{request(1, "a", "octet", "blksize", "-1", "blksize", "x", "blksize", ""), rrq{name: "a"}},
		{request(1, "a", "octet", "blksize", "99999999999999999999"), rrq{name: "a"}},
		{request(1, "", "octet"), rrq{}},
		{append(request(1, "a", "octet"), 0, 0, 0, 0), rrq{name: "a"}},                               // padded
		{[]byte("\x00\x01a\x00octet\x00tsize\x000"), rrq{name: "a", tsize: true}},                    // last NUL missing
		{[]byte("\x00\x01a\x00octet\x00tsize"), rrq{name: "a", tsize: true}},                         // value missing
		{request(1, "a", "octet", "blksize", "600", "blksize", "700"), rrq{name: "a", blksize: 600}}, // the first counts
	} {
		got, ok, refusal := parseRRQ(c.in)
		require.True(t, ok, "%q", c.in)
		require.Nil(t, refusal, "%q", c.in)
		require.Equal(t, c.want, got, "%q", c.in)
	}
	for _, in := range [][]byte{nil, {0}, {0, 3, 0, 1}, {0, 4, 0, 1}, {0, 5, 0, 1, 'x', 0}, {0, 6}, {1, 1, 'a', 0}, {0xff, 0xff}} {
		_, ok, _ := parseRRQ(in)
		require.False(t, ok, "%q must not be answered", in)
	}
	for _, c := range []struct {
		in   []byte
		code Code
	}{
		{request(2, "a", "octet"), CodeAccessViolation},
		{[]byte{0, 1}, CodeIllegal},
		{[]byte("\x00\x01name"), CodeIllegal},
		{[]byte("\x00\x01name\x00"), CodeIllegal},
		{[]byte("\x00\x01name\x00octet"), CodeIllegal},
		{request(1, "a", "mail"), CodeIllegal},
		{request(1, strings.Repeat("a", 600), "octet"), CodeIllegal},
	} {
		_, ok, refusal := parseRRQ(c.in)
		require.True(t, ok, "%q", c.in)
		require.NotNil(t, refusal, "%q", c.in)
		require.Equal(t, c.code, refusal.Code, "%q", c.in)
	}
}

func FuzzParseRRQ(f *testing.F) {
	f.Add(request(1, "pxelinux.0", "octet", "tsize", "0", "blksize", "1408"))
	f.Add(request(1, "a", "netascii", "blksize", "1", "", ""))
	f.Add(request(2, "a", "octet"))
	f.Add([]byte{0, 5, 0, 8, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		q, ok, refusal := parseRRQ(b)
		if !ok {
			require.Nil(t, refusal)
			return
		}
		if refusal != nil {
			require.NotContains(t, refusal.Message, "\x00")
			return
		}
		require.True(t, q.blksize == 0 || q.blksize >= defaultBlock && q.blksize <= maxBlock)
		// What the engine gets says the same and fits into its buffer.
		out := q.encode("key", 12345)
		require.LessOrEqual(t, len(out), 516)
		again, ok, refusal := parseRRQ(out)
		require.True(t, ok)
		require.Nil(t, refusal)
		q.name = "key"
		require.Equal(t, q, again)
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

func FuzzPeerError(f *testing.F) {
	f.Add("sending block 0: code=8, error: TFTP Aborted\x00")
	f.Add("code: 1, message: File not found\x00")
	f.Add("code")
	f.Add("code=99999999, error: ")
	f.Fuzz(func(t *testing.T, s string) {
		if e := peerError(errors.New(s)); e != nil {
			require.LessOrEqual(t, len(e.Message), 200)
			require.NotContains(t, e.Message, "\x00")
		}
	})
}

func TestPeerError(t *testing.T) {
	require.Equal(t, &Error{8, "TFTP: aborted"}, peerError(errors.New("sending block 0: code=8, error: TFTP: aborted\x00")))
	require.Equal(t, &Error{1, "File not found"}, peerError(errors.New("code: 1, message: File not found\x00")))
	require.Nil(t, peerError(errors.New("read udp: i/o timeout")))
}
