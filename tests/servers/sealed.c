// A server of the interface that OpenSSL and BoringSSL share: a thread for each connection, and an answer to each request.
//
// Arguments: the port, the certificate's file and the key's.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

static SSL_CTX *context;

// Reads a request's head and body; whether there was one. Requests come one at a time.
static int take(SSL *ssl, char *head, int room)
{
	int have = 0;
	char *end = NULL;
	while (!end) {
		int more = have < room ? SSL_read(ssl, head + have, room - have) : 0;
		if (more <= 0)
			return 0;
		head[have += more] = 0;
		end = strstr(head, "\r\n\r\n");
	}
	char *length = strcasestr(head, "\r\ncontent-length:");
	long left = (length ? atol(length + 17) : 0) - (head + have - end - 4);
	char body[4096];
	while (left > 0) {
		int more = SSL_read(ssl, body, left < (long)sizeof body ? (int)left : (int)sizeof body);
		if (more <= 0)
			return 0;
		left -= more;
	}
	end[2] = 0;
	return 1;
}

static void *serve(void *argument)
{
	int fd = (int)(long)argument;
	SSL *ssl = SSL_new(context);
	char head[8193];
	SSL_set_fd(ssl, fd);
	if (SSL_accept(ssl) == 1)
		while (take(ssl, head, sizeof head - 1)) {
			int empty = strstr(head, " /empty") != NULL, closes = strcasestr(head, "connection: close") != NULL;
			char response[256];
			int len = snprintf(response, sizeof response, "HTTP/1.1 %s\r\n%s%s\r\n%s", empty ? "204 No Content" : "200 OK",
					   empty ? "" : "Content-Length: 3\r\n", closes ? "Connection: close\r\n" : "",
					   empty || !strncmp(head, "HEAD", 4) ? "" : "ok\n");
			if (SSL_write(ssl, response, len) != len || closes)
				break;
		}
	SSL_shutdown(ssl);
	SSL_free(ssl);
	close(fd);
	return NULL;
}

int main(int count, char **arguments)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1, fd;
	context = SSL_CTX_new(TLS_method());
	if (count != 4 || !SSL_CTX_use_certificate_chain_file(context, arguments[2]) ||
	    !SSL_CTX_use_PrivateKey_file(context, arguments[3], SSL_FILETYPE_PEM))
		return 1;
	address.sin_port = htons(atoi(arguments[1]));
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
	if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 128))
		return 1;
	while ((fd = accept(listener, NULL, NULL)) >= 0) {
		pthread_t thread;
		if (!pthread_create(&thread, NULL, serve, (void *)(long)fd))
			pthread_detach(thread);
	}
	return 1;
}
