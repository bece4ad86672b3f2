// Command peer plays the other side in tests: a backend that answers only once it has read
// the whole request and fails on purpose where it is asked to, authorization servers (plain
// HTTP and Envoy's ext_authz), echo servers for TCP and UDP, and a file server for key sets.
// What it saw goes into its answers, where tests can look.
package main

import (
	"flag"
	"log"
)

func main() {
	backend := flag.String("backend", "", "address of the backend, HTTP/1.1 and h2c")
	auth := flag.String("auth", "", "address of the authorization server that speaks HTTP")
	extAuthz := flag.String("ext-authz", "", "address of the one that speaks ext_authz (gRPC)")
	tcp := flag.String("tcp", "", "address of the TCP echo server")
	udp := flag.String("udp", "", "address of the UDP echo server")
	files := flag.String("files", "", "address of the file server")
	folder := flag.String("folder", "", "the folder whose files it serves")
	flag.Parse()
	failed := make(chan error)
	run := func(address string, serve func(string) error) {
		if address != "" {
			go func() { failed <- serve(address) }()
		}
	}
	run(*backend, serveBackend)
	run(*auth, serveAuth)
	run(*extAuthz, serveExtAuthz)
	run(*tcp, serveTCP)
	run(*udp, serveUDP)
	run(*files, func(address string) error { return serveFiles(address, *folder) })
	log.Fatal(<-failed)
}
