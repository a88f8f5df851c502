//! ferroflow-profiles
