//! ferroflow-tuning
