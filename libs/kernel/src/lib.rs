//! ferroflow-kernel
