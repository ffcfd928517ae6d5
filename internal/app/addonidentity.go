package app

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/crypto/ssh"
)

// identity is what makes a machine another one than its image's other machines.
type identity struct {
	MachineID string `json:"machine-id"`
	HostKey   string `json:"ssh_host_ed25519_key"`
}

func newIdentity(name string) (*identity, error) {
	var id [16]byte
	_, _ = rand.Read(id[:])
	id[6] = id[6]&0x0f | 0x40 // machine-id(5): as a UUID of version 4
	id[8] = id[8]&0x3f | 0x80
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(key, "root@"+name)
	if err != nil {
		return nil, err
	}
	return &identity{hex.EncodeToString(id[:]), string(pem.EncodeToMemory(block))}, nil
}

// identity is the same each time: in server.state, or as long as this server
// runs.
func (d *addons) identity(machine string) (*identity, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if id := d.identities[machine]; id != nil {
		return id, nil
	}
	id, err := newIdentity(machine)
	if err != nil {
		return nil, err
	}
	if state := d.app.cfg.Server.State; state != "" {
		dir := filepath.Join(state, "identities")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		data, err := keepFile(filepath.Join(dir, machine+".json"), func() ([]byte, error) { return json.Marshal(id) })
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(data, id); err != nil {
			return nil, err
		}
	}
	d.identities[machine] = id
	return id, nil
}

// keepFile reads a file, which is made before if it is not there.
func keepFile(file string, content func() ([]byte, error)) ([]byte, error) {
	data, err := os.ReadFile(file)
	if !errors.Is(err, fs.ErrNotExist) {
		return data, err
	}
	if data, err = content(); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".new-*") // mode 0600
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	return data, err
}
