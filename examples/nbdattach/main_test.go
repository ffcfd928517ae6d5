//go:build linux

package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/nbd/nbdattach"
)

// The arguments are as initramfs-tools' and dracut's scripts write them, and
// further ones behind.
func TestParse(t *testing.T) {
	for _, c := range []struct {
		args []string
		want command
	}{
		{[]string{"192.0.2.1", "-N", "disk~0a1b@node-01.6f3k9a-x7Qm2p", "10809", "/dev/nbd0", "-swap", "-persist", "-systemd-mark"},
			command{config: nbdattach.Config{Addr: "192.0.2.1:10809", Export: "disk~0a1b@node-01.6f3k9a-x7Qm2p", Device: "/dev/nbd0"}}},
		{[]string{"-p", "-systemd-mark", "192.0.2.1", "-name", "disk", "/dev/nbd0", "-t=3", "-C=4"},
			command{config: nbdattach.Config{Addr: "192.0.2.1:10809", Export: "disk", Device: "/dev/nbd0", Timeout: 3 * time.Second, Connections: 4}}},
		{[]string{"2001:db8::1", "-N", "/opt/ltsp", "2000", "nbd3", "-b", "4096", "-R", "-nofork"},
			command{config: nbdattach.Config{Addr: "[2001:db8::1]:2000", Export: "/opt/ltsp", Device: "nbd3", BlockSize: 4096, ReadOnly: true}, stay: true}},
		{[]string{"192.0.2.1", "-N", "disk", "-adopt", "/dev/nbd0"},
			command{config: nbdattach.Config{Addr: "192.0.2.1:10809", Export: "disk", Device: "/dev/nbd0"}, adopt: true}},
		{[]string{"192.0.2.1", "2000"}, command{config: nbdattach.Config{Addr: "192.0.2.1:2000"}}},
		{[]string{"-check", "/dev/nbd0"}, command{check: "/dev/nbd0"}},
	} {
		got, err := parse(c.args)
		require.NoError(t, err, c.args)
		require.Equal(t, &c.want, got, c.args)
	}
	for _, args := range [][]string{nil, {"-x"}, {"a", "b", "c", "d"}, {"-t", "-3", "host"}} {
		_, err := parse(args)
		require.Error(t, err, args)
	}
}
