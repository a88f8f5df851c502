//! ferroflow-testkit
