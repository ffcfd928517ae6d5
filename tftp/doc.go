// Package tftp serves boot files by TFTP: RFC 1350 with the options of RFC
// 2347, 2348 (blksize) and 2349 (tsize), read requests only.
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
// # What the server does about its peers
//
// Anyone can send a request, with anyone's address in it. A name cannot lead
// out of the tree. Requests in flight are limited in total and for each
// address; a repeated request does not start a second transfer; the first
// datagram goes out three times at most, and an ERROR packet is smaller than
// what it answers or about as small. Nothing is sent in answer to a datagram
// that is no request. The text of a handler's error stays in the log, unless
// it is an [*Error]. Blocks are bounded by the MTU of the interface, so that
// no packet is fragmented. Each transfer has its own port, as RFC 1350 section
// 4 has it, and answers from the address that the client asked.
//
// A request for the size that the client ends with an ERROR before the first
// block, as PXE firmware does, is reported as [Result].Probe, not as a failure.
//
// # Known limits of the present engine
//
// Blocks are sent by github.com/pin/tftp, which reads nothing off the wire but
// acknowledgements on the sockets of its transfers. With it
//
//   - one block is in flight at a time: windowsize (RFC 7440) is not granted,
//     and neither is timeout (RFC 2349), nor a blksize below 512;
//   - a file that fails in the middle of a transfer is reported to the client
//     with code 1 instead of 0 (what fails before the first block has the
//     right code);
//   - block numbers begin again at 0 after 65535, which a few clients do not
//     expect: beyond 32 MiB without blksize;
//   - each transfer holds a socket and two goroutines; a client asking an
//     address other than the one the system answers it from costs two sockets
//     and two goroutines more;
//   - a file asked for by two clients is read twice, whatever its ID;
//   - transfers cannot stay on the port of the requests, so a client behind
//     address translation must not lose the mapping of an ephemeral port.
package tftp
