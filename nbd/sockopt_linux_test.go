package nbd_test

import (
	"context"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/nbd/nbdtest"
)

// A machine that lost its power is found out: by keepalive when it was idle,
// by the user timeout when a reply is on its way.
func TestDeadPeersAreFound(t *testing.T) {
	got := map[int]int{}
	addr := nbdtest.ServeServer(t, &nbd.Server{Logger: quiet, Handler: nbd.HandlerFunc(
		func(_ context.Context, r *nbd.Request) (nbd.Device, error) {
			sc, err := r.Conn.(*net.TCPConn).SyscallConn()
			if err != nil {
				return nil, err
			}
			return nbdtest.NewMemory(nil), sc.Control(func(fd uintptr) {
				for _, opt := range []int{unix.TCP_USER_TIMEOUT, unix.TCP_KEEPIDLE, unix.TCP_KEEPINTVL} {
					got[opt], _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, opt)
				}
			})
		})})
	dial(t, addr, "x")
	require.Equal(t, map[int]int{unix.TCP_USER_TIMEOUT: 60000, unix.TCP_KEEPIDLE: 15, unix.TCP_KEEPINTVL: 15}, got)
}
