package nbd

import (
	"net"
	"net/netip"
	"time"
)

// Trace is a set of hooks that a [Server] calls at the stages of a connection,
// in the manner of net/http/httptrace. Any of them may be nil. Hooks of one
// connection are called one after the other, those of different connections
// at the same time; a hook that blocks holds its connection up.
type Trace struct {
	// ConnOpened: a connection was accepted, its handshake begins.
	ConnOpened func(ConnInfo)
	// ConnRefused: a connection was closed at once because of a limit.
	ConnRefused func(ConnInfo, error)
	// ExportOpened: the handler gave a device, for transmission or, with
	// PurposeInfo, for a look only.
	ExportOpened func(ConnInfo, OpenInfo)
	// ExportRefused: the handler gave an error instead. Size and Features of
	// OpenInfo are zero.
	ExportRefused func(ConnInfo, OpenInfo, error)
	// FirstRead: the first read request of the connection was answered.
	FirstRead func(ConnInfo, OpenInfo)
	// ConnClosed: the connection has ended, its device is closed. The cause is
	// what ServeConn returns: nil when the client took its leave.
	ConnClosed func(c ConnInfo, s ConnStats, cause error)
}

// ConnInfo identifies a connection in a [Trace].
type ConnInfo struct {
	ID            uint64         // counts the connections of a Server from 1
	Client, Local netip.AddrPort // as in Request
	Remote        net.Addr       // the far end as its net.Conn names it
	Opened        time.Time
}

// OpenInfo is an export as one connection has it open.
type OpenInfo struct {
	Export   string // as the client sent it
	Purpose  Purpose
	Size     int64 // bytes
	Features Features
}

// ConnStats sums a connection up.
type ConnStats struct {
	Export       string // "" also when none was opened
	Requests     uint64 // of all commands
	Errors       uint64 // requests that were answered with an error
	BytesRead    uint64 // sent to the client
	BytesWritten uint64 // received and passed to the device
	Duration     time.Duration
}
