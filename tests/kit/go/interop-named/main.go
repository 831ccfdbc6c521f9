// gRPC's interop server, which also says its name where it is asked to: the suite's own program leaves that out.
package main

import (
	"context"
	"flag"
	"log"
	"net"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	testpb "google.golang.org/grpc/interop/grpc_testing"
)

type named struct {
	testgrpc.TestServiceServer
	name string
}

func (s named) UnaryCall(ctx context.Context, request *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	response, err := s.TestServiceServer.UnaryCall(ctx, request)
	if err == nil && request.GetFillServerId() {
		response.ServerId = s.name
	}
	return response, err
}

func main() {
	address := flag.String("address", ":0", "where to listen")
	flag.Parse()
	name, err := os.Hostname()
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	testgrpc.RegisterTestServiceServer(server, named{interop.NewTestServer(), name})
	log.Fatal(server.Serve(listener))
}
