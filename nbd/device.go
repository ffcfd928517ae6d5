package nbd

import (
	"io"
	"net"
	"net/netip"
)

// Device is what an export serves: a fixed-size sequence of bytes that can be
// read at any offset. ReadAt follows [io.ReaderAt] and must be safe for
// concurrent use. What else a device can do it shows by implementing further
// interfaces and by saying so in Features; the server uses an ability only
// when both agree, so that a filter can mask one by clearing its bit.
//
// A device that also implements [io.Closer] is closed once when the last
// reply of the connection that opened it has been sent.
type Device interface {
	io.ReaderAt

	// Size returns the size in bytes. It does not change while the device is
	// open.
	Size() int64

	// Features returns what the device can do. It does not change while the
	// device is open.
	Features() Features
}

// Features says what a [Device] can do. The transmission flags that a client
// sees are made from it.
type Features struct {
	// Write: the device is an [io.WriterAt]. Without it the export is
	// announced as read-only and writes are answered with EPERM.
	Write bool
	// Flush: the device is a [Syncer].
	Flush bool
	// MultiConn: what one connection has flushed, or has been told is
	// written, every other connection to the same export sees. A read-only
	// device may always set it.
	MultiConn bool
}

// Syncer is a device whose finished writes can be made durable (NBD_CMD_FLUSH).
// Sync returns when every write that returned before Sync was called is on
// stable storage.
type Syncer interface {
	Sync() error
}

// Purpose says why a client asks for an export.
type Purpose int

const (
	// PurposeGo opens the export for transmission (NBD_OPT_GO,
	// NBD_OPT_EXPORT_NAME).
	PurposeGo Purpose = iota
	// PurposeInfo only looks at it (NBD_OPT_INFO, NBD_OPT_LIST): it must not
	// count as an opening, move a boot token or create anything.
	PurposeInfo
)

func (p Purpose) String() string {
	if p == PurposeInfo {
		return "info"
	}
	return "go"
}

// Request is one client's wish to open or look at an export.
type Request struct {
	// Export is the name as the client sent it, possibly empty.
	Export string
	// Purpose says whether the export is opened or only looked at.
	Purpose Purpose
	// Client and Local are the two ends of the connection. They are the zero
	// value when the connection has no IP addresses (a pipe, a Unix socket).
	Client, Local netip.AddrPort
	// Conn is the connection itself, for its type and its addresses; a
	// handler neither reads, writes nor closes it.
	Conn net.Conn

	// Disconnect cuts the connection that made this request, now: pending
	// requests are not answered. It may be called at any time, from any
	// goroutine, more than once; cause is logged and traced. This is how a
	// newer boot fences an older one off.
	Disconnect func(cause error)
}
