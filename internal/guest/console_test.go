package guest

import (
	"bufio"
	"context"
	"crypto/md5"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// tape is a console with everything said already. In its lines #ID is that of
// the last command, and SUM the answer's.
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
		if len(c.sent) > 0 {
			line = strings.ReplaceAll(line, "#ID", strings.Fields(c.sent[len(c.sent)-1])[0])
			_, text, _ := strings.Cut(strings.TrimSuffix(line, " SUM"), "DISKLESS ")
			line = strings.ReplaceAll(line, "SUM", fmt.Sprintf("%x", md5.Sum([]byte(text))))
		}
		if re.MatchString(line) {
			return line, nil
		}
	}
	return "", io.EOF
}

func (c *tape) commands() (out []string) {
	for _, line := range c.sent {
		out = append(out, strings.SplitN(line, " ", 3)[2])
	}
	return out
}

func encoded(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

func TestReady(t *testing.T) {
	const report = `cmdline=root=/dev/nbd0 nbdroot=a:1/b quiet
root=overlay
later=unknown keys are for later
nonce=
sums=ok 13
`
	c := &tape{lines: []string{
		"Run /init as init process", "DISKLESS cmdline=root=/dev/nbd0 quiet", "DISKLESS root=ovrlay", "Connected /dev/nbd0DISKLESS nonce=", "DISKLESS ready",
		"DISKLESS #ID rc=0 " + encoded(report) + " SUM", "DISKLESS root=next boot",
	}}
	r, err := Ready(t.Context(), c)
	require.NoError(t, err)
	require.Equal(t, &Report{Cmdline: "root=/dev/nbd0 nbdroot=a:1/b quiet", Root: "overlay", Sums: "ok 13"}, r)
	require.Equal(t, []string{"report"}, c.commands())
	require.Len(t, c.lines, 1)

	_, err = Ready(t.Context(), &tape{lines: []string{"DISKLESS failed=no DHCP answer on eth0"}})
	require.ErrorContains(t, err, "the initramfs gave up: no DHCP answer on eth0")
	_, err = Ready(t.Context(), &tape{})
	require.ErrorIs(t, err, io.EOF)
	_, err = Ready(t.Context(), &tape{lines: []string{"DISKLESS ready"}})
	require.ErrorIs(t, err, io.EOF)
}

func TestShell(t *testing.T) {
	c := &tape{lines: []string{
		"DISKLESS #ID rc=0 " + encoded("two\nlines\n") + " SUM",
		"DISKLESS #0123456789abcdef rc=0  SUM", // to somebody else
		"DISKLESS #ID rc=0  SUM",
		"DISKLESS #ID rc=1 " + encoded("cat: no such file\n") + " SUM",
		"DISKLESS #ID rc=0 not base64! SUM",
	}}
	s := &Shell{Console: c}
	out, err := s.Do(t.Context(), " net ")
	require.NoError(t, err)
	require.Equal(t, "two\nlines\n", out)
	out, err = s.Do(t.Context(), "sync")
	require.NoError(t, err)
	require.Empty(t, out)
	out, err = s.Do(t.Context(), "read absent")
	require.ErrorIs(t, err, ErrCommand)
	require.Equal(t, "cat: no such file\n", out)
	_, err = s.Do(t.Context(), "net")
	require.ErrorIs(t, err, io.EOF)
	require.NotErrorIs(t, err, ErrCommand)
	_, err = s.Do(t.Context(), "exec a\nb")
	require.Error(t, err)
	require.NoError(t, s.Tell("exec exit"))
	require.Error(t, s.Tell(strings.Repeat("x", 4000)))
	require.Equal(t, []string{"net", "sync", "read absent", "net", "net", "exec exit"}, c.commands())
	require.Equal(t, c.sent[3], c.sent[4])
	require.NotEqual(t, c.sent[0], c.sent[3])

	// The next boot would run it too, so the answer is given twice.
	c = &tape{lines: []string{"DISKLESS #ID rc=0  0123", "DISKLESS #ID rc=0  SUM"}}
	_, err = (&Shell{Console: c}).Do(t.Context(), "reboot")
	require.NoError(t, err)
	require.Equal(t, []string{"reboot"}, c.commands())
}

// port is a console with a shell of this machine's behind it, which runs one of
// the two loops that answer. Lines pass through functions on their way, which
// are told how many came before; what they make empty is lost.
type port struct {
	in         io.Writer
	lines      chan string
	to, from   func(n int, line string) string
	sent, read int
}

func newPort(t *testing.T, args ...string) *port {
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	c := &port{in: in, lines: make(chan string, 100)}
	go func() { // ends with the shell
		defer close(c.lines)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			c.lines <- lines.Text()
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		for range c.lines {
		}
		_ = cmd.Wait()
	})
	return c
}

func (c *port) Send(line string) error {
	line = c.to(c.sent, line)
	c.sent++
	if line == "" {
		return nil
	}
	_, err := io.WriteString(c.in, line+"\n")
	return err
}

func (c *port) Expect(ctx context.Context, pattern string) (string, error) {
	for {
		select {
		case line, ok := <-c.lines:
			if !ok {
				return "", io.EOF
			}
			line = c.from(c.read, line)
			c.read++
			if regexp.MustCompile(pattern).MatchString(line) {
				return line, nil
			}
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// Whatever is lost on the way, there and back, a command runs once and its whole
// answer arrives.
func TestShellOnBadPort(t *testing.T) {
	need(t, "busybox", "bash")
	intact := func(_ int, line string) string { return line }
	first := func(change func(line string) string) func(int, string) string {
		return func(n int, line string) string {
			if n > 0 {
				return line
			}
			return change(line)
		}
	}
	without := func(from, to int) func(int, string) string {
		return first(func(line string) string { return line[:from] + line[to:] })
	}
	lost := first(func(string) string { return "" })
	for name, test := range map[string]struct {
		to, from func(n int, line string) string
	}{
		"nothing":                  {intact, intact},
		"a foreign line before it": {intact, first(func(line string) string { return "[  OK  ] Reached tar" + line })},
		"one behind it":            {intact, first(func(line string) string { return line + "[  OK  ] Reached tar" })},
		"its beginning":            {intact, without(0, 7)},
		"of the answer's ID":       {intact, without(12, 14)},
		"of the answer":            {intact, without(32, 36)},
		"of the answer's sum":      {intact, without(60, 61)},
		"the answer's end":         {intact, first(func(line string) string { return line[:len(line)-20] })},
		"the answer":               {intact, lost},
		"three answers":            {intact, func(n int, line string) string { return line[min(9*(3-min(n, 3)), len(line)):] }},
		"of the command's ID":      {without(3, 4), intact},
		"of the command's sum":     {without(30, 33), intact},
		"of the command":           {without(54, 56), intact},
		"the command's end":        {first(func(line string) string { return line[:len(line)-1] }), intact},
		"the command":              {lost, intact},
		"both":                     {lost, lost},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			for _, who := range []string{"init", "shell"} {
				dir := t.TempDir()
				args := []string{"bash", "-c", Listen}
				if who == "init" {
					at := strings.Index(string(rootInit), "\nlast=''\n")
					require.Positive(t, at)
					const functions = "say() { printf 'DISKLESS %s\\n' \"$*\"; }\nrun() { sh -c \"$1\"; }\n"
					args = []string{"busybox", "sh", "-c", functions + strings.NewReplacer("/run/answer", filepath.Join(dir, "answer"), `"$command" -f`, "exit").Replace(string(rootInit[at:]))}
				}
				c := newPort(t, args...)
				s := &Shell{Console: c, wait: 100 * time.Millisecond}
				for n, want := range []string{"one  \\ 'two'\n", "three\n"} {
					c.to, c.from, c.sent, c.read = test.to, test.from, 0, 0
					if n > 0 {
						c.to, c.from = intact, intact
					}
					ran := filepath.Join(dir, fmt.Sprint(n))
					out, err := s.Do(t.Context(), `printf x >>`+ran+`; printf '%s\n' `+"'"+strings.NewReplacer("'", `'\''`, "\n", "").Replace(want)+"'; cat")
					require.NoError(t, err)
					require.Equal(t, want, out)
					times, err := os.ReadFile(ran)
					require.NoError(t, err)
					require.Equal(t, "x", string(times))
				}
				_, err := s.Do(t.Context(), "sh -c 'exit 3'")
				require.ErrorIs(t, err, ErrCommand)
			}
		})
	}
}

// A port that lets nothing through intact is given up.
func TestShellOnUselessPort(t *testing.T) {
	need(t, "bash")
	c := newPort(t, "bash", "-c", Listen)
	c.to = func(_ int, line string) string { return line }
	c.from = func(_ int, line string) string { return line[:len(line)-5] }
	_, err := (&Shell{Console: c, wait: 10 * time.Second}).Do(t.Context(), "true")
	require.ErrorContains(t, err, "no answer that is intact, 8 times")
	require.Equal(t, 8, c.sent)
}

func FuzzAnswer(f *testing.F) {
	sum := func(text string) string { return text + fmt.Sprintf(" %x", md5.Sum([]byte(text))) }
	f.Add(sum("#1 rc=0 aGVsbG8K"))
	f.Add("foreign DISKLESS #1 rc=0 aGVDISKLESS " + sum("#1 rc=0 aGVsbG8K") + "  -")
	f.Add(sum("#1 rc=99999999999999999999 "))
	f.Add(sum("#1 rc=0 ="))
	f.Fuzz(func(t *testing.T, line string) {
		status, out, ok := parseAnswer("#1", line)
		if status < 0 || len(out) > len(line) || !ok && out != "" {
			t.Fatal(status, len(out))
		}
	})
}
