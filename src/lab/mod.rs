//! Private Postgres servers and real gateways for tests, benchmarks and the demo.
