// Runs one test case of gRPC's interop suite and prints what the client itself has counted, as JSON: the requests that
// it put on the wire, the statuses that came in trailers, and the streams that ended without any. The suite's own
// program runs the same functions, but keeps no count.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

type tally struct {
	sync.Mutex
	Requests int            `json:"requests"`
	Answered map[string]int `json:"answered"`
	Cut      int            `json:"cut"`
	Open     int            `json:"open"`
}

type call struct{ sent, trailed bool }
type callKey struct{}

func (t *tally) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, callKey{}, &call{})
}

func (t *tally) HandleRPC(ctx context.Context, event stats.RPCStats) {
	t.Lock()
	defer t.Unlock()
	this := ctx.Value(callKey{}).(*call)
	switch event := event.(type) {
	case *stats.OutHeader:
		this.sent = true
		t.Requests++
		t.Open++
	case *stats.InTrailer:
		this.trailed = true
	case *stats.End:
		if !this.sent {
			return
		}
		t.Open--
		if this.trailed {
			t.Answered[strconv.Itoa(int(status.Code(event.Error)))]++
		} else {
			t.Cut++
		}
	}
}

func (t *tally) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (t *tally) HandleConn(context.Context, stats.ConnStats)                       {}

func main() {
	address := flag.String("address", "", "host:port")
	name := flag.String("case", "empty_unary", "the test case, as the suite calls it")
	rounds := flag.Int("rounds", 100, "of the soak cases")
	flag.Parse()
	resolver.SetDefaultScheme("dns")
	counted := &tally{Answered: map[string]int{}}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithStatsHandler(counted),
	}
	if *name == "orca_per_rpc" || *name == "orca_oob" {
		options = append(options, grpc.WithDefaultServiceConfig(
			`{"loadBalancingConfig":[{"test_backend_metrics_load_balancer":{}}]}`))
	}
	connection, err := grpc.NewClient(*address, options...)
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	run(ctx, *name, *address, connection, options, *rounds)
	cancel()
	connection.Close()
	for range 100 { // what the end of the connection ends is counted a little later
		counted.Lock()
		open := counted.Open
		counted.Unlock()
		if open == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	counted.Lock()
	defer counted.Unlock()
	json.NewEncoder(os.Stdout).Encode(counted)
}

func run(ctx context.Context, name, address string, connection *grpc.ClientConn, options []grpc.DialOption, rounds int) {
	service := testgrpc.NewTestServiceClient(connection)
	soak := interop.SoakTestConfig{
		RequestSize: 271828, ResponseSize: 314159, PerIterationMaxAcceptableLatency: 20 * time.Second,
		OverallTimeout: 50 * time.Second, ServerAddr: address, NumWorkers: 2, Iterations: rounds, MaxFailures: 0,
	}
	switch name {
	case "empty_unary":
		interop.DoEmptyUnaryCall(ctx, service)
	case "large_unary":
		interop.DoLargeUnaryCall(ctx, service)
	case "client_streaming":
		interop.DoClientStreaming(ctx, service)
	case "server_streaming":
		interop.DoServerStreaming(ctx, service)
	case "ping_pong":
		interop.DoPingPong(ctx, service)
	case "empty_stream":
		interop.DoEmptyStream(ctx, service)
	case "timeout_on_sleeping_server":
		interop.DoTimeoutOnSleepingServer(ctx, service)
	case "cancel_after_begin":
		interop.DoCancelAfterBegin(ctx, service)
	case "cancel_after_first_response":
		interop.DoCancelAfterFirstResponse(ctx, service)
	case "status_code_and_message":
		interop.DoStatusCodeAndMessage(ctx, service)
	case "special_status_message":
		interop.DoSpecialStatusMessage(ctx, service)
	case "custom_metadata":
		interop.DoCustomMetadata(ctx, service)
	case "unimplemented_method":
		interop.DoUnimplementedMethod(ctx, connection)
	case "unimplemented_service":
		interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(connection))
	case "pick_first_unary":
		interop.DoPickFirstUnary(ctx, service)
	case "orca_per_rpc":
		interop.DoORCAPerRPCTest(ctx, service)
	case "orca_oob":
		interop.DoORCAOOBTest(ctx, service)
	case "rpc_soak":
		soak.ChannelForTest = func() (*grpc.ClientConn, func()) { return connection, func() {} }
		interop.DoSoakTest(ctx, soak)
	case "channel_soak":
		soak.ChannelForTest = func() (*grpc.ClientConn, func()) {
			made, err := grpc.NewClient(address, options...)
			if err != nil {
				log.Fatal(err)
			}
			return made, func() { made.Close() }
		}
		interop.DoSoakTest(ctx, soak)
	default:
		fmt.Fprintln(os.Stderr, "no such case:", name)
		os.Exit(2)
	}
}
