// Go's net/http: every path answers, with a length, or in chunks without one.
// After "/busy" it uses all that a thread can, for good.
//
// Arguments: the address; for TLS the certificate's file and the key's.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

func main() {
	http.HandleFunc("/", func(response http.ResponseWriter, request *http.Request) {
		body, _ := io.ReadAll(request.Body)
		switch {
		case strings.HasPrefix(request.URL.Path, "/chunked"):
			fmt.Fprint(response, "one ")
			response.(http.Flusher).Flush()
			fmt.Fprint(response, "two\n")
		case strings.HasPrefix(request.URL.Path, "/busy"):
			go func() {
				for {
				}
			}()
		case strings.HasPrefix(request.URL.Path, "/empty"):
			response.WriteHeader(http.StatusNoContent)
		default:
			fmt.Fprintf(response, "read %d bytes\n", len(body))
		}
	})
	serve := func() error { return http.ListenAndServe(os.Args[1], nil) }
	if len(os.Args) > 2 {
		serve = func() error { return http.ListenAndServeTLS(os.Args[1], os.Args[2], os.Args[3], nil) }
	}
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
