// Command scripted-tftp answers TFTP requests by a program, per client, over a
// directory of plain files: what people know as scripting over TFTP.
package main

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"strings"

	"github.com/seed-3ec230fa/diskless/tftp"
)

func main() {
	addr := flag.String("listen", ":69", "UDP `address` to serve")
	dir := flag.String("dir", ".", "`directory` of plain files")
	flag.Parse()
	files, err := tftp.Dir(*dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	server := &tftp.Server{Addr: *addr, Handler: tftp.First(tftp.HandlerFunc(script), tftp.FileServerFS(files))}
	log.Fatal(server.ListenAndServe())
}

// script answers names that end in .cgi; all others are left to the files.
func script(_ context.Context, r *tftp.Request) (tftp.File, error) {
	if !strings.HasSuffix(r.Name, ".cgi") {
		return nil, fs.ErrNotExist
	}
	text := fmt.Sprintf("# %s, made for %s\n", r.Name, r.Peer.Addr())
	return tftp.NewFile(strings.NewReader(text), int64(len(text)), ""), nil
}
