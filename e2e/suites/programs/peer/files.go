package main

import "net/http"

// serveFiles serves what lies in a folder, such as an issuer's key set.
func serveFiles(address, folder string) error {
	return http.ListenAndServe(address, http.FileServer(http.Dir(folder)))
}
