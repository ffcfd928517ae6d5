//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// measured runs a command and returns the seconds that it took, the CPU
// seconds of all its processes, and the MiB of the largest of them.
func (b *bench) measured(cmd *exec.Cmd) ([]float64, error) {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	start := time.Now()
	err := cmd.Run()
	took := time.Since(start)
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, &stderr)
	}
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return []float64{took.Seconds(), (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(), float64(usage.Maxrss) / 1024}, nil
}

// shell is a command line that sees $SELF, $TREE, $DIR and $OUT.
func (b *bench) shell(line string) *exec.Cmd {
	cmd := exec.CommandContext(b.ctx, "bash", "-c", "set -eo pipefail; "+line)
	cmd.Env = append(os.Environ(), "SELF="+b.self, "TREE="+b.tree, "DIR="+b.dir, "OUT="+filepath.Join(b.dir, "out"))
	return cmd
}

// writes makes an image; besides what measured returns, its size in MB.
func writes(line string) func(*bench) ([]float64, error) {
	return func(b *bench) ([]float64, error) {
		out := filepath.Join(b.dir, "out")
		defer os.Remove(out)
		_ = os.Remove(out)
		values, err := b.measured(b.shell(line))
		if err != nil {
			return nil, err
		}
		fi, err := os.Stat(out)
		if err != nil {
			return nil, err
		}
		return append(values, float64(fi.Size())/1e6), nil
	}
}

// reads reads an image; $OUT is a directory that is removed afterwards.
func reads(line string) func(*bench) ([]float64, error) {
	return func(b *bench) ([]float64, error) {
		out := filepath.Join(b.dir, "out")
		defer os.RemoveAll(out)
		if err := os.Mkdir(out, 0o755); err != nil {
			return nil, err
		}
		return b.measured(b.shell(line))
	}
}

// prints is a load that prints its figures.
func prints(line string) func(*bench) ([]float64, error) {
	return func(b *bench) ([]float64, error) {
		out := filepath.Join(b.dir, "out")
		defer os.RemoveAll(out)
		if err := os.Mkdir(out, 0o755); err != nil {
			return nil, err
		}
		cmd := b.shell(line)
		var stdout bytes.Buffer
		cmd.Stdout = &stdout
		if _, err := b.measured(cmd); err != nil {
			return nil, err
		}
		var values []float64
		for _, f := range strings.Fields(stdout.String()) {
			v, err := strconv.ParseFloat(f, 64)
			if err != nil {
				return nil, err
			}
			values = append(values, v)
		}
		return values, nil
	}
}
