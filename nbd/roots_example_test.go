package nbd_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/seed-3ec230fa/diskless/nbd"
)

// exampleImage makes a directory with an image in it.
func exampleImage() (dir, path string) {
	dir, err := os.MkdirTemp("", "nbd")
	if err != nil {
		log.Fatal(err)
	}
	path = filepath.Join(dir, "debian12.img")
	if err := os.WriteFile(path, bytes.Repeat([]byte("."), 4096), 0o600); err != nil {
		log.Fatal(err)
	}
	return dir, path
}

// open does what the server does for a client.
func open(h nbd.Handler, name nbd.Name) (nbd.Device, error) {
	return h.OpenNBD(context.Background(), &nbd.Request{Export: name.String()})
}

func text(d nbd.Device) string {
	p := make([]byte, 5)
	if _, err := d.ReadAt(p, 0); err != nil && !errors.Is(err, io.EOF) {
		return err.Error()
	}
	return string(p)
}

func ExampleParseName() {
	n, err := nbd.ParseName("debian12~0a1b2c3d4e5f@node-01.mh2k3x9a-x7qm2p")
	fmt.Println(n.Image, n.Generation, n.Root, n.Boot, err)
	_, err = nbd.ParseName("2000")
	fmt.Println(err)
	// Output:
	// debian12 0a1b2c3d4e5f node-01 mh2k3x9a-x7qm2p <nil>
	// nbd: export name "2000": digits alone would be taken for a port: invalid argument
}

func ExampleNewOverlay() {
	image := strings.NewReader("shared and read-only")
	base := nbd.NewReaderAt(image, image.Size())
	one, two := nbd.NewOverlay(base), nbd.NewOverlay(base)
	_, _ = one.WriteAt([]byte("MINE!!"), 0)
	for _, o := range []*nbd.Overlay{one, two} {
		p := make([]byte, image.Size())
		_, _ = o.ReadAt(p, 0)
		fmt.Printf("%s, stores %d\n", p, o.Usage())
	}
	// Output:
	// MINE!! and read-only, stores 4096
	// shared and read-only, stores 0
}

func ExampleOpenOverlay() {
	dir, _ := exampleImage()
	defer os.RemoveAll(dir)
	image := strings.NewReader("the image")
	base := nbd.NewReaderAt(image, image.Size())
	for _, word := range []string{"first", "again"} {
		o, err := nbd.OpenOverlay(base, filepath.Join(dir, "overlay"), "id of the image")
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(text(o))
		_, _ = o.WriteAt([]byte(word), 0)
		_ = o.Sync() // from here on it survives a loss of power
		_ = o.Close()
	}
	_, err := nbd.OpenOverlay(base, filepath.Join(dir, "overlay"), "another image")
	fmt.Println(errors.Is(err, fs.ErrInvalid))
	// Output:
	// the i
	// first
	// true
}

func ExampleImages() {
	dir, path := exampleImage()
	defer os.RemoveAll(dir)
	ctx := context.Background()
	images := &nbd.Images{}
	defer images.Close()
	if err := images.Add(ctx, "debian12", path); err != nil {
		log.Fatal(err)
	}
	former, _ := images.Current(ctx, "debian12")
	fmt.Println(former.Name())

	// Publish the next generation.
	_ = os.WriteFile(path+".new", bytes.Repeat([]byte("#"), 4096), 0o600)
	_ = os.Rename(path+".new", path)
	for _, name := range []nbd.Name{{Image: "debian12"}, former.Name()} {
		d, err := open(images, name)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(text(d))
	}
	// Output:
	// debian12~26453427c13c
	// #####
	// .....
}

// A kept root has what its machine wrote, boot after boot.
func ExampleRoots_kept() {
	dir, path := exampleImage()
	defer os.RemoveAll(dir)
	ctx := context.Background()
	images := &nbd.Images{}
	defer images.Close()
	if err := images.Add(ctx, "debian12", path); err != nil {
		log.Fatal(err)
	}
	roots := &nbd.Roots{Images: images, Dir: filepath.Join(dir, "roots")}
	defer roots.Close()

	for boot := range 2 {
		// When the boot configuration is rendered:
		name, err := roots.Boot(ctx, "debian12", "node-01", nbd.Kept)
		if err != nil {
			log.Fatal(err)
		}
		// When the machine's kernel connects:
		d, err := open(roots, name)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("boot", boot, "reads", text(d))
		_, _ = d.(io.WriterAt).WriteAt([]byte("hello"), 0)
		_ = d.(nbd.Syncer).Sync()
		_ = d.(io.Closer).Close()
	}
	// Output:
	// boot 0 reads .....
	// boot 1 reads hello
}

// An ephemeral root is clean on each boot, and the boot before it is out.
func ExampleRoots_ephemeral() {
	dir, path := exampleImage()
	defer os.RemoveAll(dir)
	ctx := context.Background()
	images := &nbd.Images{}
	defer images.Close()
	if err := images.Add(ctx, "debian12", path); err != nil {
		log.Fatal(err)
	}
	roots := &nbd.Roots{Images: images}
	defer roots.Close()

	boot := func() (nbd.Name, nbd.Device) {
		name, err := roots.Boot(ctx, "debian12", "node-01", nbd.Ephemeral)
		if err != nil {
			log.Fatal(err)
		}
		d, err := open(roots, name)
		if err != nil {
			log.Fatal(err)
		}
		return name, d
	}
	oldName, old := boot()
	_, _ = old.(io.WriterAt).WriteAt([]byte("hello"), 0)
	fmt.Println("first boot reads", text(old))
	// The machine lost power; its old connection still looks alive.
	_, d := boot()
	fmt.Println("second boot reads", text(d))
	_, err := old.(io.WriterAt).WriteAt([]byte("ghost"), 0)
	fmt.Println("the old connection is fenced:", errors.Is(err, nbd.ErrFenced))
	_, err = open(roots, oldName)
	fmt.Println("the old token is refused:", errors.Is(err, fs.ErrPermission))
	// Output:
	// first boot reads hello
	// second boot reads .....
	// the old connection is fenced: true
	// the old token is refused: true
}
