//! ferroflow-auth
