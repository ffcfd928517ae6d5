package nbdattach

import (
	"context"
	"fmt"
	"io/fs"
	"sync"

	"github.com/seed-3ec230fa/diskless/nbd"
)

// clientDisconnectOnClose is NBD_CFLAG_DISCONNECT_ON_CLOSE of linux/nbd.h.
const clientDisconnectOnClose = 1 << 1

// Device is an attached block device. Its methods may be called concurrently.
type Device struct {
	s      *settings
	kernel kernel
	attrs  deviceAttrs // with the index
	conns  int
	flags  uint16

	ctx    context.Context // of the keeper
	cancel context.CancelFunc
	wake   chan struct{} // a connection died
	done   chan struct{} // the keeper has ended

	mu   sync.Mutex
	dead int // connections to replace; -1: as many as there are
	err  error
}

// Attach attaches an export to a device, and keeps it attached until Detach,
// Leave, or what ends the device: see Done. The context counts for connecting
// and the handshake.
//
// Refusals are those of [nbd.Dialer.Dial]; a device that is in use is EBUSY.
func Attach(ctx context.Context, c *Config) (*Device, error) {
	s, err := c.settings()
	if err != nil {
		return nil, err
	}
	k, err := newKernel()
	if err != nil {
		return nil, err
	}
	return attach(ctx, s, k)
}

func attach(ctx context.Context, s *settings, k kernel) (*Device, error) {
	first, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	conns := []*nbd.Negotiated{first}
	defer func() {
		// The kernel has its own reference to each socket.
		for _, n := range conns {
			n.Conn.Close()
		}
	}()
	d := newDevice(s, k)
	d.flags, d.attrs.size = first.Flags, uint64(first.Size)
	if s.ReadOnly {
		d.flags |= flagReadOnly
	}
	d.attrs.serverFlags = uint64(d.flags)
	if d.attrs.blockSize, err = s.blockSize(first); err != nil {
		return nil, err
	}
	if s.DisconnectOnClose {
		d.attrs.clientFlags = clientDisconnectOnClose
	}
	if s.Connections > 1 && first.Flags&flagMultiConn == 0 {
		s.Logger.Warn("nbdattach: the server does not allow several connections, one is used", "export", s.Export, "wanted", s.Connections)
		s.Connections = 1
	}
	for len(conns) < s.Connections {
		n, err := s.open(ctx)
		if err != nil {
			return nil, err
		}
		conns = append(conns, n)
		if err := d.same(n); err != nil {
			return nil, err
		}
	}
	d.conns = len(conns)
	stop, err := k.watch(d.lost) // before there is something to lose
	if err != nil {
		return nil, fmt.Errorf("nbdattach: %w", err)
	}
	err = withSockets(conns, func(fds []uintptr) error {
		index, err := k.connect(d.attrs, fds)
		d.setIndex(index)
		return err
	})
	if err != nil {
		stop()
		return nil, fmt.Errorf("nbdattach: attaching the export %q: %w", s.Export, err)
	}
	go d.keep(stop)
	return d, nil
}

// Adopt takes over a device that is attached to the export already, by
// somebody who has left it to the kernel: nbd-client (up to 3.26, without
// -nonetlink), or a Device that was left. It gives the device the timeouts of
// c and replaces connections that are dead. c.Device must be set; Connections,
// BlockSize and DisconnectOnClose stay as they are.
//
// size is the device's, in bytes, which every later connection must have; 0
// takes the word of the server for it, now. The context counts for connecting
// and the handshake.
func Adopt(ctx context.Context, c *Config, size int64) (*Device, error) {
	s, err := c.settings()
	if err != nil {
		return nil, err
	}
	k, err := newKernel()
	if err != nil {
		return nil, err
	}
	return adopt(ctx, s, k, size)
}

func adopt(ctx context.Context, s *settings, k kernel, size int64) (*Device, error) {
	if s.index < 0 || size < 0 {
		return nil, fmt.Errorf("nbdattach: taking over device %q of %d bytes: %w", s.Device, size, fs.ErrInvalid)
	}
	n, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	defer n.Conn.Close()
	d := newDevice(s, k)
	d.flags, d.attrs.size = n.Flags, uint64(n.Size)
	if s.ReadOnly {
		d.flags |= flagReadOnly
	}
	if size != 0 {
		d.attrs.size = uint64(size)
	}
	if err := d.same(n); err != nil {
		return nil, err
	}
	d.setIndex(s.index)
	stop, err := k.watch(d.lost)
	if err != nil {
		return nil, fmt.Errorf("nbdattach: %w", err)
	}
	d.lost(-1)
	if err := k.reconfigure(d.timeouts(), nil); err != nil {
		stop()
		return nil, fmt.Errorf("nbdattach: taking over %s: %w", d.Path(), err)
	}
	go d.keep(stop)
	return d, nil
}

func newDevice(s *settings, k kernel) *Device {
	d := &Device{
		s: s, kernel: k, wake: make(chan struct{}, 1), done: make(chan struct{}),
		attrs: deviceAttrs{index: s.index, timeout: s.timeout, dead: s.dead},
	}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d
}

func (d *Device) setIndex(i int) {
	d.mu.Lock()
	d.attrs.index = i
	d.mu.Unlock()
}

func (d *Device) index() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.attrs.index
}

// timeouts is what a device that exists is told: its size and flags stay.
func (d *Device) timeouts() deviceAttrs {
	return deviceAttrs{index: d.index(), timeout: d.attrs.timeout, dead: d.attrs.dead}
}

// Path returns the device's name, as in "/dev/nbd0".
func (d *Device) Path() string { return path(d.index()) }

func path(index int) string { return fmt.Sprintf("/dev/nbd%d", index) }

// Size returns the device's size in bytes.
func (d *Device) Size() int64 { return int64(d.attrs.size) }

// ReadOnly says whether the device refuses writes.
func (d *Device) ReadOnly() bool { return d.flags&flagReadOnly != 0 }

// Connections returns how many connections Attach made; 0 after Adopt.
func (d *Device) Connections() int { return d.conns }

// Done is closed when nobody keeps the device any more: after Detach and
// Leave, or when Err says what has happened to it.
func (d *Device) Done() <-chan struct{} { return d.done }

// Err is nil until Done is closed, and after Detach and Leave. Else it wraps
// [ErrDetached], [ErrChanged] or [ErrRefused].
func (d *Device) Err() error {
	select {
	case <-d.done:
		return d.err
	default:
		return nil
	}
}

// Leave ends the keeping of the device and leaves it attached. Requests still
// wait for Config.ReconnectFor when its connections die, for somebody to
// [Adopt] it.
func (d *Device) Leave() {
	d.cancel()
	<-d.done
}

// Detach writes out what is in the device's cache and detaches it. A device
// that is mounted or in use otherwise (EBUSY), or may be, because this process
// does not see its file, stays attached and kept.
func (d *Device) Detach() error {
	if err := d.kernel.flush(d.index()); err != nil {
		return fmt.Errorf("nbdattach: detaching %s: %w", d.Path(), err)
	}
	d.Leave()
	if err := d.kernel.disconnect(d.index()); err != nil && d.err == nil {
		return fmt.Errorf("nbdattach: detaching %s: %w", d.Path(), err)
	}
	return nil
}
