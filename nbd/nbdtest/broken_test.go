package nbdtest_test

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/nbd/nbdtest"
)

const deviceSize = 160 << 10

func content() []byte {
	p := make([]byte, deviceSize)
	for i := range p {
		p[i] = byte(1 + i%251)
	}
	clear(p[64<<10 : 100<<10])
	return p
}

// broken is a Memory with one method put wrong.
type broken struct {
	nbd.Pass
	features func(*nbd.Features)
	read     func(p []byte, off int64) (int, error)
	write    func(p []byte, off int64) (int, error)
	trim     func(off, n int64) error
	zero     func(off, n int64, flags nbd.ZeroFlags) error
	extents  func(off, n int64, dst []nbd.Extent) (int, error)
	size     func() int64
}

func (d *broken) Size() int64 {
	if d.size != nil {
		return d.size()
	}
	return d.Pass.Size()
}

func (d *broken) Features() nbd.Features {
	f := d.Pass.Features()
	if d.features != nil {
		d.features(&f)
	}
	return f
}

func (d *broken) ReadAt(p []byte, off int64) (int, error) {
	if d.read != nil {
		return d.read(p, off)
	}
	return d.Pass.ReadAt(p, off)
}

func (d *broken) WriteAt(p []byte, off int64) (int, error) {
	if d.write != nil {
		return d.write(p, off)
	}
	return d.Pass.WriteAt(p, off)
}

func (d *broken) Trim(off, n int64) error {
	if d.trim != nil {
		return d.trim(off, n)
	}
	return d.Pass.Trim(off, n)
}

func (d *broken) Zero(off, n int64, flags nbd.ZeroFlags) error {
	if d.zero != nil {
		return d.zero(off, n, flags)
	}
	return d.Pass.Zero(off, n, flags)
}

func (d *broken) Extents(off, n int64, dst []nbd.Extent) (int, error) {
	if d.extents != nil {
		return d.extents(off, n, dst)
	}
	return d.Pass.Extents(off, n, dst)
}

// readOnly has no further methods, whatever it announces.
type readOnly struct {
	io.ReaderAt
	features nbd.Features
}

func (readOnly) Size() int64              { return deviceSize }
func (d readOnly) Features() nbd.Features { return d.features }

// brokenDevices: each fails the test named.
var brokenDevices = []struct {
	name, fails string
	dev         func(d *broken) nbd.Device
}{
	{"size", "size", func(d *broken) nbd.Device {
		d.size = func() int64 { return d.Pass.Size() - 512 }
		return d
	}},
	{"features change", "size", func(d *broken) nbd.Device {
		d.features = func(f *nbd.Features) { f.PreferredBlock = 4096 + os.Getpid(); d.features = nil }
		return d
	}},
	{"wrong data", "read", func(d *broken) nbd.Device {
		d.read = func(p []byte, off int64) (int, error) {
			n, err := d.Pass.ReadAt(p, off)
			if n > 1 && off > 4096 {
				p[n-1]++
			}
			return n, err
		}
		return d
	}},
	{"reads short without an error", "read", func(d *broken) nbd.Device {
		d.read = func(p []byte, off int64) (int, error) {
			if len(p) > 8192 {
				return d.Pass.ReadAt(p[:8192], off)
			}
			return d.Pass.ReadAt(p, off)
		}
		return d
	}},
	{"negative offset", "read", func(d *broken) nbd.Device {
		d.read = func(p []byte, off int64) (int, error) { return d.Pass.ReadAt(p, max(off, 0)) }
		return d
	}},
	{"no end", "read_at_the_end", func(d *broken) nbd.Device {
		d.read = func(p []byte, off int64) (int, error) {
			clear(p)
			n, err := d.Pass.ReadAt(p, off)
			if err == io.EOF {
				return len(p), nil
			}
			return n, err
		}
		return d
	}},
	{"announces what it has not", "features", func(d *broken) nbd.Device {
		return readOnly{d.Device, nbd.Features{Trim: true, Cache: true}}
	}},
	{"block sizes", "features", func(d *broken) nbd.Device {
		d.features = func(f *nbd.Features) { f.PreferredBlock = 1000 }
		return d
	}},
	{"writes to the buffer", "write", func(d *broken) nbd.Device {
		d.write = func(p []byte, off int64) (int, error) {
			n, err := d.Pass.WriteAt(p, off)
			clear(p)
			return n, err
		}
		return d
	}},
	{"drops the tail", "write", func(d *broken) nbd.Device {
		d.write = func(p []byte, off int64) (int, error) {
			n, err := d.Pass.WriteAt(p[:len(p)&^511], off)
			if err == nil {
				n = len(p)
			}
			return n, err
		}
		return d
	}},
	{"loses a neighbour's write", "write_concurrently", func(d *broken) nbd.Device {
		d.write = func(p []byte, off int64) (int, error) { // no lock around read and write
			if len(p) != 300 || off+300 > deviceSize-4096 {
				return d.Pass.WriteAt(p, off)
			}
			block := make([]byte, 4096)
			start := off &^ 4095
			if _, err := d.Pass.ReadAt(block, start); err != nil {
				return 0, err
			}
			for range 100 {
				_, _ = d.Pass.ReadAt(make([]byte, 4096), 0)
			}
			copy(block[off-start:], p)
			if _, err := d.Pass.WriteAt(block, start); err != nil {
				return 0, err
			}
			return len(p), nil
		}
		return d
	}},
	{"accepts writes past the end", "write_past_the_end", func(d *broken) nbd.Device {
		d.write = func(p []byte, off int64) (int, error) {
			n, err := d.Pass.WriteAt(p, off)
			if err != nil {
				return len(p), nil
			}
			return n, nil
		}
		return d
	}},
	{"trims too much", "trim", func(d *broken) nbd.Device {
		d.trim = func(off, n int64) error {
			end := min((off+n+511)&^511, deviceSize)
			return d.Pass.Trim(off&^511, end-off&^511)
		}
		return d
	}},
	{"zeroes too little", "zero", func(d *broken) nbd.Device {
		d.zero = func(off, n int64, flags nbd.ZeroFlags) error {
			if n > 4096 {
				n -= 4096
			}
			return d.Pass.Zero(off, n, flags)
		}
		return d
	}},
	{"refuses and zeroes", "zero", func(d *broken) nbd.Device {
		d.zero = func(off, n int64, flags nbd.ZeroFlags) error {
			err := d.Pass.Zero(off, n, flags)
			if flags&nbd.ZeroFast != 0 {
				err = os.ErrInvalid
			}
			return err
		}
		return d
	}},
	{"calls data zero", "extents", func(d *broken) nbd.Device {
		d.extents = func(_, n int64, dst []nbd.Extent) (int, error) {
			if n == 0 {
				return 0, nil
			}
			dst[0] = nbd.Extent{Length: n, Zero: true}
			return 1, nil
		}
		return d
	}},
	{"extents too long", "extents", func(d *broken) nbd.Device {
		d.extents = func(_, n int64, dst []nbd.Extent) (int, error) {
			if n == 0 {
				return 0, nil
			}
			dst[0] = nbd.Extent{Length: n + 1}
			return 1, nil
		}
		return d
	}},
}

// TestBrokenDevice is what TestSuiteFailsBrokenDevices runs as a child.
func TestBrokenDevice(t *testing.T) {
	for _, b := range brokenDevices {
		if b.name == os.Getenv("NBDTEST_BROKEN") {
			d := &broken{Pass: nbd.Pass{Device: nbdtest.NewMemory(content())}}
			nbdtest.TestDevice(t, b.dev(d), content())
			return
		}
	}
	nbdtest.TestDevice(t, &broken{Pass: nbd.Pass{Device: nbdtest.NewMemory(content())}}, content())
}

// A suite that nothing fails shows nothing.
func TestSuiteFailsBrokenDevices(t *testing.T) {
	for _, b := range brokenDevices {
		t.Run(b.name, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run=^TestBrokenDevice$/^"+b.fails+"$")
			cmd.Env = append(os.Environ(), "NBDTEST_BROKEN="+b.name)
			out, err := cmd.CombinedOutput()
			require.Error(t, err, "the suite passes it:\n%s", out)
			require.True(t, bytes.Contains(out, []byte("--- FAIL: TestBrokenDevice/"+b.fails)), "it fails another test:\n%s", out)
		})
	}
}
