//! The networks that are trained: one file for each family, behind one trait.

pub mod data;
pub mod decoder;
pub mod evaluate;
pub mod family;
pub mod generate;
pub mod gradients;
pub mod perceptron;
mod recipes;
pub mod registry;
pub mod routers;
pub mod stops;
