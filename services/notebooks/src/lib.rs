//! ferroflow-notebooks
