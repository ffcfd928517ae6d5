package nbd_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/nbd/nbdtest"
)

func webServer(content string) *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Unix(1e9, 0), strings.NewReader(content))
	}))
}

func TestRemoteDevices(t *testing.T) {
	for _, size := range sizes[1:] {
		content := pattern(size)
		padded := append(bytes.Clone(content), make([]byte, -size&511)...)
		web := webServer(string(content))
		defer web.Close()
		dev, err := nbd.OpenHTTP(t.Context(), web.URL, nil)
		require.NoError(t, err)
		nbdtest.TestDevice(t, dev, padded)
		require.NoError(t, dev.Close())

		cache, err := nbd.OpenCache(t.Context(), t.TempDir(), func(ctx context.Context) (nbd.Device, string, error) {
			dev, err := nbd.OpenHTTP(ctx, web.URL, nil)
			if err != nil {
				return nil, "", err
			}
			return dev, dev.ID(), nil
		}, &nbd.CacheOptions{Unit: 64 << 10})
		require.NoError(t, err)
		nbdtest.TestDevice(t, cache, padded)
		require.NoError(t, cache.Close())
	}
}

func ExampleOpenHTTP() {
	web := webServer("an image on a web server")
	defer web.Close()
	dev, err := nbd.OpenHTTP(context.Background(), web.URL+"/debian12.img", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close()
	addr, stop := start(nbd.Share(dev))
	defer stop()
	read(addr, "debian12", 24)
	// Output: 512 bytes, read-only true: an image on a web server
}

// A site keeps what its machines have read of an image far away, and serves it
// when the far end cannot be reached.
func ExampleOpenCache() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	web := webServer("an image on a web server")
	origin := func(ctx context.Context) (nbd.Device, string, error) {
		dev, err := nbd.OpenHTTP(ctx, web.URL+"/debian12.img", &nbd.HTTPOptions{Retries: -1})
		if err != nil {
			return nil, "", err
		}
		return dev, dev.ID(), nil
	}
	for range 2 {
		cache, err := nbd.OpenCache(context.Background(), filepath.Join(dir, "debian12"), origin, &nbd.CacheOptions{Logger: quiet})
		if err != nil {
			log.Fatal(err)
		}
		if err := cache.Fill(context.Background()); err != nil {
			log.Fatal(err)
		}
		web.Close() // the second time there is none
		addr, stop := start(nbd.Share(cache))
		read(addr, "debian12", 24)
		stop()
		fmt.Println("full:", cache.Usage().Full)
		cache.Close()
	}
	// Output:
	// 512 bytes, read-only true: an image on a web server
	// full: true
	// 512 bytes, read-only true: an image on a web server
	// full: true
}

func ExampleFiltered() {
	var stats nbd.Stats
	image := nbd.Share(nbd.NewReaderAt(strings.NewReader("counted"), 7))
	addr, stop := start(nbd.Filtered(image, nbd.ReadOnly, stats.Filter))
	read(addr, "x", 7)
	stop()
	s := stats.Snapshot()
	fmt.Println(s.Open, "open,", s.Ops[nbd.OpRead].Bytes, "bytes read")
	// Output:
	// 512 bytes, read-only true: counted
	// 0 open, 7 bytes read
}

func ExampleStatsByClient() {
	stats := &nbd.StatsByClient{Handler: nbd.Share(nbd.NewReaderAt(strings.NewReader("x"), 1))}
	addr, stop := start(stats)
	read(addr, "debian12", 1)
	stop()
	for who, s := range stats.Snapshot() {
		fmt.Println(who, s.Ops[nbd.OpRead].Requests)
	}
	// Output:
	// 512 bytes, read-only true: x
	// 127.0.0.1 debian12 1
}

// No client gets more than 10 MB/s, or opens more than four connections.
func ExampleRateLimit() {
	image := nbd.Share(nbd.NewReaderAt(strings.NewReader("in turn"), 7))
	addr, stop := start(&nbd.RateLimit{
		Handler: &nbd.ConnLimit{Handler: image, PerClient: 4},
		Read:    10_000_000,
	})
	defer stop()
	read(addr, "debian12", 7)
	// Output: 512 bytes, read-only true: in turn
}

func ExampleConnLimit() {
	l := &nbd.ConnLimit{Handler: nbd.Share(nbd.NewReaderAt(strings.NewReader("x"), 1)), PerClient: 1}
	for range 2 {
		_, err := l.OpenNBD(context.Background(), &nbd.Request{Client: netip.MustParseAddrPort("192.0.2.1:700")})
		fmt.Println(errors.Is(err, syscall.EBUSY))
	}
	// Output:
	// false
	// true
}

func ExampleFaults() {
	var faults nbd.Faults
	faults.Add(nbd.Fault{Ops: []nbd.Op{nbd.OpWrite}, Skip: 1, Err: syscall.ENOSPC})
	addr, stop := start(nbd.Share(faults.Filter(nbdtest.NewMemory(make([]byte, 512)))))
	defer stop()
	c, err := nbd.Dial(context.Background(), "tcp", addr, "x")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	for range 2 {
		_, err := c.WriteAt([]byte("data"), 0)
		fmt.Println(errors.Is(err, syscall.ENOSPC))
	}
	// Output:
	// false
	// true
}

func ExampleDelay() {
	disk := nbd.Delay{Read: 8 * time.Millisecond}.Filter(nbd.NewReaderAt(strings.NewReader("slow"), 4))
	began := time.Now()
	_, err := disk.ReadAt(make([]byte, 4), 0)
	fmt.Println(err, time.Since(began) >= 8*time.Millisecond)
	// Output: <nil> true
}

func ExampleSwap() {
	swap := &nbd.Swap{Size: 1 << 30}
	defer swap.Close()
	addr, stop := start(nbd.Exports{"swap": swap})
	defer stop()
	read(addr, "swap", 0)
	// Output: 1073741824 bytes, read-only false:
}

// What the administrator's own machine may write, all others only read: one
// device, and a filter in front of it where it is needed.
func ExampleReadOnly() {
	path := filepath.Join(os.TempDir(), "diskless-example-readonly.img")
	defer os.Remove(path)
	if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
		log.Fatal(err)
	}
	dev, err := nbd.OpenFileRW(path)
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close()
	shared := nbd.ReadOnly(dev)
	fmt.Println("device:", dev.Features().Write, "client:", nbd.FeaturesOf(shared).Write)
	_, err = shared.(io.WriterAt).WriteAt([]byte("x"), 0)
	fmt.Println(err, errors.Is(err, fs.ErrPermission))
	// Output:
	// device: true client: false
	// nbd: the device is read-only: permission denied true
}
