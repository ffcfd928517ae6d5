package tftp

import (
	"io"
	"log/slog"
	"math"
	"net"
	"strconv"
	"sync"
	"time"

	pin "github.com/pin/tftp/v3"
)

// engine sends files with pin/tftp, which sees only what it is safe with: it
// reads its requests from this net.PacketConn, where each is one that we have
// checked, opened the file for and written anew, and it never writes here, as
// every transfer has a socket of its own.
type engine struct {
	server  *pin.Server
	log     *slog.Logger
	queue   chan *transfer
	closed  chan struct{}
	stopped chan struct{}

	current *transfer // last taken from the queue; used by the goroutine of Serve only

	mu      sync.Mutex
	serial  uint64
	running map[string]*transfer // by the key that stands for the file name
}

func newEngine(timeout time.Duration, log *slog.Logger) *engine {
	e := &engine{
		log:     log,
		queue:   make(chan *transfer),
		closed:  make(chan struct{}),
		stopped: make(chan struct{}),
		running: make(map[string]*transfer),
	}
	e.server = pin.NewServer(e.read, nil)
	e.server.SetHook(e)
	e.server.SetTimeout(timeout)
	e.server.SetRetries(math.MaxInt)        // transfer.backoff decides
	e.server.SetBlockSizeNegotiation(false) // routeTo decides
	go func() {                             // ends in stop
		defer close(e.stopped)
		if err := e.server.Serve(e); err != nil {
			e.log.Error("tftp: engine", "error", err)
		}
	}()
	return e
}

// run sends one file and returns when that is over. It is false when nothing
// could be sent, with t.err as the reason.
func (e *engine) run(t *transfer) bool {
	e.mu.Lock()
	e.serial++
	key := strconv.FormatUint(e.serial, 36)
	e.running[key] = t
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		delete(e.running, key)
		e.mu.Unlock()
	}()
	t.key = key
	e.queue <- t
	<-t.finished
	return !t.unsent
}

// stop ends the engine. No transfer may run any more.
func (e *engine) stop() {
	close(e.closed)
	e.server.Shutdown()
	<-e.stopped
}

// read is pin's handler, on a goroutine of the transfer.
func (e *engine) read(key string, rf io.ReaderFrom) error {
	e.mu.Lock()
	t := e.running[key]
	e.mu.Unlock()
	t.send(rf)
	close(t.finished)
	return nil // whatever there was to say has been sent
}

// OnFailure is pin's hook. Without a name it is about the last request, for
// which pin got no socket, on the goroutine that reads the requests.
func (e *engine) OnFailure(st pin.TransferStats, err error) {
	if st.Filename != "" { // on the goroutine of a transfer
		return
	}
	if t := e.current; t != nil {
		e.current = nil
		t.err, t.unsent = err, true
		close(t.finished)
	}
}

// OnSuccess is pin's other hook.
func (e *engine) OnSuccess(pin.TransferStats) {}

// ReadFrom hands pin the next request. What is set here holds for it alone:
// pin copies its settings into the transfer before it reads again.
func (e *engine) ReadFrom(p []byte) (int, net.Addr, error) {
	e.current = nil
	select {
	case t := <-e.queue:
		e.current = t
		e.server.SetBackoff(t.backoff)
		return copy(p, t.q.encode(t.key, t.size)), net.UDPAddrFromAddrPort(t.peer), nil
	case <-e.closed:
		return 0, nil, net.ErrClosed
	}
}

// The rest of net.PacketConn, as far as pin calls it.

func (e *engine) LocalAddr() net.Addr                   { return &net.UDPAddr{IP: net.IPv4zero} }
func (e *engine) WriteTo([]byte, net.Addr) (int, error) { return 0, net.ErrClosed }
func (e *engine) Close() error                          { return nil }
func (e *engine) SetDeadline(time.Time) error           { return nil }
func (e *engine) SetReadDeadline(time.Time) error       { return nil }
func (e *engine) SetWriteDeadline(time.Time) error      { return nil }
