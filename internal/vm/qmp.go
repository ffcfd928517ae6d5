package vm

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"sync"
	"time"
)

// monitor is QEMU's machine protocol on one connection: a command, and then
// messages until the one that answers it.
type monitor struct {
	mu   sync.Mutex
	conn net.Conn
	dec  *json.Decoder
}

// greet waits until QEMU has made the machine, and makes ready for commands.
func (q *monitor) greet(ctx context.Context) error {
	q.dec = json.NewDecoder(q.conn)
	return q.do(ctx, "qmp_capabilities")
}

func (q *monitor) do(ctx context.Context, command string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { q.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := fmt.Fprintf(q.conn, "{\"execute\":%q}\n", command); err != nil {
		return fmt.Errorf("QEMU's monitor: %w", err)
	}
	for {
		var m struct {
			Return *json.RawMessage `json:"return"`
			Error  *struct {
				Desc string `json:"desc"`
			} `json:"error"`
		}
		if err := q.dec.Decode(&m); err != nil {
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			return fmt.Errorf("QEMU's monitor: %w", err)
		}
		switch {
		case m.Error != nil:
			return fmt.Errorf("QEMU refuses %s: %s", command, m.Error.Desc)
		case m.Return != nil:
			return nil
		}
	}
}
