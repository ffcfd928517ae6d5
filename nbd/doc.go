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
// # Protocol
//
// The protocol is the one of https://github.com/NetworkBlockDevice/nbd,
// doc/proto.md. The server speaks fixed newstyle negotiation:
// NBD_OPT_EXPORT_NAME (with and without the 124 zeroes), NBD_OPT_GO,
// NBD_OPT_INFO, NBD_OPT_LIST and NBD_OPT_ABORT; any other option is answered
// with NBD_REP_ERR_UNSUP. In transmission it speaks simple replies:
// NBD_CMD_READ, NBD_CMD_WRITE and NBD_CMD_FLUSH, NBD_CMD_DISC, and
// NBD_CMD_FLAG_FUA on devices that can be written and flushed. Any other
// command is answered with EINVAL.
//
// The requests of one connection are answered one after the other, in order;
// connections run beside each other. Replies are sent together as long as
// complete requests are at hand.
//
// # Errors on the wire
//
// What a Device returns becomes an NBD error: [syscall.ENOSPC], EDQUOT and
// EFBIG are ENOSPC; [fs.ErrPermission] and EROFS are EPERM; [fs.ErrInvalid]
// and EINVAL are EINVAL; ENOMEM, ENOTSUP and ESHUTDOWN are themselves; all
// else, a panic and a short read included, is EIO. A request that reaches past
// the end is answered with EINVAL (read) or ENOSPC (write) and never reaches
// the device. The connection stays usable after each of these.
//
// # Caveats
//
// A read of more than 1 MiB is sent in pieces while it is read. When a later
// piece fails, the reply's header, which says success, is gone: simple replies
// leave nothing but to cut the connection.
//
// A write is passed on in pieces of at most 64 KiB, which end at a multiple of
// 4 KiB. When one fails, the ones before it stay written, as on a disk.
//
// Linux makes an I/O error of every error reply, of the ESHUTDOWN of a server
// that shuts down as well, whereas a client that reconnects can repeat requests
// that were not answered: see [Server].Handover.
//
// There is no encryption and no authentication: who may open what is for the
// Handler to decide, by [Request].Client.
package nbd
