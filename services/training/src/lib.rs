//! ferroflow-training
