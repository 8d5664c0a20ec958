"""The same application with Elastic APM's agent; ELASTIC_APM_SERVER_URL says where it reports."""

from app import app
from elasticapm.contrib.flask import ElasticAPM

ElasticAPM(app)
