//go:build linux

package main

import "github.com/seed-3ec230fa/diskless/bench/internal/measure"

// Who is measured. ours is pure Go, libzstd is ours with the C library's zstd.
const (
	ours        = "diskless"
	libzstd     = "with libzstd"
	mksquashfs  = "mksquashfs"
	gensquashfs = "gensquashfs"
	tar2sqfs    = "tar2sqfs"
	unsquashfs  = "unsquashfs"
	sqfs2tar    = "sqfs2tar"
	squashfuse  = "squashfuse"
)

var kinds = []string{ours, libzstd, mksquashfs, gensquashfs, tar2sqfs, unsquashfs, sqfs2tar, squashfuse}

// A row is one piece of work and how each does it.
type row struct {
	id    string
	reads bool
	run   map[string]func(*bench) ([]float64, error)
	lines []measure.Line
}

type runs = map[string]func(*bench) ([]float64, error)

func mk(args string) func(*bench) ([]float64, error) {
	return writes("mksquashfs $TREE $OUT -noappend -no-progress -quiet " + args)
}

func gen(args string) func(*bench) ([]float64, error) {
	return writes("gensquashfs -D $TREE -k -x -e -q -f -j $(nproc) " + args + " $OUT")
}

// build is ours: compressor, level, block size, fragment size.
func build(args string) func(*bench) ([]float64, error) {
	return writes("$SELF ours build " + args + " $TREE $OUT")
}

// rebuild is ours, of a tree that has changed, with an image of what it was:
// arguments as for build.
func rebuild(args, tree, base, rule string) func(*bench) ([]float64, error) {
	return writes("$SELF ours rebuild " + args + " $DIR/" + tree + " $OUT $DIR/" + base + ".image " + rule)
}

// goals are those of the four values that a writer has.
func written(what string, wall, cpu, size []measure.Goal) []measure.Line {
	memory := []measure.Goal{{Op: "<=", Limit: 96}}
	return []measure.Line{
		{What: what, Unit: "s", Value: 0, Goals: wall}, {Unit: "CPU s", Value: 1, Goals: cpu},
		{Unit: "MiB peak", Value: 2, Goals: memory}, {Unit: "MB image", Value: 3, Goals: size},
	}
}

// ofLibzstd is for rows that pure Go has no part in.
func ofLibzstd(lines []measure.Line) []measure.Line {
	for i := range lines {
		for k := range lines[i].Goals {
			lines[i].Goals[k].Mine = libzstd
		}
	}
	return lines
}

func read(what string, wall, cpu []measure.Goal) []measure.Line {
	return []measure.Line{
		{What: what, Unit: "s", Value: 0, Goals: wall}, {Unit: "CPU s", Value: 1, Goals: cpu},
		{Unit: "MiB peak", Value: 2, Goals: []measure.Goal{{Op: "<=", Limit: 64}}},
	}
}

// than is a goal of at most so many times what a peer has.
func than(limit float64, peer string) []measure.Goal {
	return []measure.Goal{{Op: "<=", Limit: limit, Peer: peer}}
}

// faster is a goal of ours with libzstd beside mksquashfs.
func faster(limit float64) []measure.Goal {
	return []measure.Goal{{Op: "<=", Limit: limit, Peer: mksquashfs, Mine: libzstd}}
}

const readAll = "$SELF ours read $DIR/"

var rows = []row{
	{id: "zstd3", run: runs{libzstd: build("libzstd 3 128K 0"), mksquashfs: mk("-comp zstd -Xcompression-level 3"), gensquashfs: gen("-c zstd -X level=3")},
		lines: ofLibzstd(written("zstd 3, 128 KiB", faster(0.71), faster(0.85), faster(1)))},
	{id: "zstd3-1M", run: runs{libzstd: build("libzstd 3 1024K 0"), mksquashfs: mk("-comp zstd -Xcompression-level 3 -b 1M")},
		lines: ofLibzstd(written("zstd 3, 1 MiB", faster(0.71), faster(0.85), faster(1)))},
	{id: "zstd9-1M", run: runs{libzstd: build("libzstd 9 1024K 0"), mksquashfs: mk("-comp zstd -Xcompression-level 9 -b 1M")},
		lines: ofLibzstd(written("zstd 9, 1 MiB", faster(0.71), faster(0.85), faster(1)))},
	{id: "default", run: runs{ours: build("zstd 0 128K 0"), mksquashfs: mk("-comp zstd -Xcompression-level 3"), gensquashfs: gen("-c zstd -X level=3")},
		lines: written("our default, theirs at zstd 3, 128 KiB", than(1, mksquashfs), nil, than(1.02, mksquashfs))},
	{id: "gzip", run: runs{ours: build("gzip 0 128K 0"), mksquashfs: mk("-comp gzip")},
		lines: written("gzip: our default, theirs (level 9)", than(0.1, mksquashfs), nil, than(1.05, mksquashfs))},
	{id: "lz4", run: runs{ours: build("lz4 0 128K 0"), mksquashfs: mk("-comp lz4"), gensquashfs: gen("-c lz4")},
		lines: written("lz4, fast, 128 KiB", than(1, mksquashfs), nil, than(1, mksquashfs))},
	{id: "small", run: runs{ours: build("memory 0 0 0"), libzstd: build("libzstd 8 1024K 0"), mksquashfs: mk("-comp zstd")},
		lines: written("our small preset, mksquashfs at its zstd default (15, 128 KiB)", append(than(0.59, mksquashfs), faster(0.167)...), nil, append(than(1, mksquashfs), faster(1)...))},
	{id: "small-1M", run: runs{ours: build("memory 0 0 0"), libzstd: build("libzstd 8 1024K 0"), mksquashfs: mk("-comp zstd -Xcompression-level 9 -b 1M")},
		lines: ofLibzstd(written("the same, mksquashfs at its quickest for that size (zstd 9, 1 MiB)", faster(0.833), nil, faster(1)))},
	{id: "rebuild", run: runs{ours: rebuild("zstd 0 128K 0", "changed", "base", "times"), libzstd: rebuild("libzstd 3 128K 0", "changed", "base3", "times"), mksquashfs: mk("-comp zstd -Xcompression-level 3")},
		lines: written("1 % of the files changed, the others known by size and time; mksquashfs builds all, zstd 3", append(than(0.2, mksquashfs), faster(0.2)...), nil, nil)},
	{id: "rebuild-content", run: runs{ours: rebuild("zstd 0 128K 0", "changed", "base", "content"), libzstd: rebuild("libzstd 3 128K 0", "changed", "base3", "content"), mksquashfs: mk("-comp zstd -Xcompression-level 3")},
		lines: written("the same, all files read and compared", nil, nil, nil)},
	{id: "rebuild-15", run: runs{libzstd: rebuild("libzstd 15 128K 0", "changed", "base15", "times"), mksquashfs: mk("-comp zstd")},
		lines: ofLibzstd(written("as rebuild, zstd 15", faster(0.0167), nil, nil))},
	{id: "rebuild-packages-15", run: runs{libzstd: rebuild("libzstd 15 128K 0", "updated", "base15", "times"), mksquashfs: mk("-comp zstd")},
		lines: ofLibzstd(written("zstd 15, 1 % of the files changed: those of some packages", faster(0.0167), nil, nil))},
	{id: "rebuild-net-15", run: runs{libzstd: rebuild("libzstd 15 128K 32K", "changed", "net15", "times"), mksquashfs: mk("-comp zstd")},
		lines: ofLibzstd(written("as rebuild-15, fragments of 32 KiB", faster(0.0167), nil, nil))},
	{id: "rebuild-net-packages-15", run: runs{libzstd: rebuild("libzstd 15 128K 32K", "updated", "net15", "times"), mksquashfs: mk("-comp zstd")},
		lines: ofLibzstd(written("as rebuild-packages-15, fragments of 32 KiB", faster(0.0167), nil, nil))},
	fromContainer("container", "1"),
	fromContainer("container-3", "3"),
	{id: "20GB", run: runs{ours: reads("$SELF ours generated 100000 20")},
		lines: []measure.Line{{What: "20 GB in 100,000 files, lz4, to nowhere", Unit: "s", Value: 0}, {Unit: "CPU s", Value: 1},
			{Unit: "MiB peak", Value: 2, Goals: []measure.Goal{{Op: "<=", Limit: 96}}}}},
	{id: "boot", run: runs{libzstd: looped("libzstd 3 128K 32K"), mksquashfs: looped("")},
		lines: []measure.Line{{What: "300 cold small reads by the kernel, fragments of 32 KiB, zstd 3: what the device is asked for", Unit: "MiB", Value: 0, Goals: faster(0.6)},
			{Unit: "requests", Value: 1}, {Unit: "ms", Value: 2, Goals: faster(0.75)}, {Unit: "MB image", Value: 3, Goals: faster(1.03)}}},

	{id: "read-zstd", reads: true, run: runs{ours: reads(readAll + "zstd.image"), unsquashfs: reads("unsquashfs -q -n -p 2 -d $OUT/u $DIR/zstd.image")},
		lines: read("every file (unsquashfs: to a directory), zstd 3", nil, than(0.6, unsquashfs))},
	{id: "read-gzip", reads: true, run: runs{ours: reads(readAll + "gzip.image"), unsquashfs: reads("unsquashfs -q -n -p 2 -d $OUT/u $DIR/gzip.image")},
		lines: read("gzip 9", nil, than(0.6, unsquashfs))},
	{id: "read-lz4", reads: true, run: runs{ours: reads(readAll + "lz4.image"), unsquashfs: reads("unsquashfs -q -n -p 2 -d $OUT/u $DIR/lz4.image")},
		lines: read("lz4", nil, than(0.6, unsquashfs))},
	{id: "read-zstd1M", reads: true, run: runs{ours: reads(readAll + "zstd1M.image"), unsquashfs: reads("unsquashfs -q -n -p 2 -d $OUT/u $DIR/zstd1M.image")},
		lines: read("zstd 9, blocks of 1 MiB", nil, than(0.6, unsquashfs))},
	{id: "tar-zstd", reads: true, run: runs{ours: reads("$SELF ours tar $DIR/zstd.image | cat > /dev/null"), sqfs2tar: reads("sqfs2tar $DIR/zstd.image | cat > /dev/null")},
		lines: read("as a tar, zstd 3", than(1, sqfs2tar), nil)},
	{id: "random", reads: true, run: runs{ours: prints("$SELF ours random $DIR/zstd.image"), squashfuse: mounted("$SELF ours random $DIR/zstd.image $OUT", "zstd.image")},
		lines: []measure.Line{{What: "4 KiB somewhere in each of 3,000 random files", Unit: "files/s", Value: 0, Goals: []measure.Goal{{Op: ">=", Limit: 3, Peer: squashfuse}}},
			{Unit: "µs median", Value: 1}}},
	{id: "random2", reads: true, run: runs{ours: prints("$SELF ours random $DIR/zstd.image - two"), squashfuse: mounted("$SELF ours random $DIR/zstd.image $OUT two", "zstd.image")},
		lines: []measure.Line{{What: "the same, two readers", Unit: "files/s", Value: 0, Goals: []measure.Goal{{Op: ">=", Limit: 3, Peer: squashfuse}}},
			{Unit: "µs median", Value: 1}}},
	{id: "random-net", reads: true, run: runs{ours: prints("$SELF ours random $DIR/net.image"), squashfuse: mounted("$SELF ours random $DIR/net.image $OUT", "net.image")},
		lines: []measure.Line{{What: "random, fragments of 32 KiB", Unit: "files/s", Value: 0, Goals: []measure.Goal{{Op: ">=", Limit: 3, Peer: squashfuse}}},
			{Unit: "µs median", Value: 1}}},
	{id: "lookup", reads: true, run: runs{ours: prints("$SELF ours lookup $DIR/names.image"), squashfuse: mounted("$SELF ours lookup $DIR/names.image $OUT", "names.image")},
		lines: []measure.Line{{What: "a name among 100,000", Unit: "names/s", Value: 0}, {Unit: "µs median", Value: 1}}},
}

// fromContainer packs what docker save makes, at one of zstd's levels.
func fromContainer(id, level string) row {
	return row{id: id, run: runs{ours: writes("$SELF ours container zstd " + level + " $DIR/archive.tar $OUT"), libzstd: writes("$SELF ours container libzstd " + level + " $DIR/archive.tar $OUT"),
		tar2sqfs: writes("tar2sqfs -q -f -c zstd -X level=" + level + " $OUT < $DIR/tree.tar")},
		lines: written("from a container archive, tar2sqfs from a tar, zstd "+level, []measure.Goal{{Op: "<=", Limit: 0.83, Peer: tar2sqfs, Mine: libzstd}}, nil, nil)}
}

// mounted runs a line with the image mounted by squashfuse at $OUT.
func mounted(line, image string) func(*bench) ([]float64, error) {
	return prints("squashfuse_ll -f $DIR/" + image + " $OUT & pid=$!; " +
		"for i in $(seq 100); do mountpoint -q $OUT && break; sleep 0.05; done; " + line + "; fusermount -u $OUT; wait $pid")
}

// looped mounts an image, of ours with arguments, on a loop device, whose
// statistics say what NBD would have to send.
func looped(args string) func(*bench) ([]float64, error) {
	line := "i=$DIR/boot.image; mksquashfs $TREE $i -noappend -no-progress -quiet -comp zstd -Xcompression-level 3; "
	if args != "" {
		line = "i=$DIR/boot.image; $SELF ours build " + args + " $TREE $i; "
	}
	return prints(line + "dev=$(losetup -f --show -r $i); mount -t squashfs -o ro $dev $OUT; echo 3 > /proc/sys/vm/drop_caches; " +
		"$SELF ours cold $i $OUT /sys/block/${dev#/dev/}/stat; umount $OUT; losetup -d $dev; " +
		"stat -c %s $i | awk '{print $1/1e6}'; rm $i")
}
