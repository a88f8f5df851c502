//! ferroflow-blob
