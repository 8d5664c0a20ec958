"""The same application with prometheus-flask-exporter, for several workers."""

from app import app
from prometheus_flask_exporter.multiprocess import GunicornInternalPrometheusMetrics

GunicornInternalPrometheusMetrics(app)
