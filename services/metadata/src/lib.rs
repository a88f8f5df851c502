//! ferroflow-metadata
