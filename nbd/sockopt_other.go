//go:build !linux

package nbd

import (
	"net"
	"time"
)

func setUserTimeout(*net.TCPConn, time.Duration) {}
