#!/bin/sh
# Waits for a line, then calls a service with curl, and with what Python programs use.
# Arguments: the service's address, the Python interpreter. Says how many requests were made.
read -r _
for number in 1 2 3 4 5 6 7 8 9 10; do
    curl --silent --output /dev/null "$1/items/$number" --output /dev/null "$1/old"
done
echo $((20 + $("$2" "$(dirname "$0")/calls.py" "$1")))
