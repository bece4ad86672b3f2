package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	kind "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// asked is a question to an authorization server, whichever way it came.
type asked struct {
	method, path, host string
	headers            map[string]string // lower-case names
	body               int
}

// allows: whoever says `Authorization: Bearer good` may pass.
func (a asked) allows() bool {
	return a.headers["authorization"] == "Bearer good"
}

// tells is what the server saw, as headers: the client's, if it refuses, and those of the
// request to the backend, if it allows.
func (a asked) tells() map[string]string {
	names := slices.Sorted(maps.Keys(a.headers))
	return map[string]string{
		"x-auth-method": a.method,
		"x-auth-path":   a.path,
		"x-auth-host":   a.host,
		"x-auth-names":  strings.Join(names, " "),
		"x-auth-body":   strconv.Itoa(a.body),
		"x-auth-user":   "alice",
	}
}

func serveAuth(address string) error {
	return http.ListenAndServe(address, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		size, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			return
		}
		question := asked{r.Method, r.URL.RequestURI(), r.Host, map[string]string{}, int(size)}
		for name, values := range r.Header {
			question.headers[strings.ToLower(name)] = strings.Join(values, ",")
		}
		for name, value := range question.tells() {
			w.Header().Set(name, value)
		}
		w.Header().Set("X-Auth-Length", strconv.FormatInt(r.ContentLength, 10))
		if !question.allows() {
			w.Header().Set("WWW-Authenticate", `Bearer realm="peer"`)
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, "refused by HTTP")
		}
	}))
}

type extAuthz struct {
	authv3.UnimplementedAuthorizationServer
}

func serveExtAuthz(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	authv3.RegisterAuthorizationServer(server, extAuthz{})
	return server.Serve(listener)
}

// Check answers as Envoy's ext_authz documents it.
func (extAuthz) Check(_ context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	request := r.GetAttributes().GetRequest().GetHttp()
	size := max(len(request.GetBody()), len(request.GetRawBody()))
	question := asked{request.GetMethod(), request.GetPath(), request.GetHost(), request.GetHeaders(), size}
	var headers []*core.HeaderValueOption
	for name, value := range question.tells() {
		headers = append(headers, &core.HeaderValueOption{
			Header:       &core.HeaderValue{Key: name, Value: value},
			AppendAction: core.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		})
	}
	if question.allows() {
		return &authv3.CheckResponse{
			Status: &status.Status{Code: int32(codes.OK)},
			HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
				Headers: headers, HeadersToRemove: []string{"x-remove-me"},
			}},
		}, nil
	}
	return &authv3.CheckResponse{
		Status: &status.Status{Code: int32(codes.PermissionDenied)},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status: &kind.HttpStatus{Code: kind.StatusCode_Unauthorized}, Headers: headers,
			Body: "refused by gRPC",
		}},
	}, nil
}
