// Package conformance builds the official Gateway API conformance suite into a
// test binary; the driver runs it with the flags of e2e/driver/conformance.py.
package conformance

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
	"sigs.k8s.io/gateway-api/pkg/features"
	"sigs.k8s.io/yaml"
)

// TestMain writes the suite's report a second time, as JSON, for the driver to read.
func TestMain(m *testing.M) {
	code := m.Run()
	if err := reportAsJSON(flag.Lookup("report-output").Value.String()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func reportAsJSON(path string) error {
	text, err := os.ReadFile(path)
	if path == "" || os.IsNotExist(err) {
		return nil // nothing was run
	}
	if err != nil {
		return err
	}
	converted, err := yaml.YAMLToJSON(text)
	if err != nil {
		return err
	}
	return os.WriteFile(path+".json", converted, 0o644)
}

// TestEveryFeatureIsClaimed holds the list that the suite is run with against the
// module's own: a feature that is left out there would go unnoticed.
func TestEveryFeatureIsClaimed(t *testing.T) {
	claimed := strings.Split(flag.Lookup("supported-features").Value.String(), ",")
	for feature := range features.AllFeatures {
		mesh := features.MeshCoreFeatures.Has(feature) || features.MeshExtendedFeatures.Has(feature)
		if !mesh && !slices.Contains(claimed, string(feature.Name)) {
			t.Errorf("%s is a gateway feature and not among those of the run", feature.Name)
		}
	}
	for _, name := range claimed {
		if features.GetFeature(features.FeatureName(name)).Name == "" {
			t.Errorf("%s is not a feature of this version", name)
		}
	}
}

func TestConformance(t *testing.T) {
	conformance.RunConformance(t)
}
