// Command load sends GET requests at a steady rate and records every failure.
//
// It is an open loop: a request is sent when its time has come, whether or not
// earlier ones were answered, so a slow server is seen and not waited for. The
// client is net/http as it is: it repeats a GET whose kept connection the server
// had closed before any byte of an answer, as a correct client may; nothing else.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

type options struct {
	rate        float64
	duration    time.Duration
	connections int
	mode        string
	url         string
	host        string
	timeout     time.Duration
	out         string
}

func main() {
	var o options
	flag.Float64Var(&o.rate, "rate", 500, "requests per second")
	flag.DurationVar(&o.duration, "duration", time.Minute, "how long to send; ends early on SIGTERM")
	flag.IntVar(&o.connections, "connections", 50, "kept connections to spread requests over")
	flag.StringVar(&o.mode, "mode", "mixed", "keepalive, new, h2 or mixed (3:1:1)")
	flag.StringVar(&o.url, "url", "", "where to; https uses --host as the server's name")
	flag.StringVar(&o.host, "host", "", "the Host of the requests")
	flag.DurationVar(&o.timeout, "timeout", 10*time.Second, "for one request")
	flag.StringVar(&o.out, "out", "", "file for the result as JSON")
	flag.Parse()
	if o.url == "" || o.rate <= 0 || o.connections < 1 {
		fatal("--url, a rate and at least one connection are needed")
	}
	clients, err := newClients(o)
	if err != nil {
		fatal(err.Error())
	}
	result := send(o, clients)
	if err := result.write(o.out); err != nil {
		fatal(err.Error())
	}
	fmt.Println(result.summary())
}

// send runs the loop until the duration has passed or a signal asks it to end;
// requests under way are waited for.
func send(o options, clients *clients) *result {
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer cancel()
	stop, cancelTimer := context.WithTimeout(stop, o.duration)
	defer cancelTimer()

	result := newResult()
	var pending sync.WaitGroup
	interval := time.Duration(float64(time.Second) / o.rate)
	began := time.Now()
	for i := 0; ; i++ {
		due := began.Add(time.Duration(i) * interval)
		if !sleepUntil(stop, due) {
			break
		}
		pending.Add(1)
		go func() {
			defer pending.Done()
			result.add(clients.get(i, due))
		}()
	}
	pending.Wait()
	result.finish(time.Since(began))
	return result
}

func sleepUntil(stop context.Context, due time.Time) bool {
	wait := time.Until(due)
	if wait <= 0 {
		return stop.Err() == nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-stop.Done():
		return false
	case <-timer.C:
		return true
	}
}

func (r *result) write(path string) error {
	if path == "" {
		return nil
	}
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}

func fatal(message string) {
	fmt.Fprintln(os.Stderr, "load:", message)
	os.Exit(2)
}
