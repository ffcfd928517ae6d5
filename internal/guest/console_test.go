package guest

import (
	"context"
	"encoding/base64"
	"io"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// tape is a console with everything said already.
type tape struct {
	lines []string
	sent  []string
}

func (c *tape) Send(line string) error {
	c.sent = append(c.sent, line)
	return nil
}

func (c *tape) Expect(_ context.Context, pattern string) (string, error) {
	re := regexp.MustCompile(pattern)
	for len(c.lines) > 0 {
		line := c.lines[0]
		c.lines = c.lines[1:]
		if re.MatchString(line) {
			return line, nil
		}
	}
	return "", io.EOF
}

func TestReady(t *testing.T) {
	c := &tape{lines: strings.Split(`Run /init as init process
DISKLESS cmdline=root=/dev/nbd0 nbdroot=a:1/b quiet
DISKLESS root=overlay
DISKLESS later=unknown keys are for later
Connected /dev/nbd0
DISKLESS nonce=
DISKLESS sums=ok 13
DISKLESS ready
DISKLESS root=next boot`, "\n")}
	r, err := Ready(t.Context(), c)
	require.NoError(t, err)
	require.Equal(t, &Report{Cmdline: "root=/dev/nbd0 nbdroot=a:1/b quiet", Root: "overlay", Sums: "ok 13"}, r)
	require.Len(t, c.lines, 1)

	_, err = Ready(t.Context(), &tape{lines: []string{"DISKLESS failed=no DHCP answer on eth0"}})
	require.ErrorContains(t, err, "the initramfs gave up: no DHCP answer on eth0")
	_, err = Ready(t.Context(), &tape{})
	require.ErrorIs(t, err, io.EOF)
}

func TestShell(t *testing.T) {
	c := &tape{lines: []string{
		"DISKLESS #1 rc=0 " + base64.StdEncoding.EncodeToString([]byte("two\nlines\n")),
		"DISKLESS #2 rc=0",
		"DISKLESS #3 rc=1 " + base64.StdEncoding.EncodeToString([]byte("cat: no such file\n")),
		"DISKLESS #4 rc=0 not base64!",
	}}
	s := &Shell{Console: c}
	out, err := s.Do(t.Context(), "net")
	require.NoError(t, err)
	require.Equal(t, "two\nlines\n", out)
	out, err = s.Do(t.Context(), "sync")
	require.NoError(t, err)
	require.Empty(t, out)
	out, err = s.Do(t.Context(), "read absent")
	require.ErrorIs(t, err, ErrCommand)
	require.Equal(t, "cat: no such file\n", out)
	_, err = s.Do(t.Context(), "net")
	require.Error(t, err)
	require.NotErrorIs(t, err, ErrCommand)
	_, err = s.Do(t.Context(), "exec a\nb")
	require.Error(t, err)
	require.Equal(t, []string{"#1 net", "#2 sync", "#3 read absent", "#4 net"}, c.sent)
}

func FuzzAnswer(f *testing.F) {
	f.Add("DISKLESS #1 rc=0 aGVsbG8K")
	f.Add("DISKLESS #1 rc=99999999999999999999 ")
	f.Add("DISKLESS #1 rc=0 =")
	f.Fuzz(func(t *testing.T, line string) {
		status, out, err := parseAnswer(line)
		if err == nil && (status < 0 || len(out) > len(line)) {
			t.Fatal(status, len(out))
		}
	})
}
