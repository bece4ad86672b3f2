//go:build tools

// Keeps the suite's backend image in go.mod: its program is built from there.
package conformance

import _ "sigs.k8s.io/gateway-api-conformance-images/echo-basic"
