"""What the benchmark serves with Gunicorn: a small Flask application."""

from flask import Flask

app = Flask(__name__)


@app.get("/items/<int:number>")
def item(number):
    return f"item {number}\n"
