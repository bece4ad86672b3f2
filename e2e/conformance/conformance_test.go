// Package conformance builds the official Gateway API conformance suite into a
// test binary; the driver runs it with the flags of e2e/driver/conformance.py.
package conformance

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
)

func TestConformance(t *testing.T) {
	conformance.RunConformance(t)
}
