//! ferroflow-bus
