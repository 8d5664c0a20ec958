// Go's net/http with h2c, by prior knowledge and by upgrade: every path answers; /chunked in pieces, /empty without a body.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c"
)

func main() {
	statuses := map[string]int{"/empty": 204, "/missing": 404, "/boom": 500}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		read, _ := io.Copy(io.Discard, r.Body)
		if status, there := statuses[r.URL.Path]; there {
			w.WriteHeader(status)
		}
		switch r.URL.Path {
		case "/empty":
		case "/chunked":
			for i := 0; i < 3; i++ {
				io.WriteString(w, "a piece\n")
				w.(http.Flusher).Flush()
			}
		case "/large":
			io.WriteString(w, strings.Repeat("x", 300_000))
		default:
			fmt.Fprintf(w, "read %d bytes\n", read)
		}
	})
	server := http.Server{Addr: os.Args[1], Handler: h2c.NewHandler(handler, &http2.Server{})}
	if err := server.ListenAndServe(); err != nil {
		panic(err)
	}
}
