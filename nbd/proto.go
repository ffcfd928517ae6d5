package nbd

import (
	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// The numbers of doc/proto.md that go-nbd's protocol package does not have.
const (
	flagFixedNewstyle = protocol.NEGOTIATION_HANDSHAKE_FLAG_FIXED_NEWSTYLE
	flagNoZeroes      = uint16(1 << 1)

	optExportName = uint32(1)

	repErrPolicy   = uint32(1<<31 | 2)
	repErrInvalid  = uint32(1<<31 | 3)
	repErrShutdown = uint32(1<<31 | 7)
	repErrTooBig   = uint32(1<<31 | 9)

	transReadOnly  = uint16(1 << 1)
	transSendFlush = uint16(1 << 2)
	transSendFUA   = uint16(1 << 3)

	cmdFlush   = uint16(3)
	cmdFlagFUA = uint16(1 << 0)

	wireEIO       = uint32(5)
	wireENOMEM    = uint32(12)
	wireENOSPC    = uint32(28)
	wireENOTSUP   = uint32(95)
	wireESHUTDOWN = uint32(108)

	maxNameLen = 4096 // every string of the protocol, in bytes

	optionHeaderLen  = 16
	requestHeaderLen = 28
	replyHeaderLen   = 16
)

// transmissionFlags says to the client what f says.
func transmissionFlags(f Features) uint16 {
	flags := protocol.NEGOTIATION_REPLY_FLAGS_HAS_FLAGS
	if !f.Write {
		flags |= transReadOnly
	}
	if f.Flush {
		flags |= transSendFlush
	}
	if f.Write && f.Flush {
		flags |= transSendFUA
	}
	if f.MultiConn {
		flags |= protocol.NEGOTIATION_REPLY_FLAGS_CAN_MULTI_CONN
	}
	return flags
}
