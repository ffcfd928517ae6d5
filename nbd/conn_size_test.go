package nbd

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// A connection is idle for most of its life, and a server has thousands. With
// the runtime's word for objects with pointers, 768 bytes are a size class; the
// next one is 896.
func TestConnIsSmall(t *testing.T) {
	if !canMap {
		t.Skip("for 64-bit Linux")
	}
	require.LessOrEqual(t, unsafe.Sizeof(conn{}), uintptr(760))
}
