//go:build !linux

package nbdattach

import (
	"errors"
	"fmt"
	"runtime"
)

func newKernel() (kernel, error) {
	return nil, fmt.Errorf("nbdattach: %s has no NBD devices: %w", runtime.GOOS, errors.ErrUnsupported)
}
