package nbd

import (
	"context"
	"fmt"
	"sync"
	"syscall"
)

// clientKey is who a request is counted for unless a caller says otherwise:
// the IP address, "" for connections that have none.
func clientKey(r *Request) string {
	if ip := r.Client.Addr(); ip.IsValid() {
		return ip.String()
	}
	return ""
}

// ConnLimit is a [Handler] that bounds how many of Handler's devices are open
// at the same time; [Server].MaxConns bounds connections before their
// handshake. One that is too many is refused with an error that wraps
// [syscall.EBUSY], which a client is told as "not available now"
// (NBD_REP_ERR_SHUTDOWN). Looks (PurposeInfo) are not counted. Its fields must
// not change while it serves.
type ConnLimit struct {
	// Handler opens the devices.
	Handler Handler
	// PerClient is how many one client may have open; 0 or less is no limit.
	PerClient int
	// Total is how many all clients together may have open; 0 or less is no
	// limit.
	Total int
	// Key says which client a request is of; nil goes by its IP address.
	Key func(*Request) string

	mu    sync.Mutex
	total int
	byKey map[string]int
}

// OpenNBD opens the Handler's device if there is room.
func (l *ConnLimit) OpenNBD(ctx context.Context, r *Request) (Device, error) {
	if r.Purpose == PurposeInfo {
		return l.Handler.OpenNBD(ctx, r)
	}
	key := clientKey(r)
	if l.Key != nil {
		key = l.Key(r)
	}
	if err := l.take(key); err != nil {
		return nil, err
	}
	dev, err := l.Handler.OpenNBD(ctx, r)
	if err != nil || dev == nil {
		l.give(key)
		return nil, err
	}
	return &limited{Pass: Pass{dev}, give: func() { l.give(key) }}, nil
}

// ListNBD lists what the Handler lists.
func (l *ConnLimit) ListNBD(ctx context.Context, r *Request) ([]ExportInfo, error) {
	return listOf(ctx, l.Handler, r)
}

func (l *ConnLimit) take(key string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.Total > 0 && l.total >= l.Total:
		return fmt.Errorf("nbd: %d devices are open, the most that Total allows: %w", l.total, syscall.EBUSY)
	case l.PerClient > 0 && l.byKey[key] >= l.PerClient:
		return fmt.Errorf("nbd: client %q has %d devices open, the most that PerClient allows: %w", key, l.byKey[key], syscall.EBUSY)
	}
	if l.byKey == nil {
		l.byKey = make(map[string]int)
	}
	l.total++
	l.byKey[key]++
	return nil
}

func (l *ConnLimit) give(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if l.byKey[key]--; l.byKey[key] == 0 {
		delete(l.byKey, key)
	}
}

type limited struct {
	Pass
	once sync.Once
	give func()
}

func (d *limited) Close() error {
	err := d.Pass.Close()
	d.once.Do(d.give)
	return err
}
