package nbdattach

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"net"
	"strconv"
	"strings"
	"time"
)

// Config says what to attach. Addr, or Dial, must be set.
type Config struct {
	// Network and Addr are the server, as in "tcp", "192.0.2.1:10809" or
	// "unix", "/run/nbd.sock". An empty Network is "tcp". A host name is
	// resolved anew for each connection.
	Network, Addr string
	// Dial, if set, makes the connections instead, which must have a socket
	// of the kernel's ([syscall.Conn]).
	Dial func(ctx context.Context) (net.Conn, error)
	// Export is the name of the export; "" is the server's default.
	Export string
	// Device is "/dev/nbd3" or "nbd3"; "" is the first that is free.
	Device string
	// Connections is how many connections the device has; 0 is 1. It is 1,
	// whatever is asked for, unless the server says that several may be used
	// (NBD_FLAG_CAN_MULTI_CONN).
	Connections int
	// BlockSize is the device's logical block size in bytes, a power of two
	// from 512 to 4096; 0 is 512, or the smallest request that the server
	// takes.
	BlockSize int
	// ReadOnly makes the device read-only even if the export is not.
	ReadOnly bool
	// DisconnectOnClose has the kernel detach the device when its last user
	// closes it.
	DisconnectOnClose bool
	// Timeout is how long the kernel waits for a reply, in whole seconds,
	// before it gives that connection up and sends the request over another
	// or a new one; 0 is 15 s. It may take twice as long.
	Timeout time.Duration
	// ReconnectFor is how long requests wait for a new connection, in whole
	// seconds, before they and all others fail; 0 is 7 days, -1 is without
	// end.
	ReconnectFor time.Duration
	// RefusedFor is how long a server may go on refusing a device that has lost
	// a connection (it does not know the export, or does not allow it) before
	// the device is given up: it is detached, and all requests fail. 0 is an
	// hour, in which an image that is missing can be published again; -1 is
	// without end. A server that is not there refuses nothing.
	RefusedFor time.Duration
	// Logger is told of lost and new connections. nil is slog.Default().
	Logger *slog.Logger
}

const (
	defaultTimeout   = 15 * time.Second
	defaultReconnect = 7 * 24 * time.Hour
	defaultRefused   = time.Hour
	// noEnd is in place of no end, which the kernel does not have. It counts
	// in ticks, in 32 bits on small machines.
	noEnd = 20 * 24 * time.Hour
	// maxConnections is more than any kernel makes use of.
	maxConnections = 64
)

// settings is a Config with its defaults put in.
type settings struct {
	Config
	index   int // -1: the first that is free
	timeout uint64
	dead    uint64 // both in seconds
}

func (c *Config) settings() (*settings, error) {
	s := &settings{Config: *c, index: -1}
	wrong := func(format string, args ...any) (*settings, error) {
		return nil, fmt.Errorf("nbdattach: "+format+": %w", append(args, fs.ErrInvalid)...)
	}
	if s.Addr == "" && s.Dial == nil {
		return wrong("no server: set Addr")
	}
	if s.Device != "" {
		n, ok := strings.CutPrefix(strings.TrimPrefix(s.Device, "/dev/"), "nbd")
		i, err := strconv.ParseUint(n, 10, 20) // minor numbers have 20 bits
		if !ok || err != nil {
			return wrong("%q is no NBD device as in /dev/nbd0", s.Device)
		}
		s.index = int(i)
	}
	if s.Connections == 0 {
		s.Connections = 1
	}
	if s.Connections < 1 || s.Connections > maxConnections {
		return wrong("%d connections: from 1 to %d", s.Connections, maxConnections)
	}
	if b := s.BlockSize; b != 0 && (b < 512 || b > 4096 || b&(b-1) != 0) {
		return wrong("block size %d: a power of two from 512 to 4096", b)
	}
	if s.Timeout == 0 {
		s.Timeout = defaultTimeout
	}
	switch s.ReconnectFor {
	case 0:
		s.ReconnectFor = defaultReconnect
	case -1:
		s.ReconnectFor = noEnd
		if strconv.IntSize == 64 {
			s.ReconnectFor = 10 * 365 * 24 * time.Hour
		}
	}
	switch {
	case s.RefusedFor == 0:
		s.RefusedFor = defaultRefused
	case s.RefusedFor == -1:
		s.RefusedFor = math.MaxInt64
	case s.RefusedFor < 0:
		return wrong("RefusedFor %s: a duration, or -1 for no end", s.RefusedFor)
	}
	if s.Timeout < time.Second || s.ReconnectFor < time.Second {
		return wrong("Timeout %s, ReconnectFor %s: at least a second each", s.Timeout, s.ReconnectFor)
	}
	s.timeout, s.dead = uint64(s.Timeout/time.Second), uint64(s.ReconnectFor/time.Second)
	if s.Network == "" {
		s.Network = "tcp"
	}
	if s.Logger == nil {
		s.Logger = slog.Default()
	}
	return s, nil
}
