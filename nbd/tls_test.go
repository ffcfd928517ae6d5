package nbd_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/nbd"
	"github.com/seed-3ec230fa/diskless/nbd/nbdtest"
)

// pki is a certificate authority with a server "localhost" and a client
// "node-01", and the folder of files that libnbd and qemu want.
type pki struct {
	dir            string
	pool           *x509.CertPool
	server, client tls.Certificate
}

func newPKI(t testing.TB) *pki {
	t.Helper()
	p := &pki{dir: t.TempDir(), pool: x509.NewCertPool()}
	write := func(name, typ string, der []byte) {
		require.NoError(t, os.WriteFile(filepath.Join(p.dir, name), pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}), 0o600))
	}
	var ca *x509.Certificate
	var caKey *ecdsa.PrivateKey
	issue := func(serial int64, tmpl *x509.Certificate, name string) tls.Certificate {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		tmpl.SerialNumber = big.NewInt(serial)
		tmpl.NotBefore, tmpl.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		parent, signer := ca, caKey
		if parent == nil {
			parent, signer = tmpl, key
		}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
		require.NoError(t, err)
		leaf, err := x509.ParseCertificate(der)
		require.NoError(t, err)
		if ca == nil {
			ca, caKey = leaf, key
			p.pool.AddCert(ca)
		}
		write(name+"-cert.pem", "CERTIFICATE", der)
		pk, err := x509.MarshalPKCS8PrivateKey(key)
		require.NoError(t, err)
		write(name+"-key.pem", "PRIVATE KEY", pk)
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
	}
	issue(1, &x509.Certificate{Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}, "ca")
	p.server = issue(2, &x509.Certificate{Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, "server")
	p.client = issue(3, &x509.Certificate{Subject: pkix.Name{CommonName: "node-01"}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, "client")
	return p
}

func (p *pki) serverConfig() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{p.server}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: p.pool}
}

func (p *pki) clientConfig() *tls.Config {
	return &tls.Config{RootCAs: p.pool, ServerName: "localhost", Certificates: []tls.Certificate{p.client}}
}

// whose serves dev under every name and notes whose certificate came.
type whose struct {
	nbd.Handler
	mu    sync.Mutex
	names []string
}

func (w *whose) OpenNBD(ctx context.Context, r *nbd.Request) (nbd.Device, error) {
	w.mu.Lock()
	w.names = append(w.names, r.CertName())
	w.mu.Unlock()
	return w.Handler.OpenNBD(ctx, r)
}

func (w *whose) last(t testing.TB) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	require.NotEmpty(t, w.names)
	return w.names[len(w.names)-1]
}

// startTLS encrypts a raw connection.
func (r *raw) startTLS(cfg *tls.Config) *raw {
	r.t.Helper()
	r.send(option(optStartTLS, nil))
	r.wantReply(optStartTLS, repAck)
	tc := tls.Client(r.Conn, cfg)
	require.NoError(r.t, tc.Handshake())
	return &raw{r.t, tc}
}

func TestStartTLS(t *testing.T) {
	p := newPKI(t)
	content := pattern(1 << 20)
	w := &whose{Handler: nbd.Share(nbdtest.NewMemory(content))}
	optional := nbdtest.ServeServer(t, &nbd.Server{Logger: quiet, Handler: w, TLS: p.serverConfig()})
	required := nbdtest.ServeServer(t, &nbd.Server{Logger: quiet, Handler: w, TLS: p.serverConfig(), RequireTLS: true})
	read := func(r *raw) {
		t.Helper()
		r.send(request(0, cmdRead, 1, 4096, 200000))
		require.Zero(t, r.simple(1))
		require.True(t, bytes.Equal(content[4096:204096], r.recv(200000)))
	}

	r := dialRaw(t, optional).greet(3)
	r.open("x")
	read(r)
	require.Empty(t, w.last(t))
	r = dialRaw(t, optional).greet(3).startTLS(p.clientConfig())
	r.send(option(optStartTLS, nil))
	r.wantReply(optStartTLS, errInvalid)
	r.open("x")
	require.Equal(t, "node-01", w.last(t))
	read(r)
	r.send(append(request(0, cmdWrite, 2, 4096, 200000), content[4096:204096]...))
	require.Zero(t, r.simple(2))

	anonymous := p.clientConfig()
	anonymous.Certificates = nil
	r = dialRaw(t, required).greet(3)
	for _, opt := range []int{optGo, optInfo, optList, optStructured, optSetMeta, 4711} {
		r.send(option(opt, goData("x")))
		r.wantReply(opt, errTLSReqd)
	}
	r.send(option(optStartTLS, []byte("x")))
	r.wantReply(optStartTLS, errInvalid)
	r = r.startTLS(anonymous)
	r.open("x")
	require.Empty(t, w.last(t))
	read(r)

	r = dialRaw(t, required).greet(3)
	r.send(option(optAbort, nil))
	r.wantReply(optAbort, repAck)
	r.closed()
	r = dialRaw(t, required).greet(3)
	r.send(option(optExportName, []byte("x")))
	r.closed()
}

// What was agreed on in the clear is forgotten.
func TestStartTLSForgets(t *testing.T) {
	p := newPKI(t)
	addr := nbdtest.ServeServer(t, &nbd.Server{Logger: quiet, Handler: anyName{nbdtest.NewMemory(make([]byte, 8192))}, TLS: p.serverConfig()})
	r := dialRaw(t, addr).greet(3)
	r.structured()
	r.setMeta("x", "base:allocation")
	r = r.startTLS(p.clientConfig())
	r.send(option(optSetMeta, metaData("x", "base:allocation")))
	r.wantReply(optSetMeta, errInvalid)
	_, flags := r.open("x")
	require.Zero(t, flags&(1<<7), "DF without structured replies")
	r.send(request(0, cmdRead, 1, 0, 512))
	require.Zero(t, r.simple(1))
	r.recv(512)
	r.send(request(0, cmdStatus, 2, 0, 512))
	require.Equal(t, eINVAL, r.simple(2))
}

// Whatever comes behind STARTTLS in the clear must not count as encrypted.
func TestStartTLSInjection(t *testing.T) {
	p := newPKI(t)
	w := &whose{Handler: nbd.Share(nbdtest.NewMemory(make([]byte, 8192)))}
	addr := nbdtest.ServeServer(t, &nbd.Server{Logger: quiet, Handler: w, TLS: p.serverConfig(), RequireTLS: true})
	r := dialRaw(t, addr).greet(3)
	r.send(cat(option(optStartTLS, nil), option(optGo, goData("x"))))
	r.closed()

	// Later, it is no TLS.
	r = dialRaw(t, addr).greet(3)
	r.send(option(optStartTLS, nil))
	r.wantReply(optStartTLS, repAck)
	r.send(option(optGo, goData("x")))
	r.drained()
	require.Empty(t, w.names)

	// A certificate of somebody else's authority.
	r = dialRaw(t, addr).greet(3)
	r.send(option(optStartTLS, nil))
	r.wantReply(optStartTLS, repAck)
	cfg := p.clientConfig()
	cfg.Certificates = []tls.Certificate{newPKI(t).client}
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cfg.Certificates[0], nil }
	tc := tls.Client(r.Conn, cfg)
	if err := tc.Handshake(); err == nil { // TLS 1.3: the client is told with its first read
		_, err = tc.Read(make([]byte, 1))
		require.Error(t, err)
	}
	require.Empty(t, w.names)
}

func TestTLSPolicy(t *testing.T) {
	p := newPKI(t)
	h := nbd.HandlerFunc(func(_ context.Context, r *nbd.Request) (nbd.Device, error) {
		if r.TLS == nil {
			return nil, nbd.ErrTLSRequired
		}
		return nbdtest.NewMemory(make([]byte, 512)), nil
	})
	addr := nbdtest.ServeServer(t, &nbd.Server{Logger: quiet, Handler: h, TLS: p.serverConfig()})
	r := dialRaw(t, addr).greet(3)
	r.send(option(optGo, goData("x")))
	r.wantReply(optGo, errTLSReqd)
	r.startTLS(p.clientConfig()).open("x")

	near, far := net.Pipe()
	defer near.Close()
	require.ErrorContains(t, (&nbd.Server{RequireTLS: true}).ServeConn(t.Context(), far), "certificate")
	require.ErrorContains(t, (&nbd.Server{RequireTLS: true}).Serve(listen(t)), "certificate")
}

// A client that asks for TLS and then says nothing is cut like any other.
func TestSilentInTLS(t *testing.T) {
	p := newPKI(t)
	addr := nbdtest.ServeServer(t, &nbd.Server{Logger: quiet, TLS: p.serverConfig(), HandshakeTimeout: 50 * time.Millisecond})
	r := dialRaw(t, addr).greet(3)
	r.send(option(optStartTLS, nil))
	r.wantReply(optStartTLS, repAck)
	r.drained()
}

func TestTLSShutdown(t *testing.T) {
	p := newPKI(t)
	srv := &nbd.Server{Logger: quiet, Handler: anyName{nbdtest.NewMemory(make([]byte, 8192))}, TLS: p.serverConfig()}
	addr := nbdtest.ServeServer(t, srv)
	idle := dialRaw(t, addr).greet(3).startTLS(p.clientConfig())
	idle.open("x")
	cut := dialRaw(t, addr).greet(3).startTLS(p.clientConfig())
	cut.send(request(0, 0, 0, 0, 0)[:10]) // in the handshake
	require.NoError(t, srv.Shutdown(t.Context()))
	idle.closed()
	cut.closed()
}
