package guest

import (
	"cmp"
	"context"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Console is the guest's serial console, as package vm's Running has it.
// Expect waits for the next line that a regular expression matches.
type Console interface {
	Expect(ctx context.Context, pattern string) (line string, err error)
	Send(line string) error
}

// Report is what the guest's init says about itself on every boot.
type Report struct {
	Root      string // type of the root file system: "overlay", "squashfs", "ext4"
	Mode      string // how it is mounted: "ro" or "rw"
	Base      string // type of what is on the block device, which an overlay covers
	BaseMode  string // how that is mounted
	Device    string // the block device, as in "/dev/nbd0"
	Export    string // the NBD export, from the kernel command line or DHCP's root-path
	Hostname  string // from DHCP
	MAC       string
	IP        string // with its prefix length, as in "192.168.67.10/24"
	Interface string
	Marker    string // what [Root] was given
	Sums      string // "ok N" if all N files of the image are intact
	Write     string // "ok", "readonly", or "lost" if what was written did not come back
	Nonce     string // what is in /var/nonce: data kept from an earlier boot
	Kernel    string // its version
	Cmdline   string // the kernel command line
}

// Ready waits until the guest is up and returns what it said, which it is asked
// for once more: characters of the lines themselves may be missing.
func Ready(ctx context.Context, c Console) (*Report, error) {
	line, err := c.Expect(ctx, `DISKLESS (write=|nonce=|ready|failed=)`) // its last lines
	if err != nil {
		return nil, fmt.Errorf("guest: %w", err)
	}
	if _, why, failed := strings.Cut(line, "DISKLESS failed="); failed {
		return nil, fmt.Errorf("guest: the initramfs gave up: %s", why)
	}
	out, err := (&Shell{Console: c}).Do(ctx, "report")
	if err != nil {
		return nil, err
	}
	r := &Report{}
	fields := map[string]*string{
		"boot": &r.Kernel, "cmdline": &r.Cmdline, "root": &r.Root, "mode": &r.Mode, "base": &r.Base,
		"basemode": &r.BaseMode, "device": &r.Device, "export": &r.Export, "hostname": &r.Hostname,
		"mac": &r.MAC, "ip": &r.IP, "interface": &r.Interface, "marker": &r.Marker, "sums": &r.Sums,
		"write": &r.Write, "nonce": &r.Nonce,
	}
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if fields[key] != nil {
			*fields[key] = value
		}
	}
	return r, nil
}

// ErrCommand is in the error of a command that the guest ran and that failed.
var ErrCommand = errors.New("command failed in the guest")

// Shell sends commands to a guest that is ready. It is for one goroutine.
type Shell struct {
	Console Console

	wait time.Duration // for an answer, at first; 0 is ten seconds
}

// Listen is the command that has a shell of the guest's answer as its init does.
const Listen = `last=; while read -r id sum line; do [ "$(printf '%s %s' "$id" "$line" | md5sum)" = "$sum  -" ] || continue; ` +
	`if [ "$id" != "$last" ]; then last=$id; out=$(eval "$line" 2>&1 </dev/null; echo "rc=$?"); ` +
	`out="$id rc=${out##*rc=} $(printf %s "${out%rc=*}" | base64 -w 0)"; fi; echo "DISKLESS $out $(printf %s "$out" | md5sum)"; done`

// Do runs one command and returns what it wrote to its standard output and
// error. If it exits with another status than 0 the error is [ErrCommand]'s.
//
//	write NAME VALUE   write a line to /var/NAME (or an absolute NAME), and sync
//	read NAME          its content
//	report             the lines of the report
//	sha                check the checksum of all the image's files
//	net, root          the report's lines about the network and the root
//	sync, drop         sync; sync and drop the page cache
//	exec COMMAND       any shell command
//	reboot, poweroff   after the answer, at once: nothing is shut down
//
// An emulated serial port loses characters when the host is busy. So a command
// that is not answered, or by a damaged line, is sent again, but runs once.
func (s *Shell) Do(ctx context.Context, command string) (output string, err error) {
	id, line, err := encode(command)
	if err != nil {
		return "", err
	}
	const tries = 8
	for try := range tries {
		// The next boot would take it for new.
		if again := command != "reboot" && command != "poweroff"; try == 0 || again {
			if err := s.Console.Send(line); err != nil {
				return "", fmt.Errorf("guest: %w", err)
			}
		}
		short, cancel := context.WithTimeout(ctx, cmp.Or(s.wait, 10*time.Second)<<try)
		said, err := s.Console.Expect(short, id+" rc=")
		late := short.Err() != nil && ctx.Err() == nil
		cancel()
		if err != nil && !late {
			return "", fmt.Errorf("guest, %q: %w", command, err)
		}
		status, out, ok := parseAnswer(id, said)
		switch {
		case !ok:
		case status != 0:
			return out, fmt.Errorf("%w: %q: exit status %d: %s", ErrCommand, command, status, strings.TrimSpace(out))
		default:
			return out, nil
		}
	}
	return "", fmt.Errorf("guest, %q: no answer that is intact, %d times", command, tries)
}

// Tell sends a command that may end who would answer.
func (s *Shell) Tell(command string) error {
	_, line, err := encode(command)
	if err != nil {
		return err
	}
	return s.Console.Send(line)
}

// encode returns the line that a command is sent as. Its ID is a new one, also
// among those of other Shells.
func encode(command string) (id, line string, err error) {
	command = strings.TrimSpace(command)
	if strings.ContainsAny(command, "\r\n") || len(command) > 3000 {
		return "", "", fmt.Errorf("guest command %.20q...: not one line that fits a terminal's buffer", command)
	}
	id = fmt.Sprintf("#%016x", rand.Uint64())
	return id, fmt.Sprintf("%s %x %s", id, md5.Sum([]byte(id+" "+command)), command), nil
}

var answer = regexp.MustCompile(`(#[0-9a-f]+) rc=(\d+) ([A-Za-z0-9+/=]*) ([0-9a-f]{32})`)

// parseAnswer finds the answer in a line, where other things may stand too.
func parseAnswer(id, line string) (status int, output string, ok bool) {
	for _, m := range answer.FindAllStringSubmatch(line, -1) {
		text, sum := strings.TrimSuffix(m[0], " "+m[4]), m[4]
		if m[1] != id || fmt.Sprintf("%x", md5.Sum([]byte(text))) != sum {
			continue
		}
		status, err := strconv.Atoi(m[2])
		out, err2 := base64.StdEncoding.DecodeString(m[3])
		if err == nil && err2 == nil {
			return status, string(out), true
		}
	}
	return 0, "", false
}
