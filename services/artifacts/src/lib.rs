//! ferroflow-artifacts
