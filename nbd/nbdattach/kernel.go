package nbdattach

import "errors"

// kernel is what Linux offers over generic netlink.
type kernel interface {
	// connect makes a device of sockets, which the kernel then holds too.
	connect(d deviceAttrs, sockets []uintptr) (index int, err error)
	// reconfigure sets a device's timeouts and gives it sockets in the place
	// of dead ones. The error is errNoDead when none is dead, and errDetached
	// when there is no such device.
	reconfigure(d deviceAttrs, sockets []uintptr) error
	disconnect(index int) error
	// flush makes a device that is not in use durable.
	flush(index int) error
	attached(index int) (bool, error)
	// watch calls dead with the index of a device each time one of its
	// connections dies, and with -1 when it may have missed that, from a
	// goroutine that ends with stop.
	watch(dead func(index int)) (stop func(), err error)
}

// deviceAttrs is what the kernel is told of a device. Zero values are not told.
type deviceAttrs struct {
	index                    int // -1: the first that is free
	size, blockSize          uint64
	timeout, dead            uint64 // seconds
	serverFlags, clientFlags uint64
}

var (
	errNoDead = errors.New("no connection of the device is dead")
	// ErrDetached is that of a device which somebody else has detached.
	ErrDetached = errors.New("nbdattach: the device is not attached any more")
	// ErrChanged is that of a device which was detached because its export
	// had become another one.
	ErrChanged = errors.New("nbdattach: the export is not the same as before")
	// ErrRefused is that of a device which was detached because the server
	// had refused it for as long as Config.RefusedFor.
	ErrRefused = errors.New("nbdattach: the server refuses the export, and no request is kept waiting for it any longer")
)
