//! Fronts: parse, call the engine, render. No kernel calls.

pub mod cli;
