//go:build linux

// Command nbdattach attaches an NBD export to /dev/nbdX and stays, so that the
// device outlives restarts of the server. It takes the arguments that
// nbd-client is called with in Debian's initramfs-tools and dracut, and can be
// there in its place. In an archive of its own, which the boot loader loads
// behind the distribution's initramfs, it takes the place of nbd-client in that
// without a change to it:
//
//	CGO_ENABLED=0 go build -ldflags=-s -o sbin/nbd-client ./examples/nbdattach
//	echo sbin/nbd-client | cpio -o -H newc | zstd -19 >nbdattach.img
//
// The archive must not have the directory sbin itself, which is a symbolic link
// in today's initramfs. A machine that nbd-client has booted already is taken
// over with -adopt.
//
//	nbdattach HOST -N NAME [PORT] [/dev/nbd0] [-C N] [-b SIZE] [-t SECONDS] [-R] [-adopt]
//	nbdattach -c /dev/nbd0
//
// Without a device it takes the first that is free, and prints which. SIGTERM
// detaches the device, unless it is in use.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/seed-3ec230fa/diskless/nbd/nbdattach"
)

type command struct {
	config nbdattach.Config
	adopt  bool
	check  string
	stay   bool // in the foreground
}

func main() {
	args := os.Args[1:]
	if more := os.Getenv("NBDATTACH"); more != "" {
		args = append(args, strings.Split(more, ",")...)
	}
	c, err := parse(args)
	switch {
	case err != nil:
	case c.check != "":
		err = check(c.check)
	case c.stay || os.Getenv(childEnv) != "":
		err = keep(c)
	default:
		err = background(args)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "nbdattach:", err)
		os.Exit(1)
	}
}

// parse takes the arguments as nbd-client does: options anywhere, long names
// with one dash.
func parse(args []string) (*command, error) {
	c := &command{}
	fl := flag.NewFlagSet("nbdattach", flag.ContinueOnError)
	fl.SetOutput(io.Discard)
	for _, n := range []string{"N", "name"} {
		fl.StringVar(&c.config.Export, n, "", "export")
	}
	for _, n := range []string{"C", "connections"} {
		fl.IntVar(&c.config.Connections, n, 0, "connections")
	}
	for _, n := range []string{"b", "block-size"} {
		fl.IntVar(&c.config.BlockSize, n, 0, "bytes")
	}
	for _, n := range []string{"R", "readonly"} {
		fl.BoolVar(&c.config.ReadOnly, n, false, "")
	}
	for _, n := range []string{"n", "nofork"} {
		fl.BoolVar(&c.stay, n, false, "")
	}
	for _, n := range []string{"c", "check"} {
		fl.StringVar(&c.check, n, "", "device")
	}
	for _, n := range []string{"t", "timeout"} {
		fl.Func(n, "seconds", func(s string) error {
			seconds, err := strconv.ParseUint(s, 10, 16)
			c.config.Timeout = time.Duration(seconds) * time.Second
			return err
		})
	}
	fl.BoolVar(&c.adopt, "adopt", false, "")
	// What is so in any case.
	for _, n := range []string{"p", "persist", "s", "swap", "m", "systemd-mark"} {
		fl.Bool(n, false, "")
	}
	var rest []string
	for len(args) > 0 {
		if err := fl.Parse(args); err != nil {
			return nil, err
		}
		if args = fl.Args(); len(args) > 0 {
			rest, args = append(rest, args[0]), args[1:]
		}
	}
	if c.check != "" && len(rest) == 0 {
		return c, nil
	}
	if n := len(rest); n > 1 && strings.Contains(rest[n-1], "nbd") {
		c.config.Device, rest = rest[n-1], rest[:n-1]
	}
	port := "10809"
	if len(rest) == 2 {
		port, rest = rest[1], rest[:1]
	}
	if len(rest) != 1 {
		return nil, errors.New("usage: nbdattach HOST -N NAME [PORT] [/dev/nbdX]")
	}
	c.config.Addr = net.JoinHostPort(strings.Trim(rest[0], "[]"), port)
	return c, nil
}

// check says whether the device is attached, as `nbd-client -c` does.
func check(device string) error {
	pid, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(device), "pid"))
	fmt.Print(string(pid))
	return err
}

// keep attaches the device, says so, and keeps it until it is gone.
func keep(c *command) error {
	ready := func(path string, err error) {
		if err == nil {
			fmt.Println(path)
		}
	}
	if os.Getenv(childEnv) != "" {
		ready = tellParent
		if kmsg, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0); err == nil {
			// The kernel's log is there in the initramfs and later on.
			slog.SetDefault(slog.New(slog.NewTextHandler(kmsg, &slog.HandlerOptions{ReplaceAttr: withoutTime})))
		}
	}
	needNobody()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var d *nbdattach.Device
	var err error
	if c.adopt {
		d, err = nbdattach.Adopt(ctx, &c.config, 0)
	} else {
		d, err = nbdattach.Attach(ctx, &c.config)
	}
	if err != nil {
		ready("", err)
		return err
	}
	ready(d.Path(), nil)
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM, os.Interrupt)
	for {
		select {
		case <-d.Done():
			return d.Err()
		case <-term:
			if err := d.Detach(); err != nil {
				slog.Warn("the device stays", "err", err)
			}
		}
	}
}

func withoutTime(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}
