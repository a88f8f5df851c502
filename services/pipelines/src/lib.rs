//! ferroflow-pipelines
