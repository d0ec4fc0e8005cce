//! Batches of images: random ones for training, all of them for validation.

use std::ops::Range;

use super::data::Images;
use crate::draw::rows_of_step;
use crate::errors::DataError;

/// Some images of a set, one per row. They are copied only when [`pixels`](Self::pixels) or [`labels`](Self::labels) is
/// called, for the rows that are needed, straight into what a tensor can own.
#[derive(Clone, Debug)]
pub struct ImageBatch<'a> {
    images: &'a Images,
    /// The number of every row's image in `images`.
    numbers: Vec<usize>,
}

impl ImageBatch<'_> {
    /// Number of images.
    pub fn rows(&self) -> usize {
        self.numbers.len()
    }

    /// Pixels of one image.
    pub fn features(&self) -> usize {
        self.images.features
    }

    /// Brightness in [0, 1] of some rows, `[rows, features]`; rows beyond the last one are ignored.
    pub fn pixels(&self, rows: Range<usize>) -> Vec<f32> {
        let mut pixels = Vec::with_capacity(rows.len().min(self.rows()) * self.features());
        self.numbers_of(rows).for_each(|number| pixels.extend_from_slice(self.images.row(number)));
        pixels
    }

    /// Class of every image of some rows, `[rows]`; rows beyond the last one are ignored.
    pub fn labels(&self, rows: Range<usize>) -> Vec<i32> {
        self.numbers_of(rows)
            .filter_map(|number| self.images.labels.get(number))
            .map(|label| i32::from(*label))
            .collect()
    }

    fn numbers_of(&self, rows: Range<usize>) -> impl Iterator<Item = usize> {
        self.numbers.iter().take(rows.end).skip(rows.start).copied()
    }
}

/// The training images of every step, drawn with replacement.
///
/// They are drawn by a counter-based generator, as for [`Windows`](crate::Windows): step and row alone determine an image, so
/// resuming needs no saved generator state and another program can draw the same batches.
#[derive(Clone, Copy, Debug)]
pub struct ImageSampler<'a> {
    images: &'a Images,
    data_seed: u64,
    batch: usize,
}

impl<'a> ImageSampler<'a> {
    /// `batch` images per step from the training split `images`.
    ///
    /// # Errors
    ///
    /// [`DataError::Zero`] when `batch` is 0 or there are no images.
    pub fn new(images: &'a Images, data_seed: u64, batch: usize) -> Result<Self, DataError> {
        for (what, size) in [("batch", batch), ("images", images.len())] {
            if size == 0 {
                return Err(DataError::Zero { what });
            }
        }
        Ok(Self { images, data_seed, batch })
    }

    /// The numbers of the images of step `step` (from 0), one per row.
    ///
    /// With N training images and batch size B, row i of step t is image `(x * N) >> 64` in 128-bit arithmetic, where
    /// `x = splitmix64(splitmix64(data_seed) + t * B + i)` in wrapping 64-bit arithmetic.
    pub fn indices(&self, step: u64) -> Vec<usize> {
        rows_of_step(self.data_seed, step, self.batch, self.images.len())
    }

    /// The batch of step `step` (from 0).
    pub fn batch(&self, step: u64) -> ImageBatch<'a> {
        ImageBatch { images: self.images, numbers: self.indices(step) }
    }
}

/// All `images` in order, `rows` at a time (0 counts as 1); the last batch may have fewer.
pub fn image_batches(images: &Images, rows: usize) -> impl Iterator<Item = ImageBatch<'_>> {
    let (count, rows) = (images.len(), rows.max(1));
    (0..count).step_by(rows).map(move |first| {
        let numbers = (first..first.saturating_add(rows).min(count)).collect();
        ImageBatch { images, numbers }
    })
}
