// go.go: the HTTP benches for Go's net/http.
//
//	http_go many URL N C BYTES     N GETs, C at once, connections kept
//	http_go cold URL N RUNS        N GETs at once over a client that is new
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func cpu() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func get(c *http.Client, url string) int {
	res, err := c.Get(url)
	if err != nil {
		panic(err)
	}
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil || res.StatusCode != 200 {
		panic("a wrong answer")
	}
	return len(body)
}

func client(connections int) (*http.Client, *http.Transport) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConns, t.MaxIdleConnsPerHost = connections, connections
	return &http.Client{Transport: t}, t
}

func many(url string, n, c, bytes int) {
	client, _ := client(c)
	took := make([]time.Duration, n)
	var next int64
	var group sync.WaitGroup
	get(client, url)
	wall, before := time.Now(), cpu()
	for i := 0; i < c; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for {
				k := int(atomic.AddInt64(&next, 1)) - 1
				if k >= n {
					return
				}
				began := time.Now()
				if get(client, url) != bytes {
					panic("a wrong answer")
				}
				took[k] = time.Since(began)
			}
		}()
	}
	group.Wait()
	spent, passed := cpu()-before, time.Since(wall)
	sort.Slice(took, func(i, j int) bool { return took[i] < took[j] })
	fmt.Printf("bench=http_go n=%d c=%d cpu_us=%.2f req_s=%.0f p50_us=%.1f\n", n, c,
		float64(spent)/1e3/float64(n), float64(n)/passed.Seconds(), float64(took[n/2])/1e3)
}

func cold(url string, n, runs int) {
	before := cpu()
	for r := 0; r < runs; r++ {
		client, transport := client(n)
		var group sync.WaitGroup
		for i := 0; i < n; i++ {
			group.Add(1)
			go func() {
				defer group.Done()
				get(client, url)
			}()
		}
		group.Wait()
		transport.CloseIdleConnections()
	}
	fmt.Printf("bench=http_go n=%d runs=%d cpu_ms=%.3f\n", n, runs,
		float64(cpu()-before)/1e6/float64(runs))
}

func number(i int) int {
	n, err := strconv.Atoi(os.Args[i])
	if err != nil {
		panic(err)
	}
	return n
}

func main() {
	if os.Args[1] == "many" {
		many(os.Args[2], number(3), number(4), number(5))
	} else {
		cold(os.Args[2], number(3), number(4))
	}
}
