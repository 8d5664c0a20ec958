// Go's net/http: every path answers, with a length, or in chunks without one.
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
		case strings.HasPrefix(request.URL.Path, "/empty"):
			response.WriteHeader(http.StatusNoContent)
		default:
			fmt.Fprintf(response, "read %d bytes\n", len(body))
		}
	})
	if err := http.ListenAndServe(os.Args[1], nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
