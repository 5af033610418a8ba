"""Test support for users' own tests: emulators of Vertex AI and Cloud Storage, Airflow, and fault injection."""
