package main

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"
)

// failure is one request without a good answer; times are Unix milliseconds.
type failure struct {
	SentMS  int64  `json:"sent_ms"`
	EndedMS int64  `json:"ended_ms"`
	Kind    string `json:"kind"`
	Detail  string `json:"detail,omitempty"`
	Mode    string `json:"mode"`
	Reused  bool   `json:"reused"`
}

type result struct {
	Total    int            `json:"total"`
	OK       int            `json:"ok"`
	Failed   int            `json:"failed"`
	Kinds    map[string]int `json:"kinds"`
	P50      float64        `json:"p50_ms"`
	P99      float64        `json:"p99_ms"`
	Max      float64        `json:"max_ms"`
	Seconds  float64        `json:"seconds"`
	Failures []failure      `json:"failures"`

	mutex     sync.Mutex
	latencies []float64
}

// Enough to see what happened; a run in which all fails need not fill the disk.
const maxListed = 10000

func newResult() *result {
	return &result{Kinds: map[string]int{}, Failures: []failure{}}
}

func (r *result) add(o outcome) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.Total++
	if o.failure == nil {
		r.OK++
		r.latencies = append(r.latencies, float64(o.ended.Sub(o.sent).Microseconds())/1000)
		return
	}
	r.Failed++
	r.Kinds[o.failure.Kind]++
	if len(r.Failures) < maxListed {
		r.Failures = append(r.Failures, *o.failure)
	}
}

func (r *result) finish(took time.Duration) {
	r.Seconds = took.Seconds()
	if len(r.latencies) == 0 {
		return
	}
	slices.Sort(r.latencies)
	at := func(q float64) float64 { return r.latencies[int(q*float64(len(r.latencies)-1))] }
	r.P50, r.P99, r.Max = at(0.5), at(0.99), at(1)
}

func (r *result) summary() string {
	kinds := make([]string, 0, len(r.Kinds))
	for kind, count := range r.Kinds {
		kinds = append(kinds, fmt.Sprintf("%s: %d", kind, count))
	}
	sort.Strings(kinds)
	detail := ""
	if len(kinds) > 0 {
		detail = " (" + strings.Join(kinds, ", ") + ")"
	}
	return fmt.Sprintf("total %d, ok %d, failed %d%s, p50 %.1f ms, p99 %.1f ms, max %.1f ms, %.1f s",
		r.Total, r.OK, r.Failed, detail, r.P50, r.P99, r.Max, r.Seconds)
}
