package nbd

import (
	"context"
	"sync"
)

// StatsByClient is a [Handler] that counts what is done with Handler's devices,
// with a [Stats] for each client and export. Its fields must not change while
// it serves; its methods may be called concurrently.
type StatsByClient struct {
	// Handler opens the devices.
	Handler Handler
	// Key says who a request is counted for; nil is the client's IP address
	// and, after a space, the export's name.
	Key func(*Request) string
	// MaxKeys is how many are kept apart; 0 is 4096, a negative value all.
	// When there are more, the one that has been closed longest is added up
	// under the key "". So are new ones while all are open.
	MaxKeys int

	mu    sync.Mutex
	byKey map[string]*clientStats
	idle  uint64 // counts the times that a key had its last device closed
}

type clientStats struct {
	Stats
	open  int
	since uint64 // its number in the order of becoming idle
}

// OpenNBD opens the Handler's device, counted. With PurposeInfo it is not.
func (s *StatsByClient) OpenNBD(ctx context.Context, r *Request) (Device, error) {
	dev, err := s.Handler.OpenNBD(ctx, r)
	if err != nil || dev == nil || r.Purpose == PurposeInfo {
		return dev, err
	}
	key := clientKey(r) + " " + r.Export
	if s.Key != nil {
		key = s.Key(r)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.byKey[key]
	if c == nil {
		c = s.newKey(key)
	}
	c.open++
	return &clientDevice{filtered: c.Filter(dev).(*filtered), closed: func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.idle++
		c.open, c.since = c.open-1, s.idle
	}}, nil
}

// newKey makes room for a key; s.mu is held.
func (s *StatsByClient) newKey(key string) *clientStats {
	if s.byKey == nil {
		s.byKey = make(map[string]*clientStats)
	}
	most := limit(s.MaxKeys, 4096, int(^uint(0)>>1))
	if _, ok := s.byKey[""]; ok && most < int(^uint(0)>>1) {
		most++ // "" is beside them
	}
	if len(s.byKey) >= most {
		oldest := ""
		for k, c := range s.byKey {
			if k != "" && c.open == 0 && (oldest == "" || c.since < s.byKey[oldest].since) {
				oldest = k
			}
		}
		rest := s.byKey[""]
		if rest == nil {
			rest = new(clientStats)
			s.byKey[""] = rest
		}
		if oldest == "" {
			return rest
		}
		rest.add(&s.byKey[oldest].Stats)
		delete(s.byKey, oldest)
	}
	c := new(clientStats)
	s.byKey[key] = c
	return c
}

// ListNBD lists what the Handler lists.
func (s *StatsByClient) ListNBD(ctx context.Context, r *Request) ([]ExportInfo, error) {
	return listOf(ctx, s.Handler, r)
}

// Snapshot returns the counts as they are now, by key.
func (s *StatsByClient) Snapshot() map[string]StatsSnapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]StatsSnapshot, len(s.byKey))
	for key, c := range s.byKey {
		out[key] = c.Snapshot()
	}
	return out
}

// clientDevice is a device whose closing is heard.
type clientDevice struct {
	*filtered
	once   sync.Once
	closed func()
}

func (d *clientDevice) Close() error {
	err := d.filtered.Close()
	d.once.Do(d.closed)
	return err
}
