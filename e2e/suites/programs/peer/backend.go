package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
)

// seen is what the backend tells of a request: the names of the conformance suite's echo server.
type seen struct {
	Path    string      `json:"path"`
	Host    string      `json:"host"`
	Method  string      `json:"method"`
	Proto   string      `json:"proto"`
	Headers http.Header `json:"headers"`
	Body    int         `json:"body"`
	Pod     string      `json:"pod"`
	Service string      `json:"service"`
	Attempt int         `json:"attempt"`
}

// attempts counts requests by their X-Attempts-Of header, so that a test can make the first
// ones fail.
var attempts = struct {
	sync.Mutex
	of map[string]int
}{of: map[string]int{}}

func attempt(of string) int {
	attempts.Lock()
	defer attempts.Unlock()
	attempts.of[of]++
	return attempts.of[of]
}

func serveBackend(address string) error {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := http.Server{
		Addr:              address,
		Handler:           http.HandlerFunc(answer),
		Protocols:         &protocols,
		ReadHeaderTimeout: time.Minute,
	}
	return server.ListenAndServe()
}

// answer reads all of the request, then tells what it saw. Headers ask for more:
// X-Fail-Times: N with X-Fail-Code fails the first N of the requests of X-Attempts-Of, by a
// status, or by closing the connection where the code is 0.
func answer(w http.ResponseWriter, r *http.Request) {
	count, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		return // the client has gone
	}
	number := 1
	if of := r.Header.Get("X-Attempts-Of"); of != "" {
		number = attempt(of)
	}
	if code, fails := failure(r, number); fails {
		fail(w, code)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	text, err := json.Marshal(seen{
		Path: r.URL.RequestURI(), Host: r.Host, Method: r.Method, Proto: r.Proto,
		Headers: r.Header, Body: int(count), Attempt: number,
		Pod: os.Getenv("POD_NAME"), Service: os.Getenv("SERVICE_NAME"),
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(text) // the client may have gone
}

func failure(r *http.Request, number int) (code int, fails bool) {
	times, err := strconv.Atoi(r.Header.Get("X-Fail-Times"))
	if err != nil || number > times {
		return 0, false
	}
	code, err = strconv.Atoi(r.Header.Get("X-Fail-Code"))
	return code, err == nil
}

// fail answers with the status; 0 closes the connection without an answer.
func fail(w http.ResponseWriter, code int) {
	if code != 0 {
		http.Error(w, fmt.Sprintf("failed with %d, as asked", code), code)
		return
	}
	panic(http.ErrAbortHandler)
}
