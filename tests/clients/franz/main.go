// franz-go as a test client: one JSON task in, JSON lines out (the protocol stands in tests/src/clients).
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

type task struct {
	Cmd         string `json:"cmd"`
	Bootstrap   string `json:"bootstrap"`
	Topic       string `json:"topic"`
	Prefix      string `json:"prefix"`
	First       int64  `json:"first"`
	Count       *int64 `json:"count"`
	Keys        int64  `json:"keys"`
	Size        int    `json:"size"`
	Compression string `json:"compression"`
	PerSecond   *int64 `json:"per_second"`
	Idempotent  bool   `json:"idempotent"`
	Partition   *int32 `json:"partition"`
	Group       string `json:"group"`
	SessionMs   *int64 `json:"session_ms"`
}

type line struct {
	T  string  `json:"t"`
	P  int32   `json:"p"`
	O  int64   `json:"o"`
	K  *string `json:"k"`
	V  *string `json:"v"`
	M  string  `json:"m,omitempty"`
	Ps []int32 `json:"ps"`
}

var (
	mu     sync.Mutex
	writer = bufio.NewWriterSize(os.Stdout, 1<<16)
)

func out(l line) {
	raw, _ := json.Marshal(l)
	mu.Lock()
	defer mu.Unlock()
	writer.Write(append(raw, '\n'))
}

func flush() {
	mu.Lock()
	defer mu.Unlock()
	writer.Flush()
}

func text(raw []byte) *string {
	if raw == nil {
		return nil
	}
	s := string(raw)
	return &s
}

func stopping() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		bufio.NewReader(os.Stdin).ReadString('\n')
		cancel()
	}()
	go func() {
		for {
			time.Sleep(20 * time.Millisecond)
			flush()
		}
	}()
	return ctx
}

func codec(name string) kgo.CompressionCodec {
	switch name {
	case "gzip":
		return kgo.GzipCompression()
	case "snappy":
		return kgo.SnappyCompression()
	case "lz4":
		return kgo.Lz4Compression()
	case "zstd":
		return kgo.ZstdCompression()
	}
	return kgo.NoCompression()
}

func produce(t task) error {
	options := []kgo.Opt{
		kgo.SeedBrokers(strings.Split(t.Bootstrap, ",")...),
		kgo.ProducerBatchCompression(codec(t.Compression)),
		// How soon it looks for the leader again while the broker is restarted.
		kgo.MetadataMinAge(100 * time.Millisecond),
	}
	if !t.Idempotent {
		options = append(options, kgo.DisableIdempotentWrite())
	}
	if t.Partition != nil {
		options = append(options, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return err
	}
	defer client.Close()
	out(line{T: "ready"})
	flush()
	stop := stopping()
	start := time.Now()
	for n := t.First; t.Count == nil || n < t.First+*t.Count; n++ {
		if t.PerSecond != nil {
			due := start.Add(time.Duration(float64(n-t.First) / float64(*t.PerSecond) * float64(time.Second)))
			time.Sleep(time.Until(due))
		}
		if stop.Err() != nil {
			break
		}
		value := fmt.Sprintf("%s:%d:", t.Prefix, n)
		if len(value) < t.Size {
			value += strings.Repeat(".", t.Size-len(value))
		}
		record := &kgo.Record{Topic: t.Topic, Key: []byte(fmt.Sprintf("key-%d", n%t.Keys)), Value: []byte(value)}
		if t.Partition != nil {
			record.Partition = *t.Partition
		}
		client.Produce(context.Background(), record, func(r *kgo.Record, err error) {
			if err != nil {
				out(line{T: "error", M: err.Error()})
				return
			}
			out(line{T: "ack", P: r.Partition, O: r.Offset, K: text(r.Key), V: text(r.Value)})
		})
	}
	if err := client.Flush(context.Background()); err != nil {
		return err
	}
	out(line{T: "done"})
	return nil
}

func consume(t task) error {
	held := map[int32]bool{}
	var heldMu sync.Mutex
	report := func(partitions []int32, have bool) {
		heldMu.Lock()
		defer heldMu.Unlock()
		for _, p := range partitions {
			if have {
				held[p] = true
			} else {
				delete(held, p)
			}
		}
		all := []int32{}
		for p := range held {
			all = append(all, p)
		}
		sort.Slice(all, func(i, j int) bool { return all[i] < all[j] })
		out(line{T: "assigned", Ps: all})
		flush()
	}
	options := []kgo.Opt{
		kgo.SeedBrokers(strings.Split(t.Bootstrap, ",")...),
		kgo.ConsumerGroup(t.Group),
		kgo.ConsumeTopics(t.Topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.MetadataMinAge(100 * time.Millisecond),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, m map[string][]int32) { report(m[t.Topic], true) }),
		kgo.OnPartitionsRevoked(func(ctx context.Context, client *kgo.Client, m map[string][]int32) {
			if err := client.CommitMarkedOffsets(ctx); err != nil {
				out(line{T: "note", M: err.Error()})
			}
			report(m[t.Topic], false)
		}),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, m map[string][]int32) { report(m[t.Topic], false) }),
		kgo.AutoCommitMarks(),
		kgo.BlockRebalanceOnPoll(),
	}
	if t.SessionMs != nil {
		options = append(options, kgo.SessionTimeout(time.Duration(*t.SessionMs)*time.Millisecond),
			kgo.HeartbeatInterval(time.Duration(*t.SessionMs/4)*time.Millisecond))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return err
	}
	out(line{T: "ready"})
	flush()
	stop := stopping()
	for stop.Err() == nil {
		fetches := client.PollFetches(stop)
		fetches.EachError(func(_ string, _ int32, err error) {
			if stop.Err() == nil {
				out(line{T: "note", M: err.Error()})
			}
		})
		fetches.EachRecord(func(r *kgo.Record) {
			out(line{T: "rec", P: r.Partition, O: r.Offset, K: text(r.Key), V: text(r.Value)})
			client.MarkCommitRecords(r)
		})
		client.AllowRebalance()
	}
	if err := client.CommitMarkedOffsets(context.Background()); err != nil {
		out(line{T: "note", M: err.Error()})
	}
	client.CloseAllowingRebalance()
	out(line{T: "done"})
	return nil
}

func main() {
	var t task
	if err := json.Unmarshal([]byte(os.Args[1]), &t); err != nil {
		panic(err)
	}
	var err error
	if t.Cmd == "produce" {
		err = produce(t)
	} else {
		err = consume(t)
	}
	if err != nil {
		out(line{T: "error", M: err.Error()})
	}
	flush()
	if err != nil {
		os.Exit(1)
	}
}
