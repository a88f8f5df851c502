//! ferroflow-api
