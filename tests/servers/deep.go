// A TLS server whose goroutines' stacks grow as they write: each piece of a response from another depth.
//
// Arguments: the address, the certificate's file and the key's.
package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync/atomic"
)

// What is written in pieces: if one were told twice, it would show.
var response = []string{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "2\r\nok\r\n", "0\r\n\r\n"}

// How deep the next piece is written.
var depth int64

//go:noinline
func descend(levels int64, write func()) int64 {
	if levels == 0 {
		write()
		return 0
	}
	return descend(levels-1, write) + 1
}

func serve(connection net.Conn) {
	reader := bufio.NewReader(connection)
	for {
		request, err := http.ReadRequest(reader)
		if err != nil {
			connection.Close()
			return
		}
		request.Body.Close()
		for _, piece := range response {
			// A goroutine of its own has a small stack.
			done := make(chan struct{})
			go func() {
				descend(atomic.AddInt64(&depth, 1)%512, func() { connection.Write([]byte(piece)) })
				close(done)
			}()
			<-done
		}
	}
}

func main() {
	certificate, err := tls.LoadX509KeyPair(os.Args[2], os.Args[3])
	if err == nil {
		var listener net.Listener
		listener, err = tls.Listen("tcp", os.Args[1], &tls.Config{Certificates: []tls.Certificate{certificate}})
		for err == nil {
			var connection net.Conn
			if connection, err = listener.Accept(); err == nil {
				go serve(connection)
			}
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
