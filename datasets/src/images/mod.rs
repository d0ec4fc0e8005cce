//! Images with class labels, and their batches.

mod batches;
mod data;
mod idx;

pub use batches::{ImageBatch, ImageSampler, image_batches};
pub use data::{ImageData, Images};
