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

// exampleRoots are roots over an image of dots, with one that a machine has
// written to and has shut down on.
func exampleRoots() (roots *nbd.Roots, images *nbd.Images, done func()) {
	dir, path := exampleImage()
	ctx := context.Background()
	images = &nbd.Images{Dir: filepath.Join(dir, "images")}
	if err := images.Add(ctx, "debian12", path); err != nil {
		log.Fatal(err)
	}
	roots = &nbd.Roots{Images: images, Dir: filepath.Join(dir, "roots")}
	name, err := roots.Boot(ctx, "debian12", "master", nbd.Kept)
	if err != nil {
		log.Fatal(err)
	}
	put(roots, name, "setup")
	return roots, images, func() { _, _, _ = roots.Close(), images.Close(), os.RemoveAll(dir) }
}

func put(h nbd.Handler, name nbd.Name, s string) {
	d, err := open(h, name)
	if err != nil {
		log.Fatal(err)
	}
	_, _ = d.(io.WriterAt).WriteAt([]byte(s), 0)
	_ = d.(nbd.Syncer).Sync()
	_ = d.(io.Closer).Close()
}

// look opens a device, reads its first bytes and closes it.
func look(h nbd.Handler, name nbd.Name) string {
	d, err := open(h, name)
	if err != nil {
		return err.Error()
	}
	defer d.(io.Closer).Close()
	return text(d)
}

// A machine that was set up once is the model of others, which share what it
// has written, at no cost, and go their own ways from there.
func ExampleRoots_Clone() {
	roots, _, done := exampleRoots()
	defer done()
	ctx := context.Background()
	for _, machine := range []string{"desk-01", "desk-02"} {
		if err := roots.Clone(ctx, "master", machine); err != nil {
			log.Fatal(err)
		}
	}
	name, _ := roots.Boot(ctx, "debian12", "desk-02", nbd.Kept)
	put(roots, name, "other")
	list, _ := roots.List(ctx)
	for _, r := range list {
		fmt.Println(r.Name, look(roots, nbd.Name{Image: "debian12", Root: r.Name}), r.Usage, r.Shared)
	}
	// Output:
	// desk-01 setup 0 4096
	// desk-02 other 4096 4096
	// master setup 0 4096
}

// A root is repaired while its machine is off; the machine's next boot has it
// back.
func ExampleRoots_Attach() {
	roots, _, done := exampleRoots()
	defer done()
	ctx := context.Background()
	running, _ := roots.Boot(ctx, "debian12", "master", nbd.Kept)
	d, _ := open(roots, running)
	_, err := roots.Attach(ctx, "master")
	fmt.Println("while it runs:", errors.Is(err, fs.ErrPermission))
	_ = d.(io.Closer).Close() // it shuts down

	name, err := roots.Attach(ctx, "master")
	if err != nil {
		log.Fatal(err)
	}
	put(roots, name, "fixed") // nbd-client -N NAME SERVER /dev/nbd0, fsck, mount ...
	_, err = open(roots, running)
	fmt.Println("it was not off after all:", errors.Is(err, nbd.ErrFenced))

	next, _ := roots.Boot(ctx, "debian12", "master", nbd.Kept)
	fmt.Println(look(roots, next))
	// Output:
	// while it runs: true
	// it was not off after all: true
	// fixed
}

// What was installed on one root becomes the image of all.
func ExampleRoots_Commit() {
	roots, images, done := exampleRoots()
	defer done()
	ctx := context.Background()
	former, _ := images.Current(ctx, "debian12")
	gen, err := roots.Commit(ctx, "master", "debian12")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(look(images, nbd.Name{Image: "debian12"}), gen.Digest != former.Digest)
	fmt.Println("machines that run keep", look(images, former.Name()))
	list, _ := roots.List(ctx)
	fmt.Println(list[0].Name, "stores", list[0].Usage)
	// Output:
	// setup true
	// machines that run keep .....
	// master stores 0
}

// A new generation is published, turns out to be bad, and is taken back;
// machines that booted it keep it.
func ExampleImages_Publish() {
	dir, path := exampleImage()
	defer os.RemoveAll(dir)
	ctx := context.Background()
	images := &nbd.Images{Dir: filepath.Join(dir, "images")}
	defer images.Close()
	if _, err := images.Publish(ctx, "debian12", path); err != nil {
		log.Fatal(err)
	}
	_ = os.WriteFile(path, bytes.Repeat([]byte("!"), 4096), 0o600)
	bad, err := images.Publish(ctx, "debian12", path)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(look(images, nbd.Name{Image: "debian12"}))
	if _, err := images.Revert(ctx, "debian12"); err != nil {
		log.Fatal(err)
	}
	fmt.Println(look(images, nbd.Name{Image: "debian12"}), look(images, bad.Name()))
	// Output:
	// !!!!!
	// ..... !!!!!
}
