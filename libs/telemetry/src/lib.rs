//! ferroflow-telemetry
