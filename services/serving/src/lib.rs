//! ferroflow-serving
