//! ferroflow-db
