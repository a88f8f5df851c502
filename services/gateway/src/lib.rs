//! ferroflow-gateway
