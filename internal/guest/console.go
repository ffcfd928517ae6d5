package guest

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
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

// Ready waits until the guest is up and returns what it said.
func Ready(ctx context.Context, c Console) (*Report, error) {
	r := &Report{}
	fields := map[string]*string{
		"boot": &r.Kernel, "cmdline": &r.Cmdline, "root": &r.Root, "mode": &r.Mode, "base": &r.Base,
		"basemode": &r.BaseMode, "device": &r.Device, "export": &r.Export, "hostname": &r.Hostname,
		"mac": &r.MAC, "ip": &r.IP, "interface": &r.Interface, "marker": &r.Marker, "sums": &r.Sums,
		"write": &r.Write, "nonce": &r.Nonce,
	}
	for {
		line, err := c.Expect(ctx, `^DISKLESS (ready|[a-z]+=.*)$`)
		if err != nil {
			return nil, fmt.Errorf("guest: %w", err)
		}
		key, value, _ := strings.Cut(strings.TrimPrefix(line, "DISKLESS "), "=")
		switch {
		case key == "ready":
			return r, nil
		case key == "failed":
			return nil, fmt.Errorf("guest: the initramfs gave up: %s", value)
		case fields[key] != nil:
			*fields[key] = value
		}
	}
}

// ErrCommand is in the error of a command that the guest ran and that failed.
var ErrCommand = errors.New("command failed in the guest")

// Shell sends commands to a guest that is ready. It is for one goroutine.
type Shell struct {
	Console Console
	last    int
}

// Do runs one command and returns what it wrote to its standard output and
// error. If it exits with another status than 0 the error is [ErrCommand]'s.
//
//	write NAME VALUE   write a line to /var/NAME (or an absolute NAME), and sync
//	read NAME          its content
//	sha                check the checksum of all the image's files
//	net, root          the report's lines about the network and the root
//	sync, drop         sync; sync and drop the page cache
//	exec COMMAND       any shell command
//	reboot, poweroff   after the answer, at once: nothing is shut down
func (s *Shell) Do(ctx context.Context, command string) (output string, err error) {
	if strings.ContainsAny(command, "\r\n") || len(command) > 3000 {
		return "", fmt.Errorf("guest command %.20q...: not one line that fits a terminal's buffer", command)
	}
	s.last++
	if err := s.Console.Send(fmt.Sprintf("#%d %s", s.last, command)); err != nil {
		return "", fmt.Errorf("guest: %w", err)
	}
	line, err := s.Console.Expect(ctx, fmt.Sprintf(`^DISKLESS #%d rc=\d+ ?`, s.last))
	if err != nil {
		return "", fmt.Errorf("guest, %q: %w", command, err)
	}
	status, out, err := parseAnswer(line)
	if err != nil {
		return "", fmt.Errorf("guest, %q: %w", command, err)
	}
	if status != 0 {
		return out, fmt.Errorf("%w: %q: exit status %d: %s", ErrCommand, command, status, strings.TrimSpace(out))
	}
	return out, nil
}

var answer = regexp.MustCompile(`^DISKLESS #\d+ rc=(\d+) ?([A-Za-z0-9+/=]*)$`)

func parseAnswer(line string) (status int, output string, err error) {
	m := answer.FindStringSubmatch(line)
	if m == nil {
		return 0, "", fmt.Errorf("no answer: %.200q", line)
	}
	if status, err = strconv.Atoi(m[1]); err != nil {
		return 0, "", err
	}
	out, err := base64.StdEncoding.DecodeString(m[2])
	return status, string(out), err
}
