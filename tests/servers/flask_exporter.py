"""The test application with prometheus-flask-exporter in it, as its own dashboards expect it: one process, /metrics."""

from app import app
from prometheus_flask_exporter import PrometheusMetrics

PrometheusMetrics(app)
