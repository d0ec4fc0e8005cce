//! What can be wrong with a data set: one sentence each that says what is wrong, where, and what to do about it.

mod data;
mod image;
mod pack;
mod problem;

pub use data::DataError;
pub use image::ImageError;
pub use pack::PackError;
pub use problem::Problem;
