//! ferroflow-rpc
