// Command nbdexport exports one file or block device over NBD: read-only, or
// writable with what each client writes in an overlay of its own. It listens,
// or serves the one connection that inetd gives it on standard input, also in
// the manner of before 2007, as machines of LTSP 4 and 5.0 to 5.2 expect it:
//
//	2000 stream tcp nowait nobody /usr/local/bin/nbdexport nbdexport -inetd -oldstyle /opt/ltsp/images/i386.img
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/seed-3ec230fa/diskless/nbd"
)

func main() {
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "usage: nbdexport [flags] FILE\n\nexports FILE, or a block device, over NBD.\n\n")
		flag.PrintDefaults()
	}
	errs := stderr()
	if err := run(slog.New(slog.NewTextHandler(errs, nil))); err != nil && !errors.Is(err, nbd.ErrServerClosed) {
		fmt.Fprintln(errs, "nbdexport:", err)
		os.Exit(1)
	}
}

func run(logger *slog.Logger) error {
	listen := flag.String("listen", ":10809", "TCP `address` to listen on; systemd's socket activation (LISTEN_FDS) comes first")
	unix := flag.String("unix", "", "listen on a Unix socket at this `path` instead")
	inetd := flag.Bool("inetd", false, "serve the one connection that is standard input, then exit")
	oldstyle := flag.Bool("oldstyle", false, "greet clients that do not negotiate; others cannot connect then")
	name := flag.String("export", "", "`name` of the export beside the empty one (default: FILE's last element)")
	overlay := flag.String("overlay", "none", "none: read-only; memory, or a `DIR`: each client, by its IP address, can write, to an overlay\nof its own that is kept until nbdexport ends, or in the directory for ever")
	quota := flag.Int64("quota", 0, "`bytes` that an overlay may store; 0 is no limit")
	timeout := flag.Duration("timeout", 0, "how long a client may stall within a request; 0 is a minute")
	cert := flag.String("tls-cert", "", "PEM `file` with a certificate: clients must encrypt; with -tls-key")
	key := flag.String("tls-key", "", "PEM `file` with the certificate's key")
	ca := flag.String("tls-ca", "", "PEM `file` of authorities: clients must show a certificate that one of them has signed")
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	tlsConfig, err := loadTLS(*cert, *key, *ca)
	if err != nil {
		return err
	}
	path := flag.Arg(0)
	base, err := nbd.OpenFile(path)
	if err != nil {
		return err
	}
	defer base.Close()
	handler := nbd.Share(base)
	if *overlay != "none" {
		o := &overlays{base: base, quota: *quota}
		if *overlay != "memory" {
			if o.dir, o.id, err = store(*overlay, path); err != nil {
				return err
			}
		}
		defer o.Close()
		handler = o
	}
	if *name == "" {
		*name = filepath.Base(path)
	}
	server := &nbd.Server{
		Handler: nbd.Exports{"": handler, *name: handler}, Logger: logger,
		TLS: tlsConfig, RequireTLS: tlsConfig != nil, IOTimeout: *timeout,
	}
	port := &nbd.Port{Server: server, Oldstyle: *oldstyle}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	down := make(chan struct{})
	context.AfterFunc(ctx, func() {
		defer close(down)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			server.Close()
			_ = server.Shutdown(context.Background())
		}
	})
	if *inetd {
		conn, err := net.FileConn(os.Stdin)
		if err != nil {
			return fmt.Errorf("standard input is not a socket: -inetd is for inetd: %w", err)
		}
		os.Stdin.Close()
		err = port.ServeConn(context.Background(), conn)
		if errors.Is(err, io.EOF) || ctx.Err() != nil {
			return nil
		}
		return err
	}
	l, err := listener(*listen, *unix)
	if err != nil {
		return err
	}
	if err = port.Serve(l); errors.Is(err, nbd.ErrServerClosed) {
		<-down // the overlays are closed after it
	}
	return err
}

// listener is the socket that systemd has opened, or one of our own.
func listener(addr, unix string) (net.Listener, error) {
	switch {
	case os.Getenv("LISTEN_PID") == fmt.Sprint(os.Getpid()) && os.Getenv("LISTEN_FDS") == "1":
		return net.FileListener(os.NewFile(3, "LISTEN_FDS"))
	case unix != "":
		return net.Listen("unix", unix)
	}
	return net.Listen("tcp", addr)
}

// stderr is standard error, unless inetd has made that the connection too: a
// client must not read what is meant for the operator.
func stderr() io.Writer {
	in, err := os.Stdin.Stat()
	if out, err2 := os.Stderr.Stat(); err == nil && err2 == nil && in.Mode()&os.ModeSocket != 0 && os.SameFile(in, out) {
		return io.Discard
	}
	return os.Stderr
}

func loadTLS(cert, key, ca string) (*tls.Config, error) {
	if cert == "" && key == "" && ca == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("-tls-cert and -tls-key: %w", err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("-tls-ca: %w", err)
		}
		config.ClientCAs, config.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		if !config.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("-tls-ca: %s has no certificate in it", ca)
		}
	}
	return config, nil
}
