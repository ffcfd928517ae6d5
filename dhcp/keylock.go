package dhcp

import "sync"

// keyLock is a mutex per key. The zero value is ready to use. It holds no
// memory for keys that are not locked.
type keyLock struct {
	mu    sync.Mutex
	locks map[string]*keyEntry
}

type keyEntry struct {
	mu    sync.Mutex
	users int // holding or waiting
}

// lock waits for the key and returns what unlocks it.
func (k *keyLock) lock(key string) (unlock func()) {
	k.mu.Lock()
	e := k.locks[key]
	if e == nil {
		if k.locks == nil {
			k.locks = make(map[string]*keyEntry)
		}
		e = new(keyEntry)
		k.locks[key] = e
	}
	e.users++
	k.mu.Unlock()
	e.mu.Lock()
	return func() {
		e.mu.Unlock()
		k.mu.Lock()
		defer k.mu.Unlock()
		if e.users--; e.users == 0 {
			delete(k.locks, key)
		}
	}
}
