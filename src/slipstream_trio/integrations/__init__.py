"""Integrations of telemetry: `logging`, `opentelemetry`, `prometheus`. Import the one you want."""
