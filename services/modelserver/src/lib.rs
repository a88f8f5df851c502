//! ferroflow-modelserver
