package dhcp

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func thisHost() host { return host{now: time.Now, boot: thisBoot} }

func thisBoot() (id [16]byte, up time.Duration) {
	var t unix.Timespec
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) != nil {
		return [16]byte{}, 0
	}
	id, _ = parseUUID(strings.TrimSpace(string(text)))
	return id, time.Duration(t.Nano())
}
