//go:build !linux

package dhcp

import "time"

// The system's clock must do.
func thisHost() host {
	return host{now: time.Now, boot: func() (id [16]byte, up time.Duration) { return id, 0 }}
}
