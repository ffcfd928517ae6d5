package nbd

import "github.com/pojntfx/go-nbd/pkg/protocol"

// The numbers of doc/proto.md that go-nbd's protocol package does not have.
const (
	magicOldstyle   = uint64(0x00420281861253)
	magicStructured = uint32(0x668e33ef)

	flagFixedNewstyle = protocol.NEGOTIATION_HANDSHAKE_FLAG_FIXED_NEWSTYLE
	flagNoZeroes      = uint16(1 << 1)

	optExportName      = uint32(1)
	optStartTLS        = uint32(5)
	optStructuredReply = uint32(8)
	optListMetaContext = uint32(9)
	optSetMetaContext  = uint32(10)

	repMetaContext = uint32(4)
	repErrPolicy   = uint32(1<<31 | 2)
	repErrInvalid  = uint32(1<<31 | 3)
	repErrTLSReqd  = uint32(1<<31 | 5)
	repErrShutdown = uint32(1<<31 | 7)
	repErrTooBig   = uint32(1<<31 | 9)

	transReadOnly     = uint16(1 << 1)
	transSendFlush    = uint16(1 << 2)
	transSendFUA      = uint16(1 << 3)
	transSendTrim     = uint16(1 << 5)
	transSendZeroes   = uint16(1 << 6)
	transSendDF       = uint16(1 << 7)
	transSendCache    = uint16(1 << 10)
	transSendFastZero = uint16(1 << 11)

	cmdFlush       = uint16(3)
	cmdTrim        = uint16(4)
	cmdCache       = uint16(5)
	cmdWriteZeroes = uint16(6)
	cmdBlockStatus = uint16(7)

	cmdFlagFUA      = uint16(1 << 0)
	cmdFlagNoHole   = uint16(1 << 1)
	cmdFlagDF       = uint16(1 << 2)
	cmdFlagReqOne   = uint16(1 << 3)
	cmdFlagFastZero = uint16(1 << 4)

	chunkDone        = uint16(1 << 0) // the only chunk flag
	chunkNone        = uint16(0)
	chunkData        = uint16(1)
	chunkHole        = uint16(2)
	chunkBlockStatus = uint16(5)
	chunkIsError     = uint16(1 << 15)
	chunkError       = chunkIsError | 1
	chunkErrorOffset = chunkIsError | 2

	stateHole = uint32(1 << 0)
	stateZero = uint32(1 << 1)

	wireEIO       = uint32(5)
	wireENOMEM    = uint32(12)
	wireENOSPC    = uint32(28)
	wireEOVERFLOW = uint32(75)
	wireENOTSUP   = uint32(95)
	wireESHUTDOWN = uint32(108)

	maxNameLen = 4096 // every string of the protocol, in bytes

	optionHeaderLen  = 16
	requestHeaderLen = 28
	replyHeaderLen   = 16
	chunkHeaderLen   = 20

	// The one metadata context there is, and its number.
	metaAllocation = "base:allocation"
	metaID         = uint32(1)
)

// transmissionFlags says to the client what f says.
func transmissionFlags(f Features, structured bool) uint16 {
	flags := protocol.NEGOTIATION_REPLY_FLAGS_HAS_FLAGS
	add := func(on bool, flag uint16) {
		if on {
			flags |= flag
		}
	}
	add(!f.Write, transReadOnly)
	add(f.Flush, transSendFlush)
	add(f.Write && f.Flush, transSendFUA)
	add(f.Trim, transSendTrim)
	add(f.Zero, transSendZeroes)
	add(f.FastZero, transSendFastZero)
	add(f.Cache, transSendCache)
	add(f.MultiConn, protocol.NEGOTIATION_REPLY_FLAGS_CAN_MULTI_CONN)
	add(structured, transSendDF)
	return flags
}
