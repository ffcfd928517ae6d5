package nbd

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// noSpaceDir is an overlay's directory on a full disk.
type noSpaceDir struct {
	overlayDir
	create bool // not even a file can be made
}

func (d noSpaceDir) open(name string, create bool) (overlayFile, error) {
	if d.create && create {
		return nil, syscall.ENOSPC
	}
	f, err := d.overlayDir.open(name, create)
	if err != nil {
		return nil, err
	}
	return noSpaceFile{f}, nil
}

type noSpaceFile struct{ overlayFile }

func (noSpaceFile) WriteAt([]byte, int64) (int, error) { return 0, syscall.ENOSPC }

// TestFullDiskHarmsNobody: a newer boot that cannot have its root, because the
// disk is full, leaves the older one as it is; when there is space again it
// gets it.
func TestFullDiskHarmsNobody(t *testing.T) {
	fail := func(op diskOp, suffix string) disk {
		return disk{hook: func(s diskStep, do func() error) error {
			if s.op == op && strings.HasSuffix(s.path, suffix) {
				return syscall.ENOSPC
			}
			return do()
		}}
	}
	faults := map[string]disk{
		"root.json": fail(opWrite, "root.json.new"),
		"sync":      fail(opSync, "root.json.new"),
		"folder":    fail(opMkdir, ""),
		"overlay file": {wrap: func(_ string, d overlayDir) overlayDir {
			return noSpaceDir{d, true}
		}},
		"overlay map": {wrap: func(_ string, d overlayDir) overlayDir {
			return noSpaceDir{d, false}
		}},
	}
	for what, full := range faults {
		for _, kind := range []Kind{Ephemeral, Kept} {
			onlyFresh := what != "root.json" && what != "sync"
			if kind == Kept && onlyFresh {
				continue // a kept root has its overlay already
			}
			t.Run(what+" "+kind.String(), func(t *testing.T) {
				g := newRootsRig(t, true)
				old := g.boot("r", kind)
				c := g.open(old)
				c.write("before")
				c.flush()
				g.Trace = &RootsTrace{Fenced: func(string, int, error) { t.Error("fenced") }}
				name := g.boot("r", kind)
				g.disk = full
				for range 2 {
					g.refused(name, syscall.ENOSPC)
				}
				require.Nil(t, c.cut.Load())
				c.write("after!")
				c.has("after!", 1)
				c.flush()
				again := g.open(old) // it may still reconnect
				again.end()
				g.disk, g.Trace = disk{}, nil

				folders, err := filepath.Glob(filepath.Join(g.rootDir("r"), "*", "map"))
				require.NoError(t, err)
				require.Len(t, folders, 1, "nothing is left behind")
				n := g.open(name)
				require.ErrorIs(t, *c.cut.Load(), ErrFenced)
				if kind == Kept {
					n.has("after!", 1)
				} else {
					n.has("", 1)
				}
				g.refused(old, ErrFenced)
				n.end()
				g.restart(false)
				g.open(name).end()
			})
		}
	}
}
