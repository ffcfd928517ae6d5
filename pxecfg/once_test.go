package pxecfg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &Once{Source: First(&Machines{Logger: quiet, List: []Machine{{MAC: mac(1), Source: kernel("install")}, {IP: ip(7), UUID: wireUUID, Source: kernel("install")}}})}
		one, seven := Client{MAC: mac(1), IP: ip(1)}, Client{UUID: wireUUID}
		require.Equal(t, "nothing", what(t, o, Client{MAC: mac(2)}), "not Once's")

		steps := Explain(t.Context(), o, one)
		require.Equal(t, "once, and not yet, machine 02:00:00:00:00:01", steps[0].Rule)
		time.Sleep(time.Hour) // a look begins nothing
		require.Equal(t, "install", what(t, o, one))
		time.Sleep(DefaultGrace - 1)
		require.Equal(t, "install", what(t, o, one), "the same boot")
		require.Equal(t, "once, which is now, machine 02:00:00:00:00:01", Explain(t.Context(), o, one)[0].Rule)
		time.Sleep(time.Nanosecond)
		require.Equal(t, "disk", what(t, o, one), "the next boot")
		require.Contains(t, Explain(t.Context(), o, one)[0].Rule, "once, which was at 2000-01-01T01:00:00Z")

		require.Equal(t, "install", what(t, o, seven))
		require.NoError(t, o.Done(t.Context(), seven))
		require.Equal(t, "disk", what(t, o, Client{UUID: SwapUUID(wireUUID)}))
		require.Contains(t, Explain(t.Context(), o, seven)[0].Rule, "once, which is done")
		require.NoError(t, o.Again(t.Context(), seven))
		require.Equal(t, "install", what(t, o, seven))

		o.Then, o.Grace = kernel("installed"), -1
		require.NoError(t, o.Again(t.Context(), one))
		require.Equal(t, "install", what(t, o, one))
		time.Sleep(1000 * time.Hour)
		require.Equal(t, "install", what(t, o, one), "only Done ends it")
		require.NoError(t, o.Done(t.Context(), one))
		require.Equal(t, "installed", what(t, o, one))
		// Whom nobody can tell from others cannot boot once.
		require.NoError(t, o.Done(t.Context(), Client{}))
		require.NoError(t, o.Again(t.Context(), Client{}))
		o.Source = kernel("install")
		require.Equal(t, "installed", what(t, o, Client{Hostname: "x"}))
	})
}

// TestOnceInTree: all requests of one boot see the same, over any name.
func TestOnceInTree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tree := &Tree{Logger: quiet, Source: &Machines{Logger: quiet, Unknown: &Once{Source: kernel("install")}}}
		fsys := tree.For(t.Context(), Client{MAC: mac(1), IP: ip(1)})
		for _, name := range genericNames {
			_, err := fs.Stat(fsys, name)
			require.NoError(t, err)
			text, err := fs.ReadFile(fsys, name)
			require.NoError(t, err)
			require.Contains(t, string(text), "install/vmlinuz")
		}
		time.Sleep(time.Hour)
		for _, name := range genericNames {
			text, err := fs.ReadFile(fsys, name)
			require.NoError(t, err)
			require.NotContains(t, string(text), "install/vmlinuz")
		}
		cfg, err := tree.Source.Config(t.Context(), Client{MAC: mac(1)})
		require.NoError(t, err)
		require.True(t, cfg.Fallback, "what follows a fallback is one")
	})
}

type failingState struct{ BootState }

var errState = errors.New("disk on fire")

func (failingState) Begin(context.Context, string, time.Time) (time.Time, error) {
	return time.Time{}, errState
}

func TestOnceFails(t *testing.T) {
	// What cannot be written down must not be told the machine.
	o := &Once{Source: kernel("install"), State: failingState{}}
	_, err := o.Config(t.Context(), Client{MAC: mac(1)})
	require.ErrorIs(t, err, errState)

	m := &BootMemory{Max: 2}
	o = &Once{Source: kernel("install"), State: m}
	require.Equal(t, "install", what(t, o, Client{MAC: mac(1)}))
	require.Equal(t, "install", what(t, o, Client{MAC: mac(2)}))
	require.Equal(t, "install", what(t, o, Client{MAC: mac(1)}))
	_, err = o.Config(t.Context(), Client{MAC: mac(3)})
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NoError(t, o.Again(t.Context(), Client{MAC: mac(2)}))
	require.Equal(t, "install", what(t, o, Client{MAC: mac(3)}))
	m.Max = -1
	for n := range byte(100) {
		require.Equal(t, "install", what(t, o, Client{MAC: mac(n)}), fmt.Sprint(n))
	}
}
