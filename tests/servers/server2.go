// Go's net/http with h2c, by prior knowledge and by upgrade: every path answers; /chunked in pieces, /empty without a
// body, /large/N with N octets.
//
// Arguments: the address; for TLS, and HTTP/2 by ALPN, the certificate's file and the key's.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
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
		if strings.HasPrefix(r.URL.Path, "/large/") {
			octets, _ := strconv.Atoi(r.URL.Path[len("/large/"):])
			io.WriteString(w, strings.Repeat("x", octets))
			return
		}
		switch r.URL.Path {
		case "/empty":
		case "/chunked":
			for i := 0; i < 3; i++ {
				io.WriteString(w, "a piece\n")
				w.(http.Flusher).Flush()
			}
		default:
			fmt.Fprintf(w, "read %d bytes\n", read)
		}
	})
	server := http.Server{Addr: os.Args[1], Handler: h2c.NewHandler(handler, &http2.Server{})}
	serve := server.ListenAndServe
	if len(os.Args) > 2 {
		server.Handler = handler
		serve = func() error { return server.ListenAndServeTLS(os.Args[2], os.Args[3]) }
	}
	if err := serve(); err != nil {
		panic(err)
	}
}
