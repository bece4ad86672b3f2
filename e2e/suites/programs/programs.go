//go:build tools

// Package programs keeps other people's test programs in go.mod: they are built from there.
package programs

import (
	_ "github.com/summerwind/h2spec/cmd/h2spec"
	_ "google.golang.org/grpc/interop/client"
	_ "google.golang.org/grpc/interop/server"
)
