package dhcp

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestARPConflict(t *testing.T) {
	frame := arpRequest(macA, ip("10.0.0.9"))
	require.Len(t, frame, 42)
	require.False(t, arpConflict(frame, ip("10.0.0.9"), macB, macC), "somebody asks for it, and says not to have it")
	copy(frame[14+14:], []byte{10, 0, 0, 9})
	require.True(t, arpConflict(frame, ip("10.0.0.9"), macB, macC))
	require.False(t, arpConflict(frame, ip("10.0.0.9"), macA, macC), "the client itself")
	require.False(t, arpConflict(frame, ip("10.0.0.9"), macB, macA), "this machine")
	require.False(t, arpConflict(frame, ip("10.0.0.8"), macB, macC))
	require.False(t, arpConflict(frame[:41], ip("10.0.0.9"), macB, macC))
}
