package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"strings"
	"syscall"
	"time"
)

// clients holds one http.Client per kept connection: one client with a pool
// would prefer the connection used last and leave the others idle.
type clients struct {
	options options
	kept    []*http.Client
	fresh   *http.Client
	h2      []*http.Client
}

// outcome is what became of one request.
type outcome struct {
	sent    time.Time
	ended   time.Time
	failure *failure
}

func newClients(o options) (*clients, error) {
	switch o.mode {
	case "keepalive", "new", "h2", "mixed":
	default:
		return nil, fmt.Errorf("unknown mode %q", o.mode)
	}
	c := &clients{options: o, fresh: client(o, false, true)}
	for range o.connections {
		c.kept = append(c.kept, client(o, false, false))
	}
	for range max(1, o.connections/5) {
		c.h2 = append(c.h2, client(o, true, false))
	}
	return c, nil
}

func client(o options, h2, fresh bool) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!h2)
	protocols.SetHTTP2(h2)
	protocols.SetUnencryptedHTTP2(h2)
	name, _, err := net.SplitHostPort(o.host)
	if err != nil {
		name = o.host
	}
	return &http.Client{
		Timeout: o.timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
		Transport: &http.Transport{
			DisableKeepAlives:   fresh,
			MaxIdleConnsPerHost: 4,
			Protocols:           protocols,
			// What is tested is how connections live, not whom they trust.
			TLSClientConfig: &tls.Config{ServerName: name, InsecureSkipVerify: true},
		},
	}
}

// pick gives request number i its mode and client.
func (c *clients) pick(i int) (string, *http.Client) {
	mode := c.options.mode
	if mode == "mixed" {
		mode = [...]string{"keepalive", "keepalive", "keepalive", "new", "h2"}[i%5]
	}
	switch mode {
	case "new":
		return mode, c.fresh
	case "h2":
		return mode, c.h2[i/5%len(c.h2)]
	}
	return mode, c.kept[i%len(c.kept)]
}

func (c *clients) get(i int, due time.Time) outcome {
	mode, client := c.pick(i)
	reused := false
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused }}
	ctx := httptrace.WithClientTrace(context.Background(), trace)
	sent := time.Now()
	status, err := c.exchange(ctx, client)
	o := outcome{sent: due, ended: time.Now()}
	if err == nil && status == http.StatusOK {
		return o
	}
	o.failure = &failure{
		SentMS: sent.UnixMilli(), EndedMS: o.ended.UnixMilli(), Mode: mode, Reused: reused,
	}
	if err != nil {
		o.failure.Kind, o.failure.Detail = kind(err), err.Error()
	} else {
		o.failure.Kind = fmt.Sprintf("status %d", status)
	}
	return o
}

func (c *clients) exchange(ctx context.Context, client *http.Client) (int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.options.url, nil)
	if err != nil {
		return 0, err
	}
	request.Host = c.options.host
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return response.StatusCode, err
}

func kind(err error) string {
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connect refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "reset"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "unreachable"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "eof"
	case strings.Contains(err.Error(), "http2"):
		return "h2"
	}
	return "other"
}
