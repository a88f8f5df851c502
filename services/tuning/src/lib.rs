//! tuning
pub mod domain;
