package demo

import (
	"context"
	"errors"
	"log/slog"
	"net"

	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/internal/app"
	"github.com/seed-3ec230fa/diskless/internal/config"
)

// serve runs the composed server until the returned function is called, which
// waits for its end.
func serve(ctx context.Context, cfg config.Config, sockets app.Sockets, log *slog.Logger, p *printer) (stop func() error, err error) {
	c, err := config.New(cfg)
	if err != nil {
		return nil, err
	}
	a, err := app.New(ctx, c, log)
	if err != nil {
		return nil, err
	}
	ready, done := make(chan struct{}), make(chan error, 1)
	a.Ready = func() { close(ready) }
	a.Timeline.Logger = slog.New(slog.DiscardHandler) // the printer tells it
	a.Timeline.OnEvent = p.event
	ctx, cancel := context.WithCancel(ctx)
	go func() { done <- a.Run(ctx, sockets) }()
	stop = func() error {
		cancel()
		return <-done
	}
	select {
	case <-ready:
		return stop, nil
	case err := <-done:
		cancel()
		return nil, err
	}
}

// loopback opens the sockets of all roles on free ports of 127.0.0.1.
func loopback() (s app.Sockets, err error) {
	var errs [4]error
	s.DHCP, errs[0] = dhcp.Listen("127.0.0.1:0", "")
	s.TFTP, errs[1] = net.ListenPacket("udp4", "127.0.0.1:0")
	s.HTTP, errs[2] = net.Listen("tcp4", "127.0.0.1:0")
	s.NBD, errs[3] = net.Listen("tcp4", "127.0.0.1:0")
	return s, errors.Join(errs[:]...)
}

func portOf(a net.Addr) int {
	switch a := a.(type) {
	case *net.TCPAddr:
		return a.Port
	case *net.UDPAddr:
		return a.Port
	}
	return 0
}
