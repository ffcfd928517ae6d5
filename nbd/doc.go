// Package nbd exports block devices to booting machines over the Network Block
// Device protocol, and reads such exports as a client.
//
// # Model
//
// A [Server] accepts connections. In the handshake a client names an export;
// the server asks its [Handler] which [Device] that is, announces the device's
// size and what its [Features] say, and from then on answers the client's
// reads and writes with the device's ReadAt and WriteAt. A Device is small
// enough to be written in a dozen lines; what it can do beside reading it
// shows by further interfaces. [File], [NewReaderAt] and [FromBackend] are
// devices, [Exports], [Share], [FileServer] and [First] are handlers, and a
// [Client] is a Device as well, so that an export can be passed on.
//
//	srv := &nbd.Server{Handler: nbd.Exports{
//		"debian12": nbd.FileServer("/srv/images/debian12.img"),
//	}}
//	err := srv.ListenAndServe() // ":10809"
//
// For machines without a disk: [Images] serves image files as generations, an
// [Overlay] is a copy-on-write device over a shared one, and [Roots] keeps a
// writable root for each machine, under names that a [Name] takes apart.
//
// A [Filter] wraps a device and may hide what it can do: [Filtered] puts
// filters under a handler, among them [Stats], [RateLimit], [ConnLimit],
// [Delay] and [Faults]. A [Cache] keeps the blocks of a slow device, such as one
// from [OpenHTTP], on disk; [Swap] makes an empty device for each client.
// [Authorize], [AllowFrom] and [OwnRoot] say who may open what.
//
// # Protocol
//
// The protocol is the one of https://github.com/NetworkBlockDevice/nbd,
// doc/proto.md. The server speaks fixed newstyle negotiation:
// NBD_OPT_EXPORT_NAME (with and without the 124 zeroes), NBD_OPT_GO,
// NBD_OPT_INFO, NBD_OPT_LIST, NBD_OPT_ABORT, NBD_OPT_STARTTLS,
// NBD_OPT_STRUCTURED_REPLY, and NBD_OPT_LIST_META_CONTEXT and
// NBD_OPT_SET_META_CONTEXT with base:allocation; any other option is answered
// with NBD_REP_ERR_UNSUP. In transmission it knows NBD_CMD_READ, NBD_CMD_WRITE,
// NBD_CMD_FLUSH, NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES, NBD_CMD_CACHE,
// NBD_CMD_BLOCK_STATUS and NBD_CMD_DISC, as far as the device's Features go;
// all else is answered with EINVAL. A client that has agreed on structured
// replies gets reads in chunks, without what the device says is zero, and
// errors with their place. A [Port] serves clients that name no export, and
// those that know the oldstyle greeting only.
//
// # Errors on the wire
//
// What a Device returns becomes an NBD error: [syscall.ENOSPC], EDQUOT and
// EFBIG are ENOSPC; [fs.ErrPermission] and EROFS are EPERM; [fs.ErrInvalid]
// and EINVAL are EINVAL; ENOMEM, ENOTSUP and ESHUTDOWN are themselves; all
// else, a panic and a short read included, is EIO. A request that reaches past
// the end is answered with ENOSPC (write, write zeroes) or EINVAL (any other),
// one that is not a multiple of Features.MinBlock with EINVAL; neither reaches
// the device. The connection stays usable after each of these.
//
// # Encryption
//
// With [Server].TLS clients can encrypt, with RequireTLS they have to, and a
// Handler that returns [ErrTLSRequired] demands it for one export. Client
// certificates are asked for and verified as TLS.ClientAuth says; whose it was
// is in [Request].TLS and [Request].CertName. What was negotiated before
// NBD_OPT_STARTTLS is forgotten, and a client that sends more along with it is
// cut. Without TLS there is no authentication but [Request].Client.
//
// # How requests are worked on
//
// A connection has one goroutine and, while nothing is in it, no buffer. All
// requests that have come are answered with one system call, of at most 1 MiB.
// On Linux the data of a device that is a [Mapper], as files, images and the
// overlays and roots over them are, goes from the page cache into the socket
// with it; what is encrypted, and all else, is copied. Mapped memory is shown
// to the kernel only: a file that is cut in place gives errors, no faults.
//
// The kernel's read-ahead, which would bring in up to MiBs for each read of a
// mapped file, is replaced: from a file that is mostly data, what is not in memory
// is read in units of 256 KiB, from a sparse one as it is asked for, and what
// follows a sequence is read ahead, as much as that is long, up to 4 MiB.
//
// A connection's requests are answered in their order, unless the device says
// that it is Slow (see [Features]): then up to 16 of them are worked on at the
// same time, each on a goroutine of its own, but for writes of more than 64 KiB,
// which are passed on as they come. A flush covers every write that was
// answered before it was sent, as the protocol has it.
//
// A machine that lost its power is found out by TCP: keepalive probes an idle
// connection every 15 s and gives it up after four, and what was sent may stay
// unacknowledged for a minute (TCP_USER_TIMEOUT, on Linux). The send buffer is
// left to the system, which makes it as large as the way to the client needs.
//
// # Caveats
//
// A read of more than 1 MiB is sent in pieces while it is read. When a later
// piece fails, the reply's header, which says success, is gone: to clients
// without structured replies, and to those that ask for the data in one chunk
// (NBD_CMD_FLAG_DF), nothing is left but to cut the connection.
//
// A write is passed on in pieces of at most 64 KiB, which end at a multiple of
// 4 KiB. When one fails, the ones before it stay written, as on a disk.
//
// Linux makes an I/O error of every error reply, of the ESHUTDOWN of a server
// that shuts down as well, whereas a client that reconnects can repeat requests
// that were not answered: see [Server].Handover.
//
// An encrypted connection holds its read buffer of 64 KiB while it is idle, one
// that is not encrypted holds none.
package nbd
