//! Docker Compose, on an engine of the test's own.
