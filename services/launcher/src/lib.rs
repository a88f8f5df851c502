//! ferroflow-launcher
