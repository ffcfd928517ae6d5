// Package nbdattach attaches NBD exports to block devices of Linux, /dev/nbd0
// and so on, and keeps them attached when the server goes away and comes back.
//
// # Model
//
// Linux speaks NBD's transmission phase itself. [Attach] connects to the
// server, negotiates the export, and hands the sockets to the kernel over
// generic netlink (linux/nbd-netlink.h, the family "nbd"), which answers with
// the device. From then on this process is not in the way of any byte; it
// listens for the kernel's word that a connection is dead, connects anew, and
// gives the kernel the new socket.
//
//	d, err := nbdattach.Attach(ctx, &nbdattach.Config{Addr: "192.0.2.1:10809", Export: "debian12"})
//	if err != nil { ... }
//	... mount d.Path() ...
//	err = d.Detach()
//
// [Adopt] does the second half only, for a device that something else has
// attached over netlink, such as the nbd-client of an initramfs.
//
// # What a restart of the server looks like
//
// While there is no connection, reads and writes wait, as long as
// Config.ReconnectFor; they fail with an I/O error after that. Requests that
// were under way when the connection died are sent again after Config.Timeout,
// those that come later as soon as there is a connection. Nothing fails that
// the server did not answer with an error: a server in good order cuts its
// connections without an answer (nbd.Server.Handover).
//
// The new connection must be the same export: the same size, read-only or not
// as before, and with every ability that the kernel was told of. If it is not,
// the device is detached, since the blocks of two images must not be mixed.
// So it is when the server has refused the export for Config.RefusedFor.
//
// An image replaced by another one of the same size cannot be told: name its
// exact generation where the server has such names.
//
// What the server acknowledged, and had not made durable when it was killed,
// the kernel does not write again: a server has to keep acknowledged writes
// over its own end, or refuse the client that comes back.
//
// # Requirements
//
// Linux 5.0 or newer with the module nbd (modprobe nbd), and CAP_SYS_ADMIN.
// Elsewhere everything fails with [errors.ErrUnsupported]. The kernel encrypts
// nothing: an export that demands TLS cannot be attached.
//
// A process that keeps a device for the machine's own root must not need that
// root to go on: see the example nbdattach, which is made for an initramfs.
package nbdattach
