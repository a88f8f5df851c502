//! ferroflow-config
