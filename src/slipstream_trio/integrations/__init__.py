"""What telemetry is sent to: `logging`, `opentelemetry`, `prometheus`. Import the one you want."""
