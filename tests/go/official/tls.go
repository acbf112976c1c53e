package official

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"math/big"
	"net"
	"net/http"
	"time"
)

var overTLS = flag.Bool("tls", false, "over TLS, and so over HTTP/2")

// Serve is http.Serve, or over TLS if the command line says so.
func Serve(listener net.Listener, handler http.Handler) {
	server := http.Server{Handler: handler}
	if !*overTLS {
		check(server.Serve(listener))
	}
	server.TLSConfig = selfSigned()
	check(server.ServeTLS(listener, "", ""))
}

func selfSigned() *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	check(err)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{certificate}, PrivateKey: key}}}
}

// transport asks servers of such certificates, too.
func transport() *http.Transport {
	it := http.DefaultTransport.(*http.Transport).Clone()
	it.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	return it
}

func scheme() string {
	if *overTLS {
		return "https"
	}
	return "http"
}
