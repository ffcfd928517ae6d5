package nbd

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const rootStateVersion = 1

// rootState is root.json.
type rootState struct {
	Version int    `json:"version"`
	Image   string `json:"image"`
	Kind    Kind   `json:"kind"`
	// Generation is the digest of the base; Overlay the directory. Both are
	// "" after a reset.
	Generation string `json:"generation,omitempty"`
	Overlay    string `json:"overlay,omitempty"`
	// Opened is the sequence number of the newest token opened, in base 36.
	Opened   string    `json:"opened"`
	OpenedAt time.Time `json:"openedAt"`
	Created  time.Time `json:"created"`
	// UsedAt is when its last connection ended; it is missing while there is
	// one, and so after a crash.
	UsedAt time.Time `json:"usedAt,omitzero"`
	// Layers are the frozen overlays between base and overlay, the lowest
	// first.
	Layers []string `json:"layers,omitempty"`
	// Lost is the Opened of a boot that is refused because the host ended
	// before it had flushed everything.
	Lost string `json:"lost,omitempty"`
}

func (s *rootState) opened() int64 {
	seq, _ := parseSeq(s.Opened)
	return seq
}

// kept reports whether there is data that no boot may throw away.
func (s *rootState) kept() bool { return s.Kind == Kept && s.Overlay != "" }

// lost reports whether the newest boot is refused.
func (s *rootState) lost() bool { return s.Lost != "" && s.Lost == s.Opened }

// conflict is what speaks against a boot with this image and kind on a root
// that is kept.
func (s *rootState) conflict(rootName, image string, kind Kind) error {
	switch {
	case kind != Kept:
		return fmt.Errorf("nbd: root %s is kept and would lose its data as an ephemeral one: reset or delete it first, or boot it as kept: %w", rootName, fs.ErrPermission)
	case image != s.Image:
		return fmt.Errorf("nbd: root %s is kept over image %s, not %s: reset or delete it first, or boot it with its own image: %w", rootName, s.Image, image, fs.ErrPermission)
	}
	return nil
}

func parseRootState(text []byte) (rootState, error) {
	var s rootState
	if err := json.Unmarshal(text, &s); err != nil {
		return rootState{}, fmt.Errorf("root.json: %w", err)
	}
	_, ok := parseSeq(s.Opened)
	switch {
	case s.Version != rootStateVersion:
		return rootState{}, fmt.Errorf("root.json is of version %d, this program knows %d: %w", s.Version, rootStateVersion, fs.ErrInvalid)
	case !validPart(s.Image, "."), !ok:
		return rootState{}, fmt.Errorf("root.json has no image or no token: %w", fs.ErrInvalid)
	case (s.Generation == "") != (s.Overlay == ""),
		s.Generation != "" && (len(s.Generation) != maxGeneration || !validGeneration(s.Generation)),
		s.Overlay != "" && !validPart(s.Overlay, ""):
		return rootState{}, fmt.Errorf("root.json: its generation or its overlay is not one: %w", fs.ErrInvalid)
	case len(s.Layers) > maxLayers, s.Overlay == "" && len(s.Layers) > 0,
		slices.ContainsFunc(s.Layers, func(id string) bool { return len(id) != layerDigits || !validGeneration(id) }):
		return rootState{}, fmt.Errorf("root.json: its layers are none: %w", fs.ErrInvalid)
	}
	return s, nil
}

func (rs *Roots) rootDir(name string) string { return filepath.Join(rs.Dir, "roots", name) }
func (rs *Roots) overlayDir(r *root) string {
	return filepath.Join(rs.rootDir(r.name), r.state.Overlay)
}
func (rs *Roots) statePath(name string) string { return filepath.Join(rs.rootDir(name), "root.json") }
func (rs *Roots) floorPath() string            { return filepath.Join(rs.Dir, "deleted.json") }
func (rs *Roots) pinName(digest string) string {
	return digest[:min(GenerationDigits, len(digest))] + ".img"
}
func (rs *Roots) stored() bool { return rs.Dir != "" }

// pinPath is where a generation is linked, "" without Dir.
func (rs *Roots) pinPath(digest string) string {
	if !rs.stored() {
		return ""
	}
	return filepath.Join(rs.Dir, "images", rs.pinName(digest))
}

// load reads Dir, once it works.
func (rs *Roots) load() error {
	rs.loadMu.Lock()
	defer rs.loadMu.Unlock()
	if rs.closed {
		return errRootsClosed
	}
	if rs.loaded {
		return nil
	}
	if rs.Images == nil {
		return fmt.Errorf("nbd: roots: Images is not set: %w", fs.ErrInvalid)
	}
	rs.roots, rs.pins = make(map[string]*root), make(map[string]int)
	rs.layers, rs.layerRefs = make(map[string]*layer), make(map[string]int)
	rs.loadedAt = rs.now()
	if !rs.stored() {
		rs.secret = make([]byte, 32)
		rand.Read(rs.secret)
		rs.loaded = true
		return nil
	}
	err := rs.loadDir()
	if err != nil {
		if rs.lock != nil {
			rs.lock.Close()
			rs.lock = nil
		}
		return fmt.Errorf("nbd: roots in %s: %w", rs.Dir, err)
	}
	rs.loaded = true
	return nil
}

func (rs *Roots) loadDir() error {
	for _, dir := range []string{"", "roots", "images", "layers"} {
		if err := rs.disk.mkdirAll(filepath.Join(rs.Dir, dir), 0o700); err != nil {
			return err
		}
	}
	var err error
	if rs.lock, err = lockDir(rs.Dir); err != nil {
		return err
	}
	if rs.secret, err = rs.loadSecret(); err != nil {
		return err
	}
	if rs.floor, err = loadFloor(rs.floorPath()); err != nil {
		return err
	}
	if err := rs.sweepDeleted(); err != nil {
		return err
	}
	entries, err := os.ReadDir(filepath.Join(rs.Dir, "roots"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() || !validPart(e.Name(), "") {
			continue
		}
		r := &root{name: e.Name(), sem: make(chan struct{}, 1)}
		empty, err := rs.loadRoot(r)
		switch {
		case err != nil:
			r.bad = fmt.Errorf("nbd: root %s cannot be used, restore its files or delete it: %w", r.name, err)
			rs.logger().Warn("nbd: root cannot be used", "root", r.name, "err", err)
			rs.bad = true
		case empty:
			continue
		}
		r.show()
		rs.roots[r.name] = r
		if r.state.Generation != "" {
			rs.pins[r.state.Generation]++
		}
		rs.refLayers(r.state.Layers)
	}
	return errors.Join(rs.sweepPins(), rs.sweepLayers())
}

// loadRoot reads a root's state and removes what a crash left beside it.
func (rs *Roots) loadRoot(r *root) (empty bool, err error) {
	dir := rs.rootDir(r.name)
	text, err := os.ReadFile(rs.statePath(r.name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// Either its first boot got no further than this, and nothing was
		// ever written, or root.json was lost.
		if err := rs.onlyEmptyOverlays(dir); err != nil {
			return false, err
		}
		return true, rs.disk.removeAll(dir)
	case err != nil:
		return false, err
	}
	state, err := parseRootState(text)
	if err != nil {
		return false, err
	}
	r.state = state
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		// Overlays are named like tokens; anything else is not ours to remove.
		if _, ok := parseSeq(e.Name()); ok && e.IsDir() && e.Name() != state.Overlay {
			err = errors.Join(err, rs.disk.removeAll(filepath.Join(dir, e.Name())))
		}
	}
	return false, err
}

func (rs *Roots) onlyEmptyOverlays(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if _, ok := parseSeq(e.Name()); !ok || !e.IsDir() {
			if e.Name() == "root.json.new" {
				continue
			}
			return fmt.Errorf("root.json is missing: %w", fs.ErrNotExist)
		}
		if used, err := overlayUsage(filepath.Join(dir, e.Name())); used > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("root.json is missing, and there is data: %w", errors.Join(fs.ErrNotExist, err))
		}
	}
	return err
}

// overlayUsage counts the bytes stored in an overlay that is not open.
func overlayUsage(dir string) (int64, error) {
	text, err := os.ReadFile(filepath.Join(dir, overlayMapName))
	if err != nil || len(text) < mapPageBytes {
		return 0, err
	}
	var blocks int64
	for text = text[mapPageBytes:]; len(text) >= mapChunkBytes; text = text[mapChunkBytes:] {
		own, zero, _ := decodeChunk(text)
		blocks += int64(bits.OnesCount64(own &^ zero))
	}
	return blocks * overlayBlock, nil
}

func (rs *Roots) loadSecret() ([]byte, error) {
	path := filepath.Join(rs.Dir, "secret")
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		secret := make([]byte, 32)
		rand.Read(secret)
		return secret, rs.disk.writeFile(path, []byte(hex.EncodeToString(secret)+"\n"), 0o600)
	}
	if err != nil {
		return nil, err
	}
	secret, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(secret) < 16 {
		return nil, fmt.Errorf("%s is not at least 32 hexadecimal digits: remove it, and all machines must boot again: %w", path, fs.ErrInvalid)
	}
	return secret, nil
}

type floorState struct {
	NewestToken string `json:"newestToken"`
}

func loadFloor(path string) (int64, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	var state floorState
	err = json.Unmarshal(text, &state)
	seq, ok := parseSeq(state.NewestToken)
	if err != nil || !ok {
		return 0, fmt.Errorf("%s is damaged: remove it when no machine runs on a deleted root: %w", path, fs.ErrInvalid)
	}
	return seq, nil
}

// raiseFloor makes sure that tokens up to seq make no new root.
func (rs *Roots) raiseFloor(seq int64) error {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if seq <= rs.floor {
		return nil
	}
	if rs.stored() {
		text, err := marshalJSON(floorState{formatSeq(seq)})
		if err == nil {
			err = rs.disk.writeFile(rs.floorPath(), text, 0o600)
		}
		if err != nil {
			return err
		}
	}
	rs.floor = seq
	return nil
}

func marshalJSON(v any) ([]byte, error) {
	text, err := json.MarshalIndent(v, "", "  ")
	return append(text, '\n'), err
}

// save makes a root's new state durable, and then current.
func (rs *Roots) save(r *root, state rootState) error {
	if err := rs.prepare(r, state); err != nil {
		return err
	}
	return rs.adopt(r, state)
}

// prepare is the part of save that a full disk can fail: nothing has changed
// after it.
func (rs *Roots) prepare(r *root, state rootState) error {
	if !rs.stored() {
		return nil
	}
	state.Version = rootStateVersion
	text, err := marshalJSON(state)
	if err == nil {
		err = rs.disk.writeNew(rs.statePath(r.name), text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("nbd: root %s: %w", r.name, err)
	}
	return nil
}

// adopt is the rest of save.
func (rs *Roots) adopt(r *root, state rootState) error {
	state.Version = rootStateVersion
	if rs.stored() {
		if err := rs.disk.putNew(rs.statePath(r.name)); err != nil {
			return fmt.Errorf("nbd: root %s: %w", r.name, err)
		}
	}
	r.state = state
	return nil
}
