"""Calls a service with the clients that Python programs use; says how many requests it made."""

import http.client
import sys
import urllib.request

import httpx
import requests
import urllib3

base = sys.argv[1]
made = 0

session = requests.Session()
for number in range(10):
    assert session.get(f"{base}/items/{number}").status_code == 200
    assert session.post(f"{base}/items", data=b"x" * number).status_code == 201
    made += 2

pool = urllib3.PoolManager()
for _ in range(10):
    assert pool.request("GET", f"{base}/boom", retries=False).status == 500
    made += 1

with httpx.Client() as client:
    for _ in range(10):
        assert client.get(f"{base}/chunked").status_code == 200
        assert client.delete(f"{base}/items/1").status_code == 204
        made += 2

for _ in range(5):
    assert urllib.request.urlopen(f"{base}/big").read() == b"x" * (10 << 20)
    made += 1

connection = http.client.HTTPConnection(base.removeprefix("http://"))
for _ in range(5):
    connection.request("HEAD", "/items/1")
    connection.getresponse().read()
    made += 1

print(made)
