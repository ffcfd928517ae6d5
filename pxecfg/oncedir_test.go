package pxecfg

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// testBootState is what any BootState does.
func testBootState(t *testing.T, s BootState) {
	ctx := t.Context()
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("x", 3600))
	_, begun, err := s.Begun(ctx, "mac-52:54:00:00:00:01")
	require.NoError(t, err)
	require.False(t, begun)
	began, err := s.Begin(ctx, "mac-52:54:00:00:00:01", at)
	require.NoError(t, err)
	require.True(t, began.Equal(at))
	began, err = s.Begin(ctx, "mac-52:54:00:00:00:01", at.Add(time.Hour))
	require.NoError(t, err)
	require.True(t, began.Equal(at), "it began before")
	require.NoError(t, s.Set(ctx, "ip-2001:db8::1", time.Time{}))
	began, begun, err = s.Begun(ctx, "ip-2001:db8::1")
	require.NoError(t, err)
	require.True(t, begun && began.IsZero())
	require.NoError(t, s.Reset(ctx, "ip-2001:db8::1"))
	require.NoError(t, s.Reset(ctx, "ip-2001:db8::1"), "twice is once")
	_, begun, err = s.Begun(ctx, "ip-2001:db8::1")
	require.NoError(t, err)
	require.False(t, begun)
}

func TestBootStates(t *testing.T) {
	testBootState(t, &BootMemory{})
	dir := filepath.Join(t.TempDir(), "once")
	testBootState(t, &BootDir{Dir: dir})
	// Another server finds the same.
	began, begun, err := (&BootDir{Dir: dir}).Begun(t.Context(), "mac-52:54:00:00:00:01")
	require.NoError(t, err)
	require.True(t, begun)
	require.Equal(t, 2026, began.Year())
}

func TestBootDirDamage(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	name := filepath.Join(dir, "mac-1.boot")
	for _, text := range []string{"", "done", "2026", "2026-01-02T03:04:05Z", strings.Repeat("x", 500)} {
		require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
		_, err := (&BootDir{Dir: dir}).Begin(ctx, "mac-1", time.Now())
		require.ErrorIs(t, err, fs.ErrInvalid, text)
		require.ErrorContains(t, err, name)
	}
	// What a crash leaves of a write is not the machine's file.
	require.NoError(t, os.Remove(name))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "1.tmp"), []byte("20"), 0o600))
	d := &BootDir{Dir: dir, Max: 2}
	_, begun, err := d.Begun(ctx, "mac-1")
	require.NoError(t, err)
	require.False(t, begun)
	require.NoFileExists(t, filepath.Join(dir, "1.tmp"))

	require.NoError(t, d.Set(ctx, "a", time.Now()))
	require.NoError(t, d.Set(ctx, "A", time.Now()), "no two machines share a file")
	require.ErrorIs(t, d.Set(ctx, "b", time.Now()), syscall.ENOSPC)
	require.NoError(t, d.Set(ctx, "a", time.Time{}), "a known one may change")
	require.ErrorIs(t, (&BootDir{Dir: dir, Max: 1}).Set(ctx, "b", time.Now()), syscall.ENOSPC, "counted again by the next server")
	require.NoError(t, d.Reset(ctx, "A"))
	require.NoError(t, d.Set(ctx, "b", time.Now()))
	require.ErrorIs(t, d.Set(ctx, "", time.Now()), fs.ErrInvalid)
	require.ErrorIs(t, d.Set(ctx, strings.Repeat("x", 300), time.Now()), fs.ErrInvalid)
	require.ErrorIs(t, (&BootDir{}).Set(ctx, "a", time.Now()), fs.ErrInvalid)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		require.Equal(t, ".boot", filepath.Ext(e.Name()), "nothing is left behind")
	}
}

// TestBootDirConcurrent: one of many that begin at once decides.
func TestBootDirConcurrent(t *testing.T) {
	d := &BootDir{Dir: t.TempDir()}
	var wg sync.WaitGroup
	began := make([]time.Time, 8)
	for i := range began {
		wg.Go(func() { began[i], _ = d.Begin(context.Background(), "m", time.Unix(int64(i), 0)) })
	}
	wg.Wait()
	for _, b := range began {
		require.True(t, b.Equal(began[0]))
	}
}

// FuzzBootFile: a file's content is one boot, or an error.
func FuzzBootFile(f *testing.F) {
	for _, s := range []string{"done\n", "2026-01-02T03:04:05.6Z\n", "", "\n", "done", "2026-01-02T03:04:05+23:59\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		began, err := parseBoot(text)
		if err != nil {
			require.ErrorIs(t, err, fs.ErrInvalid)
			return
		}
		again, err := parseBoot(formatBoot(began))
		if y := began.UTC().Year(); y < 0 || y > 9999 {
			return // no clock says so
		}
		require.NoError(t, err)
		require.True(t, again.Equal(began))
	})
}

func ExampleBootDir() {
	dir, err := os.MkdirTemp("", "once")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	machine := Client{MAC: []byte{0x52, 0x54, 0, 0x12, 0x34, 0x56}}
	boots := func() string {
		// A new server each time.
		once := &Once{Source: &Config{Entries: []Entry{{Label: "install", Kernel: "vmlinuz"}}}, State: &BootDir{Dir: dir}}
		cfg, err := once.Config(context.Background(), machine)
		if err != nil {
			panic(err)
		}
		defer once.Done(context.Background(), machine)
		return cfg.Entries[0].Label
	}
	fmt.Println(boots())
	fmt.Println(boots())
	// Output:
	// install
	// local
}
