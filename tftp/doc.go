// Package tftp serves boot files by TFTP: RFC 1350 with the options of RFC
// 2347, 2348 (blksize), 2349 (tsize, timeout) and 7440 (windowsize), octet and
// netascii, over IPv4 and IPv6.
//
// # Model
//
// A [Handler] gets one client's [Request] and returns a [File] or an error;
// the [Server] does the sending. [FileServerFS] is the handler for a tree,
// [FSFunc] the one for trees that depend on the client, and [First] asks
// several in order. A handler that renders what it returns is "scripting over
// TFTP". Nothing here knows about directories: a tree is an [io/fs.FS], and
// the same one can be served over HTTP. [Dir] is a directory as such a tree,
// out of which no name and no symbolic link leads, and [Union] lays several
// trees over each other.
//
//	images, err := tftp.Dir("/srv/tftp", nil)
//	...
//	srv := &tftp.Server{Handler: tftp.FileServerFS(tftp.Union(
//		tftp.Mount{FS: rendered}, // what is made for each client comes first
//		tftp.Mount{FS: images},
//		tftp.Mount{Path: "ipxe", FS: loaders},
//	))}
//	err = srv.ListenAndServe()
//
// [Mux] gives each directory its handler, [Rewrite] changes names by rules such
// as those of tftpd-hpa's map files ([ParseMap]), and [FoldCase] makes a tree
// match in any case. An [Uploader] takes files, [Uploads] into a directory;
// without one all write requests are refused.
//
// # Transfers
//
// A transfer has a port of its own, as RFC 1350 section 4 has it, or stays on
// the port of the requests, with [Server].OnePort: for address translation,
// containers and strict firewalls. Ports of their own are the default, because
// a stranger must then guess one to forge an acknowledgement, the system says
// when a client has gone, and several processors share the work.
//
// Block numbers begin again at 0 after 65535. A file with an ID is read once for
// all clients that read it at the same time; what they share is kept as framed
// packets, in [Server].CacheSize bytes. Files of the operating system have one,
// and those of a tree that is [Immutable]. A transfer of a file without one keeps
// some 16 KiB, or two blocks where they are larger. netascii is sent block by
// block, and its size is not known beforehand.
//
// A datagram that stays unanswered is sent again after a few round trips of its
// client, the wait doubling; a client that has lost a block of a window gets
// it, and what follows, at once. Repeated and late acknowledgements cause no
// traffic of their own (RFC 1123 section 4.2.3.1).
//
// On Linux with a [*net.UDPConn] a window goes out in one system call (UDP
// segmentation), and packets are handled on the thread that received them: one
// thread for OnePort, else up to four, and one less than there are processors,
// so that a busy server leaves one to the rest of the program. As long as a few
// clients (up to four) answer within some 75 µs, as those on the same machine
// do, their thread stays awake between two packets, at full load: to be woken
// would take longer. Any other conn and system works, with one port for all.
//
// # What the server does about its peers
//
// Anyone can send a request, with anyone's address in it. A name cannot lead
// out of the tree. Requests in flight are limited in total and for each
// address, and so are bytes per second, where that is wanted; a repeated
// request does not start a second transfer; the first datagram goes out three
// times at most, and an ERROR packet is smaller than what it answers or about
// as small. With OnePort a forged request can be followed by forged
// acknowledgements: then limits and the network have to protect the others.
// Nothing is sent in answer to a datagram that is no request. The text of a
// handler's error stays in the log, unless it is an [*Error]. Blocks are bounded
// by the MTU of the path, as far as the system knows it, so that no packet is
// fragmented. The client is answered from the address that it asked.
//
// A request for the size that the client ends with an ERROR before the first
// block, as PXE firmware does, is reported as [Result].Probe, not as a failure.
package tftp
