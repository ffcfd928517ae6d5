package nbd

import (
	"crypto/tls"
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

// Features says what a [Device] can do. The transmission flags and the block
// sizes that a client sees are made from it.
type Features struct {
	// Write: the device is an [io.WriterAt]. Without it the export is
	// announced as read-only and writes are answered with EPERM.
	Write bool
	// Flush: the device is a [Syncer]. One that can be written and flushed is
	// also announced with FUA, which is a write and then a Sync.
	Flush bool
	// Trim: the device is a [Trimmer], and can be written.
	Trim bool
	// Zero: the device is a [Zeroer], and can be written.
	Zero bool
	// FastZero: Zero keeps what [ZeroFast] promises.
	FastZero bool
	// Cache: the device is a [Cacher].
	Cache bool
	// Extents: the device is an [Extenter].
	Extents bool
	// Map: the device is a [Mapper].
	Map bool
	// Slow: a request may take as long as a network or another machine does.
	// The server then works on up to 16 requests of a connection at the same
	// time, and answers each when it is done. Without it a connection's requests
	// are answered one after the other, which is less work.
	Slow bool
	// MultiConn: what one connection has flushed, or has been told is
	// written, every other connection to the same export sees. A read-only
	// device may always set it.
	MultiConn bool

	// MinBlock is what offsets and lengths of requests must be multiples of,
	// in bytes: a power of two of at most 64 KiB; 0 is 1, any request. The
	// server answers others with EINVAL. Clients that do not ask for block
	// sizes, as Linux, keep to 512.
	MinBlock int
	// PreferredBlock is what requests had better be multiples of, in bytes: a
	// power of two from 512 to 32 MiB and not less than MinBlock; 0 is 4096.
	PreferredBlock int
}

// FeaturesOf returns what dev says it can do and really can: its Features,
// without those whose interface it does not implement, and without those that
// make no sense alone (to trim needs to write). It is what the server goes by,
// and what a filter passes on.
func FeaturesOf(dev Device) Features {
	f := dev.Features()
	has := func(claim *bool, really bool) { *claim = *claim && really }
	_, ok := dev.(io.WriterAt)
	has(&f.Write, ok)
	_, ok = dev.(Syncer)
	has(&f.Flush, ok)
	_, ok = dev.(Trimmer)
	has(&f.Trim, ok && f.Write)
	_, ok = dev.(Zeroer)
	has(&f.Zero, ok && f.Write)
	has(&f.FastZero, f.Zero)
	_, ok = dev.(Cacher)
	has(&f.Cache, ok)
	_, ok = dev.(Extenter)
	has(&f.Extents, ok)
	_, ok = dev.(Mapper)
	has(&f.Map, ok)
	return f
}

// Syncer is a device whose finished writes can be made durable (NBD_CMD_FLUSH).
// Sync returns when every write that returned before Sync was called is on
// stable storage; writes are Trim and Zero as well.
type Syncer interface {
	Sync() error
}

// Trimmer is a device that can give space back (NBD_CMD_TRIM). What is read
// from the range afterwards is not defined, until it is written: a device
// whose readers must not see what they should not had better read as zeroes.
//
// The range lies within the device; n may be as large as the device. Like
// every method here it may be called at the same time as the others.
type Trimmer interface {
	Trim(off, n int64) error
}

// ZeroFlags are wishes about how a range becomes zero.
type ZeroFlags uint

const (
	// ZeroNoHole: the space stays allocated, so that a later write cannot
	// fail for want of it (NBD_CMD_FLAG_NO_HOLE).
	ZeroNoHole ZeroFlags = 1 << iota
	// ZeroFast: if it takes about as long as writing the zeroes, fail at once
	// with [errors.ErrUnsupported], with nothing changed, instead of doing it
	// (NBD_CMD_FLAG_FAST_ZERO).
	ZeroFast
)

// Zeroer is a device that can make a range read as zeroes without being sent
// them (NBD_CMD_WRITE_ZEROES). Without ZeroNoHole it may give the space back.
// The range lies within the device; n may be as large as the device.
type Zeroer interface {
	Zero(off, n int64, flags ZeroFlags) error
}

// Cacher is a device that is slow to read what it was not told of before
// (NBD_CMD_CACHE). Cache is advice: it may return before the range is at hand,
// and it need not keep it.
type Cacher interface {
	Cache(off, n int64) error
}

// Extent is a part of a device that is all of one kind.
type Extent struct {
	Length int64 // bytes, more than 0
	Hole   bool  // has no space allocated to it
	Zero   bool  // reads as zeroes
}

// Extenter is a device that knows which of its parts are holes or zeroes
// (NBD_CMD_BLOCK_STATUS of base:allocation, and NBD_CMD_READ, where parts that
// are Zero are neither read nor sent).
//
// Extents fills dst with what there is from off on, in order and without gaps,
// and returns how many extents that are: at least one, unless n or len(dst) is
// 0. They reach no further than off+n and may end before it, be it that dst is
// full. The range lies within the device. What is not known is an Extent of
// neither kind.
type Extenter interface {
	Extents(off, n int64, dst []Extent) (int, error)
}

// Mapper is a device whose bytes are in memory, its own or that of a mapped
// file, from where they can be sent without being copied.
//
// Map appends to dst the segments that the n bytes at off consist of, in
// order, and returns it; the caller calls Release on each when it is sent. The
// range lies within the device. What is written to the range before they are
// sent may or may not be seen. Map fails as ReadAt does, and with
// [errors.ErrUnsupported] when it is only that the range cannot be mapped now:
// then, and when the memory turns out to be gone, the range is read. When it
// fails nothing was appended.
type Mapper interface {
	Map(off, n int64, dst []Segment) ([]Segment, error)
}

// Filter makes a Device of another one, to which it adds or from which it
// takes away. [Pass] is something to build on.
type Filter func(Device) Device

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
	// Export is the name as the client sent it, possibly empty. On a [Port]
	// it is that of the Port where the client gave none.
	Export string
	// Purpose says whether the export is opened or only looked at.
	Purpose Purpose
	// Client and Local are the two ends of the connection. They are the zero
	// value when the connection has no IP addresses (a pipe, a Unix socket).
	Client, Local netip.AddrPort
	// Conn is the connection itself, for its type and its addresses; a
	// handler neither reads, writes nor closes it.
	Conn net.Conn
	// TLS is the connection's state, or nil when it is not encrypted.
	TLS *tls.ConnectionState

	// Disconnect cuts the connection that made this request, now: pending
	// requests are not answered. It may be called at any time, from any
	// goroutine, more than once; cause is logged and traced. This is how a
	// newer boot fences an older one off.
	Disconnect func(cause error)
}

// CertName returns the name in the certificate that the client has shown and
// that was verified: its first DNS name, or else the common name of its
// subject; "" when there is none. Whether certificates are asked for and
// verified is said by ClientAuth and ClientCAs of [Server].TLS.
func (r *Request) CertName() string {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return ""
	}
	cert := r.TLS.VerifiedChains[0][0]
	if len(cert.DNSNames) > 0 {
		return cert.DNSNames[0]
	}
	return cert.Subject.CommonName
}
