// A server that waits for nothing: it asks again and again, and has each connection and its request as soon as they are there.
//
// Argument: the path of its socket.
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int count, char **arguments)
{
	static const char response[] = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n";
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	if (count != 2 || strlen(arguments[1]) >= sizeof address.sun_path)
		return 2;
	strcpy(address.sun_path, arguments[1]);
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 128)) {
		perror(arguments[1]);
		return 1;
	}
	for (;;) {
		int connection = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
		if (connection < 0)
			continue;
		char request[4096];
		ssize_t have;
		while ((have = recv(connection, request, sizeof request, 0)) < 0 && errno == EAGAIN)
			;
		if (have > 0 && send(connection, response, sizeof response - 1, MSG_NOSIGNAL) < 0)
			perror("send");
		close(connection);
	}
}
